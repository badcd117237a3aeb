# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Switch a run directory from one release to another, in one instant."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from solenoid._errors import ActivateError
from solenoid._target import sync_folder

_LINK, _FOLDER = "snapshot", "releases"


async def activate(run_dir: str | os.PathLike[str], release: str) -> str | None:
    """Make RUN_DIR/snapshot lead to RUN_DIR/releases/RELEASE; return what it was.

    At any instant, power cuts included, the link leads to the one or to the other.
    Raises ActivateError if there is no such release.
    """
    return await asyncio.to_thread(move_link, Path(run_dir), release)


def current(run_dir: str | os.PathLike[str]) -> str | None:
    """Return the release that RUN_DIR/snapshot leads to, if it does."""
    try:
        return Path(os.readlink(Path(run_dir) / _LINK)).name
    except OSError:
        return None


def move_link(run_dir: Path, release: str) -> str | None:
    """Do what `activate` does, for who has no event loop."""
    if "/" in release or release in ("", ".", ".."):
        raise ActivateError(f"{release!r} is no name of a release", blame="user")
    if not (run_dir / _FOLDER / release).is_dir():
        raise ActivateError(f"no release {release} in {run_dir}", blame="user")
    before = current(run_dir)
    # A killed process may have left one; it leads nowhere that matters.
    for left in run_dir.glob(f".{_LINK}.*.part"):
        with suppress(OSError):
            left.unlink()
    link = run_dir / f".{_LINK}.{os.urandom(4).hex()}.part"
    try:
        os.symlink(f"{_FOLDER}/{release}", link)
        os.replace(link, run_dir / _LINK)
        sync_folder(run_dir)
    except OSError as error:
        with suppress(OSError):
            link.unlink()
        raise ActivateError(
            f"cannot switch {run_dir / _LINK}: {error.strerror}"
        ) from error
    return before
