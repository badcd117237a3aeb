# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know a run directory's releases: what there is, what is good, what may go."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid._errors import AbsentError, CleanError
from solenoid._record import forget, given_variables, read_record, records
from solenoid._rundir import RunDir
from solenoid._stop import keeper_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from solenoid._record import Record

KEEP = 5


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a run directory, in its folder `path`.

    `source` is where it is from. `made` and `passed` are seconds since 1970: when it
    was unpacked, and when it last passed its gate, None if it never has; `failed` says
    why it has not, if that was the last try.
    """

    id: str
    path: Path
    version: str
    sha256: str
    source: str
    made: float
    passed: float | None
    failed: str | None
    current: bool


async def releases(run_dir: str | os.PathLike[str]) -> list[Release]:
    """Return the releases that are there, the newest first.

    Raises AbsentError where no app has ever been.
    """
    return await asyncio.to_thread(_all, RunDir(run_dir))


async def find_release(run_dir: str | os.PathLike[str], name: str) -> Release:
    """Return the release of this id, else the newest of this version.

    Raises AbsentError, which names those that there are.
    """
    found = await releases(run_dir)
    for release in found:
        if release.id == name:
            return release
    for release in found:
        if release.version == name:
            return release
    known = ", ".join(release.id for release in found) or "none"
    raise AbsentError(f"no release {name} in {os.fspath(run_dir)}: {known}")


async def previous_good(run_dir: str | os.PathLike[str]) -> Release:
    """Return what to go back to: the newest that has passed before the current one.

    That is not the one that was just left by going back, though it is newer, nor the
    current one under another id: the same snapshot, deployed again with the same
    variables. Raises AbsentError if there is none.
    """
    found = await releases(run_dir)
    good = await asyncio.to_thread(_previous_good, RunDir(run_dir), found)
    if good is None:
        now = next((release.id for release in found if release.current), None)
        before = f"before {now} " if now else ""
        raise AbsentError(
            f"no other release {before}in {os.fspath(run_dir)} has passed its gate"
        )
    return good


async def prune(run_dir: str | os.PathLike[str], keep: int = KEEP) -> list[str]:
    """Remove all but the newest `keep` releases, and return the ids of the removed.

    The current one stays, and so do the last that has passed and `previous_good`.
    Raises AbsentError, LockError, CleanError.
    """
    return await asyncio.to_thread(_prune, RunDir(run_dir), keep)


def prune_locked(run_dir: RunDir, keep: int = KEEP) -> list[str]:
    """Do what `prune` does, for who holds the lock of the run directory."""
    found = _all(run_dir)
    living = {record.id for record in records(run_dir) if _lives(run_dir, record)}
    good = next((release for release in found if release.passed is not None), None)
    kept = {release.id for release in found[: max(keep, 0)]}
    kept |= {release.id for release in found if release.current}
    kept |= {
        release.id for release in (good, _previous_good(run_dir, found)) if release
    }
    kept |= living  # left over by one that was killed; the next start ends it
    gone = [release for release in found if release.id not in kept]
    try:
        for release in gone:
            # In this instant it is no release any more, but something to be swept.
            forget(run_dir, release.id)
            remove_tree(release.path)
    except OSError as error:
        place = error.filename or run_dir
        raise CleanError(f"cannot remove {place}: {error.strerror}") from error
    return [release.id for release in gone]


def remove_tree(folder: Path) -> None:
    """Remove a folder, also if an app has made it read-only. Raises OSError."""
    if os.geteuid():  # for whom the modes count
        folder.chmod(0o700)
        for at, folders, _ in os.walk(folder):
            for name in folders:
                path = os.path.join(at, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    import shutil  # half a megabyte, which bringing a release does without

    shutil.rmtree(folder)


def _all(run_dir: RunDir) -> list[Release]:
    run_dir.must_exist()
    now = run_dir.current()
    return [
        Release(
            record.id,
            run_dir.release(record.id),
            record.version,
            record.sha256,
            record.source,
            record.made,
            record.passed,
            record.failed,
            record.id == now,
        )
        for record in records(run_dir)
    ]


def _previous_good(run_dir: RunDir, found: Sequence[Release]) -> Release | None:
    now = next((release for release in found if release.current), None)
    older = found[found.index(now) + 1 :] if now else found
    for release in older:
        if release.passed is not None and not (now and _same(run_dir, now, release)):
            return release
    return None


def _same(run_dir: RunDir, one: Release, other: Release) -> bool:
    """Say whether to go from the one to the other would change nothing."""
    if one.sha256 != other.sha256:
        return False
    first, second = (
        given_variables(release.path, read_record(run_dir, release.id))
        for release in (one, other)
    )
    return first == second


def _lives(run_dir: RunDir, record: Record) -> bool:
    keeper = keeper_of(run_dir, record)
    if keeper is not None:
        keeper.close()
    return keeper is not None


def _prune(run_dir: RunDir, keep: int) -> list[str]:
    run_dir.must_exist()
    with run_dir.locked():
        return prune_locked(run_dir, keep)
