# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The machine and its cgroups: the real ones, and recorded trees of other systems."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from forza._machine import Load, Memory
from forza._mounts import cgroups

MB = 1 << 20
GB = 1 << 30
ROOT = Path(__file__).parents[2]

# The real thing.


def test_load_is_the_kernels() -> None:
    """Without a limit: the 1-minute load of all the machine's cores."""
    load = Load()
    # It changes every 5 s: read again if it did so in between.
    for _ in range(3):
        before, (value, cores, kind) = os.getloadavg()[0], load.read()
        if before == os.getloadavg()[0]:
            break
    if kind == "cgroup":
        pytest.skip("these tests run under a CPU limit")
    assert value == pytest.approx(before, abs=0.01)
    assert cores == psutil.cpu_count()
    load.close()


def test_memory_is_what_psutil_says() -> None:
    """Without a limit: the part of the machine's memory that is not available."""
    memory = Memory()
    used, total, kind = memory.read()
    if kind == "cgroup":
        pytest.skip("these tests run under a memory limit")
    expected = psutil.virtual_memory()
    assert total == expected.total
    assert used == pytest.approx(expected.percent / 100, abs=0.01)
    memory.close()


def test_cgroups_are_those_that_hold_us() -> None:
    """The first folder's members include this process, and the last is the mount."""
    found = 0
    for controller in ("memory", "cpu", "cpuacct", "pids", "no such controller"):
        version, point, folders = cgroups(controller)
        if not version:
            continue
        found += 1
        members = Path(f"{point}{folders[0]}/cgroup.procs").read_text().split()
        assert str(os.getpid()) in members
        assert folders[-1] == ""
        assert os.path.ismount(point)
    if not found:
        pytest.skip("there are no cgroups here")


MEASURE = """
import json, os, sys, time
from forza._machine import Load, Memory
from forza._mounts import cgroups
def join(*folders):
    for folder in folders:
        with open(f"{folder}/cgroup.procs", "w") as file: file.write(str(os.getpid()))
def say(*what): print(json.dumps(what), flush=True)
"""


def measure(
    program: str, *words: str, wrapper: tuple[str, ...] = ()
) -> list[list[Any]]:
    """Run it as a process of its own, which may join a cgroup; return what it says."""
    result = subprocess.run(
        [*wrapper, sys.executable, "-c", MEASURE + program, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


MakeGroup = Callable[[str, str], tuple[int, Path]]


@pytest.fixture
def make_group() -> Iterator[MakeGroup]:
    """Make a cgroup that a controller can limit, of whichever version, or skip."""
    made: list[Path] = []

    def make(controller: str, name: str) -> tuple[int, Path]:
        version, point, folders = cgroups(controller)
        if not version:
            pytest.skip("there are no cgroups here")
        top = Path(f"{point}{folders[0]}")
        if version == 2:
            # Below a cgroup with members, only its own kind may be: begin at the top.
            top = Path(point)
            if controller not in (top / "cgroup.subtree_control").read_text().split():
                pytest.skip(f"there is no {controller} controller here")
        path = top / f"forza-{os.getpid()}-{name}"
        try:
            path.mkdir()
        except OSError as error:
            pytest.skip(f"cannot make a cgroup: {error}")
        made.append(path)
        return version, path

    yield make
    for path in reversed(made):
        path.rmdir()


def write(path: Path, value: object) -> None:
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        pytest.skip(f"cannot set {path.name}: {error}")


def test_a_real_memory_limit(make_group: MakeGroup, tmp_path: Path) -> None:
    """In a cgroup below one with a limit: that limit's use, without idle file pages."""
    version, outer = make_group("memory", "outer")
    _, inner = make_group("memory", "outer/inner")
    limit, usage, idle = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    write(outer / limit, 512 * MB)
    before, after = measure(
        """
inner, path, usage, stat, idle = sys.argv[1:]
memory = Memory()
say(*memory.read())
join(inner)
data = bytearray(os.urandom(1 << 20) * 128)
with open(path, "wb") as file:
    file.write(data[:100 << 20])
    file.flush()
    os.fsync(file.fileno())
used = memory.read()
fields = dict(line.split() for line in open(stat))
say(*used, int(open(usage).read()), int(fields[idle]))
""",
        str(inner),
        str(tmp_path / "file"),
        str(outer / usage),
        str(outer / "memory.stat"),
        idle,
    )
    used, total, kind, in_use, in_files = after
    assert before[2] == "machine"
    assert (total, kind) == (512 * MB, "cgroup")
    assert used * 512 * MB == pytest.approx(in_use - in_files, abs=2 * MB)
    assert used > 0.25


def test_a_real_cpu_limit(make_group: MakeGroup) -> None:
    """In a cgroup with a quota: the cores that it uses, of those that it may use."""
    version, group = make_group("cpu", "quota")
    join = [str(group)]
    if version == 1:
        write(group / "cpu.cfs_quota_us", 30_000)
        write(group / "cpu.cfs_period_us", 100_000)
        if not (group / "cpuacct.usage").exists():
            join.append(str(make_group("cpuacct", "quota")[1]))
    else:
        write(group / "cpu.max", "30000 100000")
    before, first, second = measure(
        """
load = Load()
say(*load.read())
join(*sys.argv[1:])
say(*load.read())
wall, own = time.monotonic(), time.process_time()
while time.process_time() < own + 0.2: pass
value = load.read()
say(*value, (time.process_time() - own) / (time.monotonic() - wall))
""",
        *join,
    )
    value, cores, kind, expected = second
    assert before[2] == "machine"
    assert first[2] == "machine"
    assert (cores, kind) == (0.3, "cgroup")
    assert value == pytest.approx(expected, rel=0.1)


def test_a_real_cgroup_namespace(make_group: MakeGroup, tmp_path: Path) -> None:
    """As in a container: our cgroup is the root of all that is to be seen."""
    unshare = shutil.which("unshare")
    if unshare is None or os.getuid() != 0:
        pytest.skip("needs root and unshare")
    version, group = make_group("memory", "namespace")
    if version != 1:
        pytest.skip("mounts a version 1 hierarchy of its own")
    write(group / "memory.limit_in_bytes", 256 * MB)
    join = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'
    namespace = (unshare, "--cgroup", "--mount")
    mount = 'mount -t cgroup -o memory cgroup "$1" && shift && exec "$@"'
    enter = ("sh", "-c", join, "sh", str(group), *namespace)
    if subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("no cgroup namespace to be had")
    said = "say(cgroups('memory'), Memory().read(), open('/proc/self/cgroup').read())"
    # The machine's own mounts begin above us, and do not say by which names to get
    # to us from there: no limit is better than a wrong one.
    ((where, used, lines),) = measure(said, wrapper=enter)
    assert ":memory:/\n" in lines
    assert where[2] == [""]
    assert used[2] == "machine"
    # A container has mounts of its own.
    own = (*enter, "sh", "-c", mount, "sh", str(tmp_path))
    ((where, used, lines),) = measure(said, wrapper=own)
    assert where == [1, str(tmp_path), [""]]
    assert used[1:] == [256 * MB, "cgroup"]
    assert 0 < used[0] < 1


# Recorded trees.


class Recorded:
    """A tree of files as /proc and /sys would show them."""

    def __init__(self, root: Path, cgroup: str, mounts: str) -> None:
        self.root = str(root)
        self.path = root
        self.write("proc/loadavg", "1.25 0.50 0.10 2/345 6789\n")
        self.write(
            "proc/meminfo",
            f"MemTotal:       {8 * GB // 1024} kB\n"
            f"MemFree:         {GB // 1024} kB\n"
            f"MemAvailable:    {6 * GB // 1024} kB\n",
        )
        self.write("proc/self/cgroup", cgroup)
        self.write("proc/self/mountinfo", mounts)

    def write(self, name: str, content: object) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}")

    def memory(
        self, folder: str, limit: object, used: int, idle: int = 0, version: int = 2
    ) -> None:
        names = "memory.max", "memory.current", "inactive_file"
        if version == 1:
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        more = f"inactive_file {idle // 2}\n" if version == 1 else ""
        self.write(f"{folder}/{names[0]}", f"{limit}\n")
        self.write(f"{folder}/{names[1]}", f"{used}\n")
        stat = f"anon 123\n{more}active_file 99\n{names[2]} {idle}\nslab 7\n"
        self.write(f"{folder}/memory.stat", stat)

    def cpu(self, folder: str, quota: str, used: float) -> None:
        self.write(f"{folder}/cpu.max", f"{quota}\n")
        stat = f"usage_usec {used * 1e6:.0f}\nuser_usec 1\nsystem_usec 2\n"
        self.write(f"{folder}/cpu.stat", stat)


V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
TOP = "sys/fs/cgroup"
V1_MAX = 9223372036854771712


def test_nothing_is_limited(tmp_path: Path) -> None:
    """No cgroups at all: the machine's own figures."""
    tree = Recorded(tmp_path, "", "")
    assert cgroups("memory", tree.root) == (0, "", [])
    assert Memory(tree.root).read() == (0.25, 8 * GB, "machine")
    assert Load(tree.root).read() == (1.25, os.cpu_count(), "machine")


def test_what_must_be_there(tmp_path: Path) -> None:
    """Without a readable /proc there is nothing to tell, and that is an error."""
    with pytest.raises(OSError, match=r"cannot read .*/proc/meminfo"):
        Memory(str(tmp_path)).read()
    with pytest.raises(OSError, match=r"cannot read .*/proc/loadavg"):
        Load(str(tmp_path)).read()


def test_no_cgroup_to_be_limited_by(tmp_path: Path) -> None:
    """Version 2 without any limit, as on a plain machine with systemd."""
    tree = Recorded(tmp_path, "0::/system.slice/app.service\n", V2)
    tree.memory(f"{TOP}/system.slice/app.service", "max", GB)
    tree.memory(f"{TOP}/system.slice", "max", 2 * GB)
    tree.cpu(f"{TOP}/system.slice/app.service", "max 100000", 1.0)
    assert Memory(tree.root).read()[2] == "machine"
    load = Load(tree.root)
    assert [load.read()[2] for _ in range(2)] == ["machine"] * 2


@pytest.mark.parametrize(
    ("own", "parent", "expected"),
    [
        ((512 * MB, 256 * MB, 0), ("max", GB, 0), (0.5, 512 * MB)),
        (("max", 256 * MB, 0), (GB, 768 * MB, 0), (0.75, GB)),
        # Files' idle pages are not in the way.
        ((GB, 768 * MB, 512 * MB), ("max", GB, 0), (0.25, GB)),
        ((GB, 100 * MB, 200 * MB), ("max", GB, 0), (0.0, GB)),
        # The parent's is smaller.
        ((2 * GB, 256 * MB, 0), (GB, 512 * MB, 0), (0.5, GB)),
        # The parent's is larger, but others have filled it.
        ((512 * MB, 128 * MB, 0), (GB, 960 * MB, 0), (0.9375, GB)),
        # A limit above what the machine has is none.
        ((9 * GB, GB, 0), ("max", GB, 0), None),
        ((0, 0, 0), ("max", GB, 0), None),
    ],
)
def test_nested_limits(
    own: tuple[object, int, int],
    parent: tuple[object, int, int],
    expected: tuple[float, int] | None,
    tmp_path: Path,
) -> None:
    """Of all limits above us, the one that is nearest to being reached counts."""
    tree = Recorded(tmp_path, "0::/a.slice/b.service\n", V2)
    tree.memory(f"{TOP}/a.slice/b.service", *own)
    tree.memory(f"{TOP}/a.slice", *parent)
    used = Memory(tree.root).read()
    assert used == ((*expected, "cgroup") if expected else (0.25, 8 * GB, "machine"))


CONTAINER_V1 = """\
12:cpuset:/docker/abc
5:cpu,cpuacct:/docker/abc
4:memory:/docker/abc
1:name=systemd:/docker/abc
0::/docker/abc
"""


def v1_mount(top: str, controller: str, extra: str = "") -> str:
    folder = controller.replace(",", "\\040")
    return (
        f"40 31 0:33 {top} /sys/fs/cgroup/{folder} ro,nosuid {extra}- "
        f"cgroup cgroup rw,{controller}\n"
    )


@pytest.mark.parametrize(
    ("cgroup", "mounts", "folder"),
    [
        # Version 2: on the machine, in a namespace, bind-mounted without one.
        ("0::/k/pod/ctr\n", V2, f"{TOP}/k/pod/ctr"),
        ("0::/\n", V2, TOP),
        ("0::/k/pod/ctr\n", V2.replace(" / /", " /k/pod/ctr /"), TOP),
        ("0::/k/pod/ctr\n", V2.replace(" / /", " /k /"), f"{TOP}/pod/ctr"),
        # What is outside of the namespace, or of the mount, has no name here.
        ("0::/../other\n", V2, TOP),
        ("0::/\n", V2.replace(" / /", " /../.. /"), TOP),
        ("0::/elsewhere\n", V2.replace(" / /", " /k/pod /"), TOP),
        ("0::/keep\n", V2.replace(" / /", " /k /"), TOP),
        # What was entered from outside, and mounted from there.
        ("0::/../x/y\n", V2.replace(" / /", " /.. /"), f"{TOP}/x/y"),
        # A mount that fits goes before one that does not.
        (
            "0::/\n",
            V2.replace(" / /sys/fs/cgroup", " /../.. /host") + V2,
            TOP,
        ),
        # Version 1: the machine's view, docker's with and without a namespace.
        (CONTAINER_V1, v1_mount("/", "memory"), f"{TOP}/memory/docker/abc"),
        (CONTAINER_V1, v1_mount("/docker/abc", "memory"), f"{TOP}/memory"),
        ("4:memory:/\n0::/\n", v1_mount("/", "memory"), f"{TOP}/memory"),
        # Both: a controller is in one of them only.
        (
            CONTAINER_V1,
            V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
            + v1_mount("/", "cpu,cpuacct", "master:7 ")
            + v1_mount("/", "memory", "master:8 "),
            f"{TOP}/memory/docker/abc",
        ),
        (
            "3:pids:/p\n0::/a\n",
            v1_mount("/", "pids") + V2.replace("cgroup rw", "cgroup/unified rw"),
            f"{TOP}/unified/a",
        ),
    ],
)
def test_where_the_limit_is(
    cgroup: str, mounts: str, folder: str, tmp_path: Path
) -> None:
    """Every way in which containers show a process its own cgroup."""
    tree = Recorded(tmp_path, cgroup, mounts)
    version = 1 if f"{TOP}/memory" in folder else 2
    tree.memory(folder, GB, 512 * MB, 256 * MB, version)
    if version == 1 and folder != f"{TOP}/memory":
        tree.memory(f"{TOP}/memory", V1_MAX, 7 * GB, 0, version)
    assert Memory(tree.root).read() == (0.25, GB, "cgroup")


def test_a_path_with_spaces(tmp_path: Path) -> None:
    """The mount table writes them as numbers."""
    tree = Recorded(tmp_path, CONTAINER_V1, v1_mount("/", "memory,cpu"))
    tree.memory(f"{TOP}/memory cpu/docker/abc", GB, 512 * MB, 0, version=1)
    assert Memory(tree.root).read() == (0.5, GB, "cgroup")


def test_limits_that_change(tmp_path: Path) -> None:
    """A limit set, moved, lifted or moved to while we run counts from then on."""
    tree = Recorded(tmp_path, "0::/a\n", V2)
    tree.memory(f"{TOP}/a", "max", 512 * MB)
    tree.memory(f"{TOP}/b", GB, 128 * MB)
    memory = Memory(tree.root)
    assert memory.read()[2] == "machine"
    tree.write(f"{TOP}/a/memory.max", GB)
    assert memory.read() == (0.5, GB, "cgroup")
    tree.write(f"{TOP}/a/memory.max", 2 * GB)
    assert memory.read() == (0.25, 2 * GB, "cgroup")
    tree.write("proc/self/cgroup", "0::/b\n")
    assert memory.read() == (0.125, GB, "cgroup")
    shutil.rmtree(tmp_path / TOP)
    tree.write("proc/self/cgroup", "0::/\n")
    assert memory.read()[2] == "machine"
    memory.close()


def check(
    reading: tuple[float, float, str], load: float, cores: float, kind: str = "cgroup"
) -> None:
    assert reading[0] == pytest.approx(load, abs=1e-9)
    assert reading[1:] == (cores, kind)


def test_cores_used_are_averaged_as_the_load_is(tmp_path: Path) -> None:
    """A steady use is its own average; a step fades by e for each minute."""
    now, used = 1000.0, 50.0
    tree = Recorded(tmp_path, "0::/a\n", V2)
    tree.cpu(f"{TOP}/a", "50000 100000", used)
    load = Load(tree.root, lambda: now)
    assert load.read() == (1.25, os.cpu_count(), "machine")
    for _ in range(100):
        now, used = now + 5.0, used + 5.0 * 0.4
        tree.cpu(f"{TOP}/a", "50000 100000", used)
        check(load.read(), 0.4, 0.5)
    for tick in range(1, 100):
        now += 5.0
        age = 5.0 * tick
        # The 500 s before do not weigh quite as much as all of the past.
        weight = 1 - math.exp(-(500 + age) / 60)
        expected = 0.4 * (math.exp(-age / 60) - math.exp(-(500 + age) / 60)) / weight
        check(load.read(), expected, 0.5)


def test_the_smallest_share_counts(tmp_path: Path) -> None:
    """Of nested quotas the one with the fewest cores, and what that cgroup uses."""
    now = 0.0
    tree = Recorded(tmp_path, "0::/a/b\n", V2)
    tree.cpu(f"{TOP}/a/b", "80000 100000", 1.0)
    tree.cpu(f"{TOP}/a", "25000 50000", 7.0)
    load = Load(tree.root, lambda: now)
    load.read()
    now = 10.0
    tree.cpu(f"{TOP}/a/b", "80000 100000", 2.0)
    tree.cpu(f"{TOP}/a", "25000 50000", 10.0)
    check(load.read(), 0.3, 0.5)
    # Another becomes the smallest: its average begins anew.
    tree.cpu(f"{TOP}/a/b", "20000 100000", 3.0)
    assert load.read()[2] == "machine"
    now = 20.0
    tree.cpu(f"{TOP}/a/b", "20000 100000", 4.0)
    check(load.read(), 0.1, 0.2)
    # More than all the machine has is no limit.
    tree.cpu(f"{TOP}/a/b", "max 100000", 4.0)
    tree.cpu(f"{TOP}/a", f"{(os.cpu_count() or 1) * 100000} 100000", 10.0)
    assert load.read()[2] == "machine"
    load.close()


@pytest.mark.parametrize("together", [True, False])
def test_version_1_tells_use_and_limit_apart(together: bool, tmp_path: Path) -> None:
    """cpuacct may be mounted with cpu or on its own."""
    now = 0.0
    mounts = (
        v1_mount("/docker/abc", "cpu,cpuacct")
        if together
        else v1_mount("/docker/abc", "cpu") + v1_mount("/docker/abc", "cpuacct")
    )
    tree = Recorded(tmp_path, CONTAINER_V1, mounts)
    limit = f"{TOP}/cpu cpuacct" if together else f"{TOP}/cpu"
    use = limit if together else f"{TOP}/cpuacct"
    tree.write(f"{limit}/cpu.cfs_quota_us", "50000\n")
    tree.write(f"{limit}/cpu.cfs_period_us", "100000\n")
    tree.write(f"{use}/cpuacct.usage", f"{10**12}\n")
    load = Load(tree.root, lambda: now)
    assert load.read()[2] == "machine"
    now = 5.0
    tree.write(f"{use}/cpuacct.usage", f"{10**12 + 10**9}\n")
    check(load.read(), 0.2, 0.5)
    tree.write(f"{limit}/cpu.cfs_quota_us", "-1\n")
    assert load.read()[2] == "machine"


def test_a_limit_whose_use_is_not_told(tmp_path: Path) -> None:
    """Without cpuacct there is nothing to average: the machine's load remains."""
    tree = Recorded(tmp_path, CONTAINER_V1, v1_mount("/docker/abc", "cpu"))
    tree.write(f"{TOP}/cpu/cpu.cfs_quota_us", "50000\n")
    tree.write(f"{TOP}/cpu/cpu.cfs_period_us", "100000\n")
    load = Load(tree.root)
    assert [load.read() for _ in range(2)] == [(1.25, os.cpu_count(), "machine")] * 2


def test_nothing_stays_open(tmp_path: Path) -> None:
    """close() closes every file that was read."""
    tree = Recorded(tmp_path, "0::/a/b\n", V2)
    for folder in ("a/b", "a"):
        tree.memory(f"{TOP}/{folder}", GB, MB)
        tree.cpu(f"{TOP}/{folder}", "50000 100000", 1.0)
    memory, load = Memory(tree.root), Load(tree.root)
    for source in (memory, load):
        source.read()
        source.read()
    assert open_files(tmp_path)
    memory.close()
    load.close()
    assert not open_files(tmp_path)


def open_files(folder: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if name.startswith(str(folder))]
