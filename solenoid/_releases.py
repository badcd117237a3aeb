# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know a run directory's releases: which there are, which passed, which may go."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import ReleaseError
from solenoid._release import current
from solenoid._target import Target, make_folders, sweep, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_FOLDER, _GONE = "releases", ".gone"
# Ids sort as they were made, whatever the versions are called.
_TIME = "%Y%m%dT%H%M%SZ"
_ID = re.compile(r"\d{8}T\d{6}Z-[\w.+-]+", re.ASCII)
_ODD = re.compile(r"[^\w.+-]", re.ASCII)
_LONGEST_VERSION = 64


@dataclass(frozen=True, slots=True)
class Release:
    """One release of a run directory.

    `made` and `passed` are seconds since the epoch: when it was announced, and when it
    last passed its gate, None if it never has. `path` is its folder.
    """

    id: str
    path: Path
    version: str = ""
    sha256: str = ""
    made: float = 0.0
    passed: float | None = None
    current: bool = False


async def new_release(
    run_dir: str | os.PathLike[str], version: str = "", sha256: str = ""
) -> Release:
    """Announce a release: choose its id, and note what it is.

    It is there when something has been unpacked into its `path`. Ids sort in the order
    of these calls. Raises ReleaseError.
    """
    return await asyncio.to_thread(_new, Path(run_dir), version, sha256)


async def releases(run_dir: str | os.PathLike[str]) -> list[Release]:
    """Return the releases that are there, the newest first. Raises ReleaseError."""
    return await asyncio.to_thread(_all, Path(run_dir))


async def find_release(run_dir: str | os.PathLike[str], name: str) -> Release:
    """Return the release of this id, else the newest of this version.

    Raises ReleaseError, which names those that there are.
    """
    found = await releases(run_dir)
    for release in found:
        if release.id == name:
            return release
    for release in found:
        if release.version == name:
            return release
    known = ", ".join(release.id for release in found) or "none"
    raise ReleaseError(
        f"no release {name} in {os.fspath(run_dir)}: {known}", blame="user"
    )


async def mark_passed(run_dir: str | os.PathLike[str], release: str) -> None:
    """Note that a release has passed its gate, now. Raises ReleaseError."""
    await asyncio.to_thread(_mark, Path(run_dir), release)


async def previous_good(run_dir: str | os.PathLike[str]) -> Release | None:
    """Return what to go back to: the newest that has passed before the current one.

    That is not the one that was just left by going back, though it is newer.
    """
    return _previous_good(await releases(run_dir))


async def prune(run_dir: str | os.PathLike[str], keep: int = 5) -> list[str]:
    """Remove all but the newest `keep` releases, and return the ids of the removed.

    The current one stays, and so do the last that has passed and `previous_good`.
    What a killed process has left half made, or half removed, goes too. Raises
    ReleaseError.
    """
    return await asyncio.to_thread(_prune, Path(run_dir), keep)


def _new(run_dir: Path, version: str, sha256: str) -> Release:
    folder = run_dir / _FOLDER
    now = time.time()
    label = _ODD.sub("_", version)[:_LONGEST_VERSION] or sha256[:12] or "snapshot"
    try:
        make_folders(folder)
        newest = max(_stamps(os.listdir(folder)), default="")
        # A clock that was set back, or a second in the same second, does not
        # change the order.
        at = now
        while (stamp := time.strftime(_TIME, time.gmtime(at))) <= newest:
            at = max(at + 1, _seconds(newest))
        id_ = f"{stamp}-{label}"
        release = Release(id_, folder / id_, version, sha256, now)
        _write(release)
    except OSError as error:
        raise ReleaseError(f"cannot write to {folder}: {error.strerror}") from error
    return release


def _stamps(names: Iterable[str]) -> list[str]:
    return [name.partition("-")[0] for name in names if _ID.fullmatch(name)]


def _seconds(stamp: str) -> float:
    import calendar

    return float(calendar.timegm(time.strptime(stamp, _TIME)))


def _record(release: Path) -> Path:
    # Beside the release, which is the app's own to write to.
    return release.with_name(f"{release.name}.json")


def _write(release: Release) -> None:
    about = {
        "version": release.version,
        "sha256": release.sha256,
        "made": release.made,
        "passed": release.passed,
    }
    with Target(_record(release.path)) as target:
        target.write([json.dumps(about).encode()], 0)
        os.fchmod(target.descriptor, 0o644)
        target.commit()


def _read(path: Path, now: str | None) -> Release:
    """Return what is known of a release; one that others have made has no record."""
    found: object = None
    with suppress(OSError, ValueError):
        found = json.loads(_record(path).read_bytes())
    about = found if isinstance(found, dict) else {}
    passed = about.get("passed")
    return Release(
        path.name,
        path,
        str(about.get("version", "")),
        str(about.get("sha256", "")),
        float(about.get("made") or path.stat().st_mtime),
        None if passed is None else float(passed),
        path.name == now,
    )


def _all(run_dir: Path) -> list[Release]:
    folder = run_dir / _FOLDER
    now = current(run_dir)
    try:
        with os.scandir(folder) as entries:
            names = [
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and entry.is_dir(follow_symlinks=False)
            ]
        return [_read(folder / name, now) for name in sorted(names, reverse=True)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReleaseError(f"cannot read {folder}: {error.strerror}") from error


def _mark(run_dir: Path, name: str) -> None:
    for release in _all(run_dir):
        if release.id == name:
            try:
                _write(replace(release, passed=time.time()))
            except OSError as error:
                raise ReleaseError(
                    f"cannot write to {run_dir / _FOLDER}: {error.strerror}"
                ) from error
            return
    raise ReleaseError(f"no release {name} in {run_dir}", blame="user")


def _previous_good(found: Sequence[Release]) -> Release | None:
    now = next((release.id for release in found if release.current), None)
    for release in found:
        if release.passed is not None and (now is None or release.id < now):
            return release
    return None


def _prune(run_dir: Path, keep: int) -> list[str]:
    folder = run_dir / _FOLDER
    found = _all(run_dir)
    good = next((release for release in found if release.passed is not None), None)
    kept = {release.id for release in found[: max(keep, 0)] if not release.current}
    kept |= {release.id for release in found if release.current}
    kept |= {release.id for release in (good, _previous_good(found)) if release}
    gone = [release for release in found if release.id not in kept]
    try:
        for release in gone:
            # In one instant it is no release any more; then it may take its time.
            os.rename(release.path, folder / f".{release.id}{_GONE}")
            _record(release.path).unlink(missing_ok=True)
        if gone:
            sync_folder(folder)
        _sweep(folder, found)
    except OSError as error:
        why = f"cannot remove {error.filename or folder}: {error.strerror}"
        raise ReleaseError(why) from error
    return [release.id for release in gone]


def _sweep(folder: Path, found: Sequence[Release]) -> None:
    """Remove what a killed process has left, and leave alone what is in the making."""
    for left in folder.glob(f".*{_GONE}"):
        _remove(left)
    sweep(folder, ".*.part")
    there = {release.id for release in found}
    for record in folder.glob("*.json"):
        # A newer one may be of a release that is just being unpacked.
        if record.stem not in there and record.stem < max(there, default=""):
            record.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    if os.geteuid():  # an app may have made folders that even their owner can't empty
        folder.chmod(0o700)
        for at, folders, _ in os.walk(folder):
            for name in folders:
                path = os.path.join(at, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder)
