# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep snapshots in a folder."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, urlsplit

from solenoid._errors import (
    AccessError,
    ChangedError,
    FetchError,
    NotFoundError,
    StorageError,
)
from solenoid._target import Target, digest_beside, write_digest
from solenoid.storage import Part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from solenoid.storage import Progress

_CHUNK = 1 << 17


class FileStorage:
    """Files by `file:` URLs, or by plain paths.

    `put` writes the SHA-256 into a file beside the object, where `fetch` looks for it.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        if options:
            raise StorageError(f"file: storage has no option {min(options)!r}")

    @asynccontextmanager
    async def get(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AsyncIterator[Part]:
        """Read a file; its etag is made of what changes when it is replaced."""
        path = path_of(url)
        try:
            file = await asyncio.to_thread(path.open, "rb", 0)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(f"{path}: no such file") from None
        except IsADirectoryError:
            raise NotFoundError(
                f"{path} is a folder: solenoid pack {path} makes a snapshot of it"
            ) from None
        except PermissionError:
            raise AccessError(f"{path}: permission denied") from None
        except OSError as error:
            raise FetchError(f"{path}: {error.strerror}") from error
        with file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise FetchError(f"{path}: not a regular file")
            current = f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"
            if etag not in ("", current):
                raise ChangedError(f"{path}: changed meanwhile")
            size = found.st_size
            stop = size if stop is None else min(stop, size)
            file.seek(start)
            yield Part(_chunks(file, stop - start), start, stop, size, current)

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
    ) -> None:
        """Copy a file to its place, whole or not at all, and its SHA-256 beside it."""
        try:
            await asyncio.to_thread(_put, path_of(url), path, sha256, progress)
        except PermissionError as error:
            raise AccessError(f"{error.filename}: permission denied") from error
        except OSError as error:
            raise FetchError(f"{path_of(url)}: {error.strerror}") from error

    async def close(self) -> None:
        """Do nothing: no file stays open."""


def path_of(url: str) -> Path:
    """Return the path of a `file:` URL, relative ones included, or of a plain path."""
    if url[:5].lower() != "file:":
        return Path(url)
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise StorageError(f"{url}: a file on another host (file:///PATH is on this)")
    return Path(unquote(parts.path))


async def _chunks(file: BinaryIO, left: int) -> AsyncIterator[bytes]:
    while left > 0 and (data := await asyncio.to_thread(file.read, min(left, _CHUNK))):
        left -= len(data)
        yield data


def _put(to: Path, path: Path, sha256: str, progress: Progress | None) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    # The digest of another object would be worse than none while both are replaced.
    digest_beside(to).unlink(missing_ok=True)
    with path.open("rb") as source, Target(to) as target:
        at = 0
        while data := source.read(_CHUNK):
            target.write([data], at)
            at += len(data)
            if progress is not None:
                progress(at)
        os.fchmod(target.descriptor, 0o644)
        target.commit()
    write_digest(to, sha256)
