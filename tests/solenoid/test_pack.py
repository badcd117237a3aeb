# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Pack as npm does, the same each time, and unpack it again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import solenoid


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


def test_no_package(tmp_path: Path) -> None:
    """A folder that is no package is not packed, and nothing is left."""
    with pytest.raises(solenoid.PackError, match=r"no package\.json in it"):
        asyncio.run(solenoid.pack(tmp_path, tmp_path / "a.tgz"))
    (tmp_path / "package.json").write_text("{")
    with pytest.raises(solenoid.PackError, match="npm pack: "):
        asyncio.run(solenoid.pack(tmp_path, tmp_path / "a.tgz"))
    assert os.listdir(tmp_path) == ["package.json"]
