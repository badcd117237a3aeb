# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep releases in order: which there are, which is good, which may go."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import solenoid
from solenoid._record import Record, write_record
from solenoid._releases import prune_locked
from solenoid._rundir import RunDir
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def digest(version: str) -> str:
    """Return the digest of a version's snapshot."""
    return hashlib.sha256(version.encode()).hexdigest()


def make(run_dir: Path, *versions: str, passed: str = "") -> list[Record]:
    """Make releases as `start` does: unpacked, recorded, some of them good."""
    made = []
    place = RunDir(run_dir)
    place.make()
    for version in versions:
        name = f"{version}-{len(os.listdir(place.releases))}"
        (place.release(name) / "package").mkdir(parents=True)
        at = time.time()
        good = at if version in passed.split() else None
        sha256 = digest(version)
        record = Record(name, at, "file:x", sha256, version=version, passed=good)
        write_record(place, record)
        made.append(record)
    return made


def there(run_dir: Path) -> list[str]:
    """Return the versions that are there, newest first."""
    return [release.version for release in asyncio.run(solenoid.releases(run_dir))]


def go_to(run_dir: Path, record: Record) -> None:
    """Make it the current one."""
    asyncio.run(solenoid.activate(run_dir, record.id))


def good(run_dir: Path) -> str:
    """Return the version to go back to."""
    return asyncio.run(solenoid.previous_good(run_dir)).version


def test_list(tmp_path: Path) -> None:
    """The newest first, whatever the versions are, with what is known of each."""
    with pytest.raises(solenoid.AbsentError, match="no app in"):
        there(tmp_path / "none")
    made = make(tmp_path, "1.10.0", "1.9.0", "1.9.0", passed="1.10.0")
    go_to(tmp_path, made[1])
    found = asyncio.run(solenoid.releases(tmp_path))
    assert [r.id for r in found] == [r.id for r in reversed(made)]
    assert [r.current for r in found] == [False, True, False]
    assert [r.passed is not None for r in found] == [False, False, True]
    digests = [digest(version) for version in ("1.9.0", "1.9.0", "1.10.0")]
    assert [r.sha256 for r in found] == digests
    assert {r.source for r in found} == {"file:x"}
    assert found[2].path == tmp_path / "releases" / made[0].id


def test_find(tmp_path: Path) -> None:
    """By id, or the newest of a version; those that there are, if there is none."""
    first, second = make(tmp_path, "1.0.0", "1.0.0")
    found = asyncio.run(solenoid.find_release(tmp_path, first.id))
    assert found.id == first.id
    found = asyncio.run(solenoid.find_release(tmp_path, "1.0.0"))
    assert found.id == second.id
    with pytest.raises(
        solenoid.AbsentError, match=f"no release 2 .*{second.id}, {first.id}"
    ) as caught:
        asyncio.run(solenoid.find_release(tmp_path, "2"))
    assert (caught.value.step, caught.value.blame) == ("find", "user")


def test_previous_good(tmp_path: Path) -> None:
    """The last that passed before the current one, over those that never did."""
    made = make(tmp_path, "1", "2", "3", "4", "5", passed="1 2 4")
    assert good(tmp_path) == "4"  # while there is no current one
    go_to(tmp_path, made[4])
    assert good(tmp_path) == "4"
    go_to(tmp_path, made[3])
    assert good(tmp_path) == "2"
    go_to(tmp_path, made[1])
    assert good(tmp_path) == "1"  # and not back to what was just left
    go_to(tmp_path, made[0])
    with pytest.raises(
        solenoid.AbsentError, match=r"no other release before 1-0 .* passed"
    ):
        good(tmp_path)


def test_prune(tmp_path: Path) -> None:
    """The oldest go; never the current one, the last good one, nor the one before."""
    made = make(tmp_path, *"12345678", passed="1 2 3")
    assert asyncio.run(solenoid.prune(tmp_path, 6)) == [made[1].id, made[0].id]
    assert there(tmp_path) == list("876543")
    assert asyncio.run(solenoid.prune(tmp_path, 6)) == []
    go_to(tmp_path, made[3])
    asyncio.run(solenoid.prune(tmp_path, 0))
    assert there(tmp_path) == ["4", "3"]
    records = {p.name for p in (tmp_path / "releases").glob("*.json")}
    assert records == {f"{made[n].id}.json" for n in (2, 3)}


def as_nobody(folder: Path, action: Callable[[], object]) -> None:
    """Do something as an ordinary user, whom the folder belongs to."""
    subprocess.run(["chown", "-R", "65534", str(folder)], check=True)
    modes = {above: above.stat().st_mode for above in folder.parents[:2]}
    for above, mode in modes.items():
        above.chmod(mode | 0o011)
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setuid(65534)
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    for above, mode in modes.items():
        above.chmod(mode)
    subprocess.run(["chown", "-R", str(os.geteuid()), str(folder)], check=True)
    assert status == 0


def test_prune_what_an_app_made_its_own(tmp_path: Path) -> None:
    """Folders that were made read-only, and links to elsewhere, hinder nobody."""
    made = make(tmp_path, "1", "2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep").touch()
    place = RunDir(tmp_path)
    first = place.release(made[0].id)
    deep = first / "package" / "cache"
    deep.mkdir()
    (deep / "file").touch()
    (deep / "out").symlink_to(tmp_path / "mine")
    for folder in (deep, first / "package", first):
        folder.chmod(0o500)
    if os.geteuid():
        asyncio.run(solenoid.prune(tmp_path, 1))
    else:  # as one for whom the modes count
        as_nobody(tmp_path, lambda: prune_locked(place, 1))
    assert there(tmp_path) == ["2"]
    assert (tmp_path / "mine" / "keep").exists()


def test_prune_waits_for_nobody(tmp_path: Path) -> None:
    """While another solenoid is at work, nothing is removed."""
    make(tmp_path, "1", "2")
    with RunDir(tmp_path).locked(), pytest.raises(solenoid.LockError, match="at work"):
        asyncio.run(solenoid.prune(tmp_path, 0))
    assert there(tmp_path) == ["2", "1"]


def program(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `solenoid` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "solenoid", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command(tmp_path: Path) -> None:
    """`solenoid releases` says the same, to people and to programs."""
    ended = program("releases", "--run-dir", str(tmp_path / "none"))
    assert ended.returncode == 25
    assert "error: find: no app in" in ended.stderr
    made = make(tmp_path, "1.0.0", "1.1.0", passed="1.0.0")
    place = RunDir(tmp_path)
    write_record(place, replace(made[1], failed="it has\nnot started"))
    go_to(tmp_path, made[0])
    ended = program("releases", "--run-dir", str(tmp_path))
    newest, oldest = ended.stdout.splitlines()
    sha256 = digest("1.1.0")[:12]
    assert newest.startswith(f"  {made[1].id}  1.1.0  ")
    assert newest.endswith(f"  sha256:{sha256}  failed: it has not started")
    assert oldest.startswith(f"* {made[0].id}  1.0.0  ")
    assert "  passed 2" in oldest
    ended = program("releases", "--run-dir", str(tmp_path), "--json")
    found = json.loads(ended.stdout)["releases"]
    assert [release["current"] for release in found] == [False, True]
    assert found[0]["path"] == str(place.release(made[1].id))
    ended = program("releases", "--run-dir", str(tmp_path), "--prune", "0")
    assert ended.returncode == 0
    assert f"info: removed release {made[1].id}" in ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    ended = program("releases", "--run-dir", str(tmp_path), "--prune", "-1")
    assert ended.returncode == 2
