# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep releases in order: which there are, which is good, which may go."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

import solenoid
from solenoid._releases import _prune
from solenoid._target import Target
from solenoid._tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make(run_dir: Path, *versions: str, passed: str = "") -> list[solenoid.Release]:
    """Make releases as `start` does: announced, unpacked, some of them good."""
    made = []
    for version in versions:
        release = asyncio.run(solenoid.new_release(run_dir, version, "ab" * 32))
        (release.path / "package").mkdir(parents=True)
        if version in passed.split():
            asyncio.run(solenoid.mark_passed(run_dir, release.id))
        made.append(release)
    return made


def there(run_dir: Path) -> list[str]:
    """Return the versions that are there, newest first."""
    return [release.version for release in asyncio.run(solenoid.releases(run_dir))]


def go_to(run_dir: Path, release: solenoid.Release) -> None:
    """Make it the current one."""
    asyncio.run(solenoid.activate(run_dir, release.id))


def good(run_dir: Path) -> str | None:
    """Return the version to go back to."""
    found = asyncio.run(solenoid.previous_good(run_dir))
    return found.version if found else None


def test_list(tmp_path: Path) -> None:
    """The newest first, with what is known of each; ids sort as they were made."""
    assert there(tmp_path / "none") == []
    before = time.time()
    made = make(tmp_path, "1.10.0", "1.9.0", "1.9.0", passed="1.10.0")
    assert [r.id for r in made] == sorted({r.id for r in made})
    go_to(tmp_path, made[1])
    found = asyncio.run(solenoid.releases(tmp_path))
    assert [r.id for r in found] == [r.id for r in reversed(made)]
    assert [r.current for r in found] == [False, True, False]
    assert [r.passed is not None for r in found] == [False, False, True]
    assert all(before <= r.made <= time.time() for r in found)
    assert {r.sha256 for r in found} == {"ab" * 32}
    assert found[2].path == tmp_path / "releases" / made[0].id


def test_announced_is_not_there(tmp_path: Path) -> None:
    """Before it is unpacked there is no release, and no id is given twice."""
    first = asyncio.run(solenoid.new_release(tmp_path, "1.0.0"))
    assert there(tmp_path) == []
    second = asyncio.run(solenoid.new_release(tmp_path, "1.0.0"))
    assert first.id < second.id
    with pytest.raises(solenoid.ReleaseError, match="no release"):
        asyncio.run(solenoid.mark_passed(tmp_path, first.id))


def test_clock_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go on growing when the clock does not."""
    (first,) = make(tmp_path, "1")
    monkeypatch.setattr("solenoid._releases.time.time", lambda: 1e9)
    second, third = make(tmp_path, "2", "3")
    assert first.id < second.id < third.id


@pytest.mark.parametrize(
    ("version", "label"),
    [
        ("1.2.0-rc.1+5", "1.2.0-rc.1+5"),
        ("../x y\n", ".._x_y_"),
        ("", "ab" * 6),
        ("v" * 300, "v" * 64),
    ],
)
def test_ids(tmp_path: Path, version: str, label: str) -> None:
    """A version is part of the id as far as a folder's name can hold it."""
    (release,) = make(tmp_path, version)
    assert release.id.partition("-")[2] == label
    assert os.listdir(release.path.parent).count(release.id) == 1
    assert there(tmp_path) == [version]
    assert asyncio.run(solenoid.activate(tmp_path, release.id)) is None


def test_foreign(tmp_path: Path) -> None:
    """Releases without a record, or with a damaged one, are listed all the same."""
    (tmp_path / "releases" / "by-hand" / "package").mkdir(parents=True)
    (release,) = make(tmp_path, "1")
    release.path.with_name(f"{release.id}.json").write_text('{"made": ')
    (tmp_path / "releases" / "link").symlink_to(release.id)
    found = asyncio.run(solenoid.releases(tmp_path))
    assert [(r.id, r.version, r.passed) for r in found] == [
        ("by-hand", "", None),
        (release.id, "", None),
    ]
    asyncio.run(solenoid.mark_passed(tmp_path, "by-hand"))
    assert asyncio.run(solenoid.releases(tmp_path))[0].passed is not None


def test_find(tmp_path: Path) -> None:
    """By id, or the newest of a version; those that there are, if there is none."""
    first, second = make(tmp_path, "1.0.0", "1.0.0")
    found = asyncio.run(solenoid.find_release(tmp_path, first.id))
    assert found.path == first.path
    found = asyncio.run(solenoid.find_release(tmp_path, "1.0.0"))
    assert found.path == second.path
    with pytest.raises(
        solenoid.ReleaseError, match=f"no release 2 .*{second.id}, {first.id}"
    ) as caught:
        asyncio.run(solenoid.find_release(tmp_path, "2"))
    assert (caught.value.step, caught.value.blame) == ("releases", "user")


def test_previous_good(tmp_path: Path) -> None:
    """The last that passed before the current one, over those that never did."""
    assert good(tmp_path) is None
    made = make(tmp_path, "1", "2", "3", "4", "5", passed="1 2 4")
    go_to(tmp_path, made[4])
    assert good(tmp_path) == "4"
    go_to(tmp_path, made[3])
    assert good(tmp_path) == "2"
    go_to(tmp_path, made[1])
    assert good(tmp_path) == "1"  # and not back to what was just left
    go_to(tmp_path, made[0])
    assert good(tmp_path) is None


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
    assert status == 0


def test_prune_what_an_app_made_its_own(tmp_path: Path) -> None:
    """Folders that were made read-only, and links to elsewhere, hinder nobody."""
    made = make(tmp_path, "1", "2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "keep").touch()
    deep = made[0].path / "package" / "cache"
    deep.mkdir()
    (deep / "file").touch()
    (deep / "out").symlink_to(tmp_path / "mine")
    for folder in (deep, made[0].path / "package", made[0].path):
        folder.chmod(0o500)
    if os.geteuid():
        asyncio.run(solenoid.prune(tmp_path, 1))
    else:  # as one for whom the modes count
        as_nobody(tmp_path, lambda: _prune(tmp_path, 1))
    assert there(tmp_path) == ["2"]
    assert (tmp_path / "mine" / "keep").exists()


def test_prune_sweeps(tmp_path: Path) -> None:
    """What the killed have left goes; what is in the making stays."""
    orphan = asyncio.run(solenoid.new_release(tmp_path, "0"))
    make(tmp_path, "1")
    coming = asyncio.run(solenoid.new_release(tmp_path, "2"))
    folder = tmp_path / "releases"
    (folder / ".x.0000.part" / "package").mkdir(parents=True)
    (folder / ".x.json.0000.part").touch()
    (folder / ".y.gone" / "package").mkdir(parents=True)
    with Tree(coming.path) as living, Target(folder / "x") as file:
        living.folder("package")
        asyncio.run(solenoid.prune(tmp_path))
        left = {p.name for p in folder.iterdir()}
        assert not {n for n in left if "0000" in n or "gone" in n}
        assert len({n for n in left if n.endswith(".part")}) == 2
        assert f"{orphan.id}.json" not in left
        living.commit()
        file.commit()
    assert there(tmp_path) == ["2", "1"]
