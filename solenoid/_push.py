# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Store a snapshot, with its digest."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import FetchError, PushError
from solenoid._retry import retrying
from solenoid.storage import open_storage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from solenoid.storage import Storage

    Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was stored."""

    url: str
    size: int
    sha256: str


async def push(
    path: str | os.PathLike[str],
    url: str,
    *,
    options: Mapping[str, object] | None = None,
    storage: Storage | None = None,
    attempts: int = 6,
    progress: Progress | None = None,
) -> Pushed:
    """Store a file at a URL, replacing what is there.

    The digest goes with it, as the object's metadata or as a file beside it, where
    the storage can do so. `progress` is told, maybe in another thread, the bytes so far
    and in all. Raises PushError.
    """
    source = Path(path)
    used = storage or open_storage(url, options)
    try:
        size, digest = await asyncio.to_thread(_look_at, source)
        told = None if progress is None else (lambda done: progress(done, size))
        await retrying(
            lambda: used.put(url, source, sha256=digest, progress=told), attempts
        )
        if progress is not None:
            progress(size, size)
    except FetchError as error:
        raise PushError(f"cannot store {source}: {error}", blame=error.blame) from error
    except OSError as error:
        raise PushError(
            f"cannot store {source}: {error.strerror}", blame="user"
        ) from error
    finally:
        if storage is None:
            await used.close()
    return Pushed(url, size, digest)


def _look_at(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
