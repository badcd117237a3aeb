# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Pack as npm does, the same each time, and unpack it again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

import solenoid
from solenoid import _pack
from tests.conftest import PATIENCE, ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A package with what is packed, what is ignored, and modules."""
    path = tmp_path / "shop"
    (path / "node_modules/.bin").mkdir(parents=True)
    (path / "node_modules/dep").mkdir()
    about = {"name": "shop", "version": "1.2.0", "scripts": {"prepack": "touch ran"}}
    (path / "package.json").write_text(json.dumps(about))
    (path / "package-lock.json").write_text("{}")
    (path / "server.js").write_text("")
    (path / "secret.env").write_text("")
    (path / ".npmignore").write_text("*.env\n")
    (path / "tool").write_text("#!/bin/sh\n")
    (path / "tool").chmod(0o700)
    (path / "node_modules/dep/index.js").write_text("")
    (path / "node_modules/.bin/dep").symlink_to("../dep/index.js")
    return path


def names(path: Path) -> set[str]:
    """Return what is in an archive."""
    with tarfile.open(path) as tar:
        return set(tar.getnames())


def test_like_npm(folder: Path, tmp_path: Path) -> None:
    """What npm packs, and the lock file; no script has run."""
    packed = asyncio.run(solenoid.pack(folder, tmp_path / "a.tgz"))
    assert (packed.name, packed.version) == ("shop", "1.2.0")
    data = (tmp_path / "a.tgz").read_bytes()
    assert packed.sha256 == hashlib.sha256(data).hexdigest()
    assert packed.size == len(data)
    assert not (folder / "ran").exists()
    words = ["npm", "pack", "--ignore-scripts", "--pack-destination", str(tmp_path)]
    subprocess.run(words, cwd=folder, capture_output=True, check=True)
    theirs = names(tmp_path / "shop-1.2.0.tgz")
    assert names(tmp_path / "a.tgz") == theirs | {"package/package-lock.json"}
    assert "package/secret.env" not in theirs


def test_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    """Dates, umasks and hard links do not change the digest; contents do."""
    first = asyncio.run(solenoid.pack(folder, tmp_path / "a.tgz"))
    os.utime(folder / "server.js", (1, 1))
    (folder / "server.js").chmod(0o600)
    os.link(folder / "server.js", tmp_path / "link")
    second = asyncio.run(solenoid.pack(folder, tmp_path / "b.tgz"))
    assert first.sha256 == second.sha256
    (folder / "server.js").write_text("changed")
    third = asyncio.run(solenoid.pack(folder, tmp_path / "b.tgz"))
    assert third.sha256 != first.sha256


def test_modules(folder: Path, tmp_path: Path) -> None:
    """With its modules it unpacks to what it was, links and programs included."""
    asyncio.run(solenoid.pack(folder, tmp_path / "a.tgz", modules=True))
    asyncio.run(solenoid.unpack(tmp_path / "a.tgz", tmp_path / "into"))
    package = tmp_path / "into" / "package"
    assert os.readlink(package / "node_modules/.bin/dep") == "../dep/index.js"
    assert os.access(package / "tool", os.X_OK)
    assert not os.access(package / "server.js", os.X_OK)


def program(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `solenoid` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "solenoid", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands(folder: Path, tmp_path: Path) -> None:
    """`pack` and `push` print the digest, and the drone's own steps find it again."""
    ended = program("pack", "shop", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    digest, name = ended.stdout.split()
    path = tmp_path / "shop-1.2.0.tgz"
    assert name == path.name
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / f"{name}.sha256").read_text() == ended.stdout
    fetched = asyncio.run(solenoid.fetch(str(path), tmp_path / "got"))
    assert fetched.digest_from == "beside"
    ended = program("pack", "shop", "-o", "b.tgz", "--modules", "--json", cwd=tmp_path)
    packed = json.loads(ended.stdout)
    assert (packed["path"], packed["version"]) == ("b.tgz", "1.2.0")
    assert packed["sha256"] != digest
    ended = program("push", name, f"file:{tmp_path}/store/a.tgz", cwd=tmp_path)
    assert ended.stdout == f"{digest}  file:{tmp_path}/store/a.tgz\n"
    fetched = asyncio.run(solenoid.fetch(f"{tmp_path}/store/a.tgz", tmp_path / "got"))
    assert (fetched.sha256, fetched.digest_from) == (digest, "beside")


def test_push_to_the_configured_storage(folder: Path, tmp_path: Path) -> None:
    """Without a URL it goes where `download` looks; with half of a name, nowhere."""
    asyncio.run(solenoid.pack(folder, tmp_path))
    words = ("push", "shop-1.2.0.tgz", "-u", "alice", "-a", "shop")
    ended = program(*words, "-v", "1.2.0", cwd=tmp_path)
    assert (ended.returncode, "a storage in the configuration" in ended.stderr) == (
        2,
        True,
    )
    (tmp_path / ".solenoidconf").write_text(
        json.dumps({"storage": {"url": f"file:{tmp_path}/store"}, "colour": 1})
    )
    ended = program(*words, "-v", "1.2.0", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "warn: ~/.solenoidconf: unknown and ignored: colour\n" in ended.stderr
    assert json.loads(ended.stdout)["url"].endswith("/store/alice-shop-1.2.0.tgz")
    assert (tmp_path / "store" / "alice-shop-1.2.0.tgz").is_file()
    assert program(*words, cwd=tmp_path).returncode == 2
    ended = program("push", "none.tgz", f"{tmp_path}/store/x", cwd=tmp_path)
    assert (ended.returncode, "No such file" in ended.stderr) == (27, True)


def test_progress(folder: Path, tmp_path: Path) -> None:
    """Bytes read so far and in all, up to all of them; into a folder by npm's name."""
    (folder / "package.json").write_text('{"name": "@me/shop", "version": "1.0.0"}')
    seen: list[tuple[int, int | None]] = []
    packed = asyncio.run(
        solenoid.pack(folder, tmp_path, progress=lambda *at: seen.append(at))
    )
    assert packed.path == tmp_path / "me-shop-1.0.0.tgz"
    assert packed.path.is_file()
    assert [at for at, _ in seen] == sorted(at for at, _ in seen)
    assert seen[-1][0] == seen[-1][1]


def test_no_package(tmp_path: Path) -> None:
    """A folder that is no package is not packed, and nothing is left."""
    with pytest.raises(solenoid.PackError, match=r"no package\.json in it"):
        asyncio.run(solenoid.pack(tmp_path, tmp_path / "a.tgz"))
    for text, why in (
        ('{"name": "shop",\n "version": 1.0.0}', "line 2, column 16: Expecting ','"),
        ('{"name": "shop"}', "has no version"),
        ("[]", "is not a JSON object"),
    ):
        (tmp_path / "package.json").write_text(text)
        said = rf"package\.json.*{why}"
        with pytest.raises(solenoid.PackError, match=said) as caught:
            asyncio.run(solenoid.pack(tmp_path, tmp_path / "a.tgz"))
        assert caught.value.blame == "user"
    assert os.listdir(tmp_path) == ["package.json"]


HANGS = """#!/bin/sh
echo $$ > started
sleep 1000 & wait
"""


@pytest.fixture
def hanging(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have an npm that never ends, nor do its children; return its pid file."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(HANGS)
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    return folder / "started"


def wait_for(path: Path) -> None:
    """Wait until a file has something in it."""
    while not (path.exists() and path.read_text()):
        time.sleep(0.01)


def in_group(pid: int) -> list[int]:
    """Return who is in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(words[2]) == pid and words[0] != "Z":
                    found.append(int(entry.name))
    return found


def test_npm_that_hangs(
    folder: Path, tmp_path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up with all that it has started, and that is said."""
    monkeypatch.setattr(_pack, "_PATIENCE", 1.0)
    with pytest.raises(solenoid.PackError, match="npm pack did not end in 1 s"):
        asyncio.run(solenoid.pack(folder, tmp_path / "a.tgz"))
    assert not in_group(int(hanging.read_text()))
    assert not (tmp_path / "a.tgz").exists()


def test_cancelled_while_npm_hangs(folder: Path, tmp_path: Path, hanging: Path) -> None:
    """Whoever has had enough need not wait for it."""

    async def main() -> None:
        packing = asyncio.create_task(solenoid.pack(folder, tmp_path / "a.tgz"))
        await asyncio.to_thread(wait_for, hanging)
        packing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await packing

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert not in_group(int(hanging.read_text()))


def test_no_npm(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without npm it is one line, which says what was looked for, and where."""
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = program("pack", "shop", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (26, "")
    (line,) = ended.stderr.splitlines()
    assert "no npm in PATH" in line


def test_in_its_own_folder(folder: Path, tmp_path: Path) -> None:
    """Twice: what was made there the first time is not in what is made then."""
    words = ("pack", "shop", "-o", "shop")
    first, second = (program(*words, cwd=tmp_path) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert not [name for name in names(folder / "shop-1.2.0.tgz") if "tgz" in name]
