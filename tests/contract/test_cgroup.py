# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Where a cgroup v2 was delegated, the app has one of its own, and ends as a whole.

These run on the kernel's own cgroup v2. Its controllers may all belong to version 1, as
on a hybrid machine; then what a limit of memory does in it is not tested here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forza._mounts import cgroups
from forza._native import path as native_path
from tests.conftest import CHILDREN, PATIENCE, ROOT
from tests.contract.conftest import NOBODY, become_user
from tests.contract.test_figures import guards
from tests.contract.test_tree import (
    KINDS,
    grown,
    guarded,
    parent,
    stamp,
    wait_until_gone,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

TREE = (sys.executable, "-S", str(CHILDREN / "tree.py"))


class Place:
    """A cgroup that is delegated to forza, and the way into it."""

    def __init__(self, path: Path, uid: int) -> None:
        self.path = path
        self._uid = uid

    def enter(self) -> None:
        """Be in it, as the user that it is for; called between fork and exec."""
        (self.path / "cgroup.procs").write_text("0")
        if self._uid:
            become_user(self._uid)

    @property
    def options(self) -> dict[str, Any]:
        return {"preexec_fn": self.enter}

    def groups(self) -> list[Path]:
        """Return the cgroups that apps have there."""
        return sorted(self.path.glob("forza-*"))

    def wait_empty(self) -> None:
        """Wait until no app has one."""
        deadline = time.monotonic() + PATIENCE
        while self.groups():
            assert time.monotonic() < deadline, self.groups()
            time.sleep(0.01)


@pytest.fixture(params=["root", "user"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A cgroup that is delegated to root, or to an ordinary user."""
    version, mount, folders = cgroups("")
    if version != 2 or os.geteuid() != 0:
        pytest.skip("needs root and a cgroup v2")
    path = Path(f"{mount}{folders[0]}") / f"test-{uuid.uuid4().hex}"
    try:
        path.mkdir()
    except OSError:
        pytest.skip("no cgroup can be made here")
    uid = NOBODY if request.param == "user" else 0
    try:
        if not (path / "cgroup.kill").exists():
            pytest.skip("needs Linux 5.14")
        if uid:
            for name in (".", "cgroup.procs", "cgroup.subtree_control"):
                os.chown(path / name, uid, uid)
        else:
            os.setxattr(path, "trusted.delegate", b"1")
        yield Place(path, uid)
    finally:
        left = []
        for group in path.glob("*/"):
            with contextlib.suppress(OSError):
                (group / "cgroup.kill").write_text("1")
            left.append(group)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                for group in path.glob("*/"):
                    group.rmdir()
                path.rmdir()
                break
            time.sleep(0.01)


def group_of(pid: int) -> str:
    """Return the cgroup v2 of a process."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("0::"))
    return line[3:]


@guards
def test_a_cgroup_of_its_own(lean_forza: Forza, place: Place, native: str) -> None:
    """The app is in it from its first instruction; nothing of it is left."""
    ended = lean_forza.run(
        *("--memory-hard", "1G", "--", "cat", "/proc/self/cgroup"),
        env={"FORZA_NATIVE": native},
        **place.options,
    )
    assert (ended.status, ended.stderr) == (0, "")
    (line,) = [
        line
        for line in ended.text("logs/stdout").splitlines()
        if line.startswith("0::")
    ]
    assert Path(line).name.startswith("forza-")
    assert Path(line).parent.name == place.path.name
    assert place.groups() == []


@guards
def test_forza_and_guard_stay_outside(
    lean_forza: Forza, server: MetricsServer, place: Place, native: str
) -> None:
    """What is killed as a whole is the app, and not who reports its end."""
    program = lean_forza.start(
        *("-h", server.address, "--", "sleep", "1000"),
        env={"FORZA_NATIVE": native},
        **place.options,
    )
    (event,) = server.wait_for("health/process/spawn")
    (group,) = place.groups()
    pids = [int(word) for word in (group / "cgroup.procs").read_text().split()]
    assert pids == [event["meta"]["pid"]]
    for pid in (program.pid, parent(event["meta"]["pid"])):
        assert group_of(pid).endswith(place.path.name)
    program.terminate()
    assert program.wait(PATIENCE) == 143
    assert place.groups() == []


@guarded
@pytest.mark.parametrize("kind", ["bomb", "sessions", "stopped"])
@pytest.mark.parametrize("victim", ["monitor", "guard", "app"])
def test_killed_as_a_whole(
    lean_forza: Forza, server: MetricsServer, place: Place, kind: str, victim: str
) -> None:
    """Whoever is killed, the whole tree is, and the cgroup is gone with it."""
    program = lean_forza.start(
        *("-h", server.address, "--", *TREE, kind), stderr=None, **place.options
    )
    server.wait_for("health/process/heartbeat")
    monitor, tree = grown(lean_forza, server, kind)
    app: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    victims = {"monitor": monitor, "guard": parent(app), "app": app}
    os.kill(victims[victim], signal.SIGKILL)
    program.wait(PATIENCE)
    wait_until_gone(tree)
    place.wait_empty()


def test_out_of_reach_but_for_the_cgroup(
    lean_forza: Forza, server: MetricsServer, place: Place
) -> None:
    """Without a guard, and where forza is no subreaper, since it had a child before,
    an orphan in a session of its own is still found in the cgroup."""
    script = 'sleep 1000 & exec "$@"'
    words = sys.executable, "-m", "forza", "-h", server.address, "--", *TREE, "sessions"
    program = subprocess.Popen(
        ["sh", "-c", script, "sh", *words],
        env={**os.environ, "FORZA_TEST_RUN": lean_forza.mark, "FORZA_NATIVE": "no"},
        cwd=ROOT,
        **place.options,
    )
    server.wait_for("logs/stdout", containing="ready")
    (group,) = place.groups()
    pids = [int(word) for word in (group / "cgroup.procs").read_text().split()]
    assert len(pids) == KINDS["sessions"]
    tree = {stamp(pid) for pid in pids}
    program.terminate()
    program.wait(PATIENCE)
    server.wait_for("health/process/exit")
    assert place.groups() == []
    assert not {each for each in tree if stamp(each[0]) == each}
    (before,) = (pid for pid, words in lean_forza.descendants() if "sleep" in words)
    os.kill(before, signal.SIGKILL)


def test_where_there_can_be_none(lean_forza: Forza, place: Place) -> None:
    """If there can be no cgroup for the app, it runs where forza is."""
    if native_path("guard") is None:
        pytest.skip("needs the guard")
    (place.path / "cgroup.max.descendants").write_text("0")
    ended = lean_forza.run("--", "cat", "/proc/self/cgroup", **place.options)
    assert (ended.status, ended.stderr) == (0, "")
    assert place.path.name in ended.text("logs/stdout")
    assert "forza-" not in ended.text("logs/stdout")
