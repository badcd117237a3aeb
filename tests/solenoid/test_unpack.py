# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Unpack good archives as tar does, and refuse bad ones with the entry's name."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import solenoid
from solenoid._tree import Tree
from tests.conftest import PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = {
    "link": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "dir": tarfile.DIRTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "odd": b"Z",
    "sparse": tarfile.GNUTYPE_SPARSE,
}


def entry(
    name: str, data: bytes = b"x", **attributes: Any
) -> tuple[tarfile.TarInfo, bytes]:
    """Describe a file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def other(name: str, kind: str, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """Describe something else."""
    return entry(name, b"", type=KINDS[kind], linkname=target)


def archive(
    path: Path,
    *entries: tuple[tarfile.TarInfo, bytes],
    form: int = tarfile.PAX_FORMAT,
) -> Path:
    """Write an archive of any kind of entries."""
    with tarfile.open(path, "w:gz", format=form) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


def unpack(path: Path, into: Path, **options: Any) -> solenoid.Unpacked:
    """Unpack, now."""
    return asyncio.run(solenoid.unpack(path, into, **options))


@pytest.fixture(params=["zlib", "isal"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the two that decompress."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)


FORMS = {
    "ustar": tarfile.USTAR_FORMAT,
    "gnu": tarfile.GNU_FORMAT,
    "pax": tarfile.PAX_FORMAT,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.usefixtures("library")
def test_like_tar(tmp_path: Path, form: str) -> None:
    """Names, contents, links and the bit that makes programs are as tar has them."""
    middle = "d" * 90 if form == "ustar" else "é" * 120
    large = random.Random(1).randbytes(3_000_000)
    path = archive(
        tmp_path / "a.tgz",
        entry("package/package.json", b"{}"),
        entry(f"package/{middle}/deep/" + "f" * 60, b"deep"),
        entry("package/large", large),
        entry("package/bin/tool", b"#!/bin/sh", mode=0o755),
        entry("package/odd mode", b"", mode=0o400),
        other("package/empty/", "dir"),
        other("package/node_modules/.bin/tool", "link", "../../bin/tool"),
        other("package/dangling", "link", "nowhere/at/all"),
        other("package/again", "hard", "package/large"),
        entry("./package//./twice", b"1"),
        entry("package/twice", b"22"),
        form=FORMS[form],
    )
    unpacked = unpack(path, tmp_path / "ours")
    (tmp_path / "theirs").mkdir()
    subprocess.run(["tar", "-xzf", path, "-C", tmp_path / "theirs"], check=True)
    assert listing(tmp_path / "ours") == listing(tmp_path / "theirs")
    assert unpacked.entries == 11
    assert unpacked.path == tmp_path / "ours"
    ours = tmp_path / "ours" / "package"
    assert os.path.samefile(ours / "large", ours / "again")
    # The owner reads and writes all of it, the others do not write.
    assert stat.S_IMODE((ours / "odd mode").stat().st_mode) & 0o644 == 0o644
    assert not stat.S_IMODE((ours / "bin/tool").stat().st_mode) & 0o022


def listing(root: Path) -> dict[str, object]:
    """Describe what is in a folder."""
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return found


def test_any_top(tmp_path: Path) -> None:
    """The app is in `package`, whatever its folder is called in the archive."""
    path = archive(tmp_path / "a.tgz", entry("shop-1.2.0/package.json"))
    unpack(path, tmp_path / "into")
    assert listing(tmp_path / "into") == {
        "package": "folder",
        "package/package.json": (b"x", False),
    }
    path = archive(tmp_path / "b.tgz", entry("a/x"), entry("b/x"))
    with pytest.raises(solenoid.UnpackError, match="no folder 'package' in it"):
        unpack(path, tmp_path / "b")


LONG = "n" * 256
BAD: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str, str]] = {
    "up": (
        [entry("package/../../etc/passwd")],
        "package/../../etc/passwd",
        "leads out",
    ),
    "just up": ([entry("..")], "..", "leads out"),
    "absolute": ([entry("/etc/passwd")], "/etc/passwd", "absolute"),
    "link out": ([other("package/l", "link", "../../x")], "package/l", "leads out"),
    "absolute link": ([other("package/l", "link", "/etc")], "package/l", "leads out"),
    "link in steps": (
        [other("d", "link", "."), other("e", "link", "d/d/d/../../..")],
        "e",
        "leads out",
    ),
    "links in reverse": (
        [other("e", "link", "d/.."), other("d", "link", "a/.."), entry("a/x")],
        "e",
        "leads out",
    ),
    "through a link": (
        [other("package/l", "link", "."), entry("package/l/x")],
        "package/l/x",
        "which is a link",
    ),
    "folder through a link": (
        [other("package/l", "link", ".."), other("package/l/x/", "dir")],
        "package/l/x/",
        "which is a link",
    ),
    "through a file": ([entry("a/b"), entry("a/b/c")], "a/b/c", "which is a file"),
    "file on a folder": ([entry("a/b/c"), entry("a/b")], "a/b", "a folder"),
    "hard link out": ([other("a/h", "hard", "../x")], "a/h", "no file|leads out"),
    "hard link to a link": (
        [other("a/l", "link", "x"), other("a/h", "hard", "a/l")],
        "a/h",
        "no file in it",
    ),
    "FIFO": ([other("a/f", "fifo")], "a/f", "a FIFO"),
    "device": ([other("a/null", "char")], "a/null", "a character device"),
    "disk": ([other("a/sda", "block")], "a/sda", "a block device"),
    "sparse": ([other("a/s", "sparse")], "a/s", "a sparse file"),
    "unknown": ([other("a/?", "odd")], "a/?", "type 'Z'"),
    "setuid": ([entry("a/su", mode=0o4755)], "a/su", "setuid"),
    "setgid": ([entry("a/sg", mode=0o2755)], "a/sg", "setuid or setgid"),
    "long name": ([entry(f"a/{LONG}")], f"a/{LONG}", "more than 255 bytes"),
    "long path": ([entry("a/" * 600 + "x")], "a/" * 600 + "x", "more than 1024 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(tmp_path: Path, case: str) -> None:
    """Each way out, and what no app needs, is refused by name; nothing is left."""
    entries, name, why = BAD[case]
    outside = tmp_path / "x"
    path = archive(tmp_path / "a.tgz", entry("package/good"), *entries)
    with pytest.raises(solenoid.UnpackError, match=why) as caught:
        unpack(path, tmp_path / "into")
    assert name.rstrip("/") in (caught.value.entry or "").rstrip("/")
    assert (caught.value.step, caught.value.blame) == ("unpack", "user")
    assert len(str(caught.value)) < 400
    assert str(caught.value).startswith("cannot unpack a.tgz: ")
    assert not outside.exists()
    assert [left.name for left in tmp_path.iterdir()] == ["a.tgz"]


def test_links_inside(tmp_path: Path) -> None:
    """Links that stay within are fine, in circles or in steps."""
    path = archive(
        tmp_path / "a.tgz",
        entry("package/a/b/x"),
        other("package/up", "link", "a/b/../.."),
        other("package/circle", "link", "circle"),
        other("package/steps", "link", "up/a/b/../b/x"),
    )
    unpack(path, tmp_path / "into")
    assert (tmp_path / "into/package/steps").read_bytes() == b"x"


def test_many_entries(tmp_path: Path) -> None:
    """A million entries are refused at the first that is too many."""
    entries = [other(f"package/{n}", "dir") for n in range(101)]
    path = archive(tmp_path / "a.tgz", *entries)
    limits = solenoid.Limits(entries=100)
    with pytest.raises(solenoid.UnpackError, match="more than 100 entries") as caught:
        unpack(path, tmp_path / "into", limits=limits)
    assert caught.value.entry == "package/100/"
    unpack(path, tmp_path / "into", limits=solenoid.Limits(entries=101))


@pytest.mark.usefixtures("library")
def test_bomb(tmp_path: Path) -> None:
    """A bomb of 1:1000 is stopped by its ratio, or by its bytes."""
    path = archive(tmp_path / "a.tgz", entry("package/zeros", bytes(100_000_000)))
    with pytest.raises(solenoid.UnpackError, match="a bomb: more than 1:200") as caught:
        unpack(path, tmp_path / "into")
    assert caught.value.entry == "package/zeros"
    limits = solenoid.Limits(bytes=50_000_000, ratio=9999)
    with pytest.raises(solenoid.UnpackError, match="larger than 50000000 bytes"):
        unpack(path, tmp_path / "into", limits=limits)
    many = (entry(f"package/{n}", bytes(1_000_000)) for n in range(60))
    archive(path, *many)
    with pytest.raises(solenoid.UnpackError, match="more than 50000000 bytes"):
        unpack(path, tmp_path / "into", limits=limits)
    archive(path, entry("package/zeros", bytes(100_000_000)))
    unpacked = unpack(path, tmp_path / "into", limits=solenoid.Limits(ratio=9999))
    assert unpacked.bytes == 100_000_000


def test_a_size_that_lies(tmp_path: Path) -> None:
    """An entry that claims more than the archive may hold is refused for the claim."""
    info, _ = entry("package/huge")
    info.size = 1 << 40
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(solenoid.UnpackError, match="larger than") as caught:
        unpack(tmp_path / "a.tgz", tmp_path / "into")
    assert caught.value.entry == "package/huge"


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "no gzip": lambda data: b"PK" + data,
    "no tar": lambda data: gzip.compress(b"hello" * 999),
    "cut": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-3],
    "checksum": lambda data: data[:-8] + b"\0\0\0\0" + data[-4:],
    "tar cut": lambda data: gzip.compress(gzip.decompress(data)[:1500]),
    "no end": lambda data: gzip.compress(gzip.decompress(data)[:2048]),
    "garbage behind": lambda data: data + b"garbage",
    "number": lambda data: gzip.compress(
        gzip.decompress(data)[:124] + b"nonsense" + gzip.decompress(data)[132:]
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.usefixtures("library")
def test_damaged(tmp_path: Path, damage: str) -> None:
    """What is no archive, or not all of one, is refused; nothing is left."""
    noise = random.Random(2).randbytes(1000)
    path = archive(tmp_path / "a.tgz", entry("package/x", noise), entry("package/y"))
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(solenoid.UnpackError, match=r"cannot unpack a\.tgz: "):
        unpack(path, tmp_path / "into")
    assert [left.name for left in tmp_path.iterdir()] == ["a.tgz"]


@pytest.mark.usefixtures("library")
def test_members_and_padding(tmp_path: Path) -> None:
    """Several gzip members, and zeros behind them, are one archive."""
    path = archive(tmp_path / "a.tgz", entry("package/x", b"content" * 999))
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(
        gzip.compress(data[:3000]) + gzip.compress(data[3000:]) + bytes(70_000)
    )
    unpack(path, tmp_path / "into")
    assert (tmp_path / "into/package/x").read_bytes() == b"content" * 999


@given(st.data())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_damage(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes are in an archive: it is unpacked or refused, never worse."""
    good = gzip.decompress(
        archive(
            tmp_path / "a.tgz",
            entry("package/" + "n" * 200, b"x" * 600),
            other("package/l", "link", "../x"),
        ).read_bytes()
    )
    raw = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 4000))
        raw[at : at + 1] = data.draw(st.binary(min_size=1, max_size=3))
    (tmp_path / "a.tgz").write_bytes(gzip.compress(bytes(raw)))
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    into = home / os.urandom(8).hex()
    try:
        unpack(tmp_path / "a.tgz", into)
    except solenoid.UnpackError:
        assert not into.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"a.tgz", "home"}


def test_exists(tmp_path: Path) -> None:
    """What is there is not touched."""
    path = archive(tmp_path / "a.tgz", entry("package/x"))
    (tmp_path / "into").mkdir()
    with pytest.raises(solenoid.UnpackError, match="into exists already") as caught:
        unpack(path, tmp_path / "into")
    assert caught.value.blame == "system"


def test_not_there(tmp_path: Path) -> None:
    """A file or folder that is missing is said by the system's words."""
    with pytest.raises(solenoid.UnpackError, match=r"none.tgz: .*No such file"):
        unpack(tmp_path / "none.tgz", tmp_path / "into")
    assert list(tmp_path.iterdir()) == []


def test_makes_the_folders_above(tmp_path: Path) -> None:
    """The folder's own parents need not be there."""
    path = archive(tmp_path / "a.tgz", entry("package/x"))
    unpack(path, tmp_path / "run" / "releases" / "1")
    assert (tmp_path / "run" / "releases" / "1" / "package" / "x").is_file()


def test_errors_name_the_place_and_not_its_makeshift(tmp_path: Path) -> None:
    """Where it cannot write, it says so of the folder that was asked for."""
    path = archive(tmp_path / "a.tgz", entry("package/x"))
    (tmp_path / "file").touch()
    for into in (tmp_path / "file" / "into", tmp_path / ("x" * 250)):
        with pytest.raises(solenoid.UnpackError) as caught:
            unpack(path, into)
        assert f"cannot unpack a.tgz: {into}: " in str(caught.value)
        assert ".part" not in str(caught.value)
        assert caught.value.blame == "system"


def test_progress(tmp_path: Path) -> None:
    """The progress is told in compressed bytes and ends with all of them."""
    entries = [entry(f"package/{n}", random.randbytes(2000)) for n in range(600)]
    path = archive(tmp_path / "a.tgz", *entries)
    seen: list[tuple[int, int]] = []
    unpack(path, tmp_path / "into", progress=lambda *at: seen.append(at))
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == (path.stat().st_size,) * 2


def test_cancelled(tmp_path: Path) -> None:
    """Cancelled in the middle it leaves nothing, and no thread that goes on."""
    entries = [entry(f"package/{n}", bytes(2000)) for n in range(3000)]
    path = archive(tmp_path / "a.tgz", *entries)

    async def begin() -> None:
        loop = asyncio.get_running_loop()
        begun = asyncio.Event()
        go_on = threading.Event()

        def progress(done: int, of: int) -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait(PATIENCE)

        task = asyncio.create_task(
            solenoid.unpack(path, tmp_path / "into", progress=progress)
        )
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(begin())
    assert [left.name for left in tmp_path.iterdir()] == ["a.tgz"]


KILLED = """
import asyncio, os, sys, solenoid
run_dir, archive, release = sys.argv[1:]
async def main():
    print("go", flush=True)
    into = f"{run_dir}/releases/{release}"
    await solenoid.unpack(archive, into)
    await solenoid.activate(run_dir, release)
    print("done", flush=True)
asyncio.run(main())
"""


def test_killed_at_any_time(tmp_path: Path) -> None:
    """Killed whenever: the current release is the old or the new, whole; never half."""
    names = [f"package/d{n % 40}/{n}" for n in range(800)]
    path = archive(tmp_path / "a.tgz", *(entry(n, n.encode() * 50) for n in names))
    releases = tmp_path / "run" / "releases"
    releases.mkdir(parents=True)
    unpack(path, releases / "0")
    whole = listing(releases / "0")
    asyncio.run(solenoid.activate(tmp_path / "run", "0"))
    chance = random.Random(3)
    old, span, reached = "0", 0.25, set()
    for turn in range(1, 25):
        new = str(turn)
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / "run", path, new],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "go\n"
            # The moment is random on purpose; the longer it lives, the later next time.
            threading.Event().wait(chance.uniform(0, span))
            child.kill()
            done = child.stdout.read() == "done\n"
        span *= 0.8 if done else 1.3
        found = solenoid.current(tmp_path / "run")
        assert found in (old, new)
        assert not done or found == new
        assert listing(tmp_path / "run" / "snapshot") == whole
        if (releases / new).exists():
            assert listing(releases / new) == whole
        reached.add((found == new, (releases / new).exists()))
        old = found
    assert len(reached) > 1, "it was always killed at the same stage"


def test_leftovers_are_swept(tmp_path: Path) -> None:
    """What a killed process left is gone with the next; a living one's stays."""
    (tmp_path / ".into.dead.part" / "package").mkdir(parents=True)
    path = archive(tmp_path / "a.tgz", entry("package/x"))
    with Tree(tmp_path / "into") as living:
        assert living.path == tmp_path / "into"
        unpack(path, tmp_path / "into")
        left = {p.name for p in tmp_path.iterdir()}
        assert ".into.dead.part" not in left
        assert len(left) == 3
    assert {p.name for p in tmp_path.iterdir()} == {"a.tgz", "into"}


def test_activate(tmp_path: Path) -> None:
    """The link leads to the release by a relative path, and says what it was."""
    for name in ("1", "2"):
        (tmp_path / "releases" / name / "package").mkdir(parents=True)
    assert solenoid.current(tmp_path) is None
    assert asyncio.run(solenoid.activate(tmp_path, "1")) is None
    assert asyncio.run(solenoid.activate(tmp_path, "2")) == "1"
    assert os.readlink(tmp_path / "snapshot") == "releases/2"
    assert solenoid.current(tmp_path) == "2"
    for name, why in (("3", "no release 3"), ("../x", "no name"), ("..", "no name")):
        with pytest.raises(solenoid.ActivateError, match=why):
            asyncio.run(solenoid.activate(tmp_path, name))
    assert solenoid.current(tmp_path) == "2"


def test_activate_over_a_folder(tmp_path: Path) -> None:
    """A folder of the original's layout is not taken away; no link is left."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "snapshot" / "package").mkdir(parents=True)
    with pytest.raises(solenoid.ActivateError, match=r"cannot switch .*snapshot"):
        asyncio.run(solenoid.activate(tmp_path, "1"))
    assert {p.name for p in tmp_path.iterdir()} == {"releases", "snapshot"}


def test_what_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk does not take is an error, and leaves nothing; no `sync` is none."""
    path = tmp_path / "a.tgz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("package/a"), io.BytesIO())
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    unpack(path, tmp_path / "first")
    assert (tmp_path / "first" / "package" / "a").exists()
    (programs / "sync").write_text("#!/bin/sh\necho Input/output error >&2; exit 1\n")
    (programs / "sync").chmod(0o755)
    with pytest.raises(solenoid.UnpackError, match="Input/output error") as caught:
        unpack(path, tmp_path / "second")
    assert caught.value.blame == "system"
    assert sorted(os.listdir(tmp_path)) == ["a.tgz", "bin", "first"]
