# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Test storages: the contract that each of them keeps, ours and yours."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import ChangedError, FetchError, NotFoundError

if TYPE_CHECKING:
    from solenoid.storage import Storage

__all__ = ("check_storage",)

_REPEATS = 1000


async def check_storage(storage: Storage, folder: str) -> None:
    """Take a storage through all that `fetch` and `push` ask of one, and close it.

    `folder` is a URL below which it may write. An AssertionError, or what the storage
    itself raises, says what it does not do.
    """
    try:
        await _check(storage, folder.rstrip("/"))
    finally:
        await storage.close()


async def _check(storage: Storage, folder: str) -> None:
    content = bytes(range(256)) * _REPEATS
    url = f"{folder}/check me+1.tgz"
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "object"
        await _missing(storage, f"{folder}/none.tgz")
        await _put(storage, url, path, content)
        await _ranges(storage, url, content)
        await _several(storage, url, content)
        await _replaced(storage, url, path, content[::-1])
        empty = f"{folder}/empty"
        await _put(storage, empty, path, b"")
        assert await _read(storage, empty) == b"", "an empty object is not empty"
        got = await _read(storage, empty, 0, 100)
        assert got == b"", "a part of an empty object is not empty"


async def _missing(storage: Storage, url: str) -> None:
    try:
        await _read(storage, url)
    except NotFoundError:
        return
    raise AssertionError("an object that isn't there is no NotFoundError")


async def _put(storage: Storage, url: str, path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)
    told: list[int] = []
    digest = hashlib.sha256(content).hexdigest()
    await storage.put(url, path, sha256=digest, progress=told.append)
    assert max(told, default=0) <= len(content), "progress is told more than there is"


async def _read(
    storage: Storage, url: str, start: int = 0, stop: int | None = None, etag: str = ""
) -> bytes:
    """Read some bytes, and check what is said of them."""
    data = bytearray()
    async with storage.get(url, start=start, stop=stop, etag=etag) as part:
        async for chunk in part.chunks:
            assert chunk, "an empty chunk came"
            data += chunk
        assert part.start in (0, start), f"{start} was asked for, not {part.start}"
        if part.stop is not None:
            assert len(data) == part.stop - part.start, "stop is not where it ends"
        return bytes(
            data[start - part.start :][: None if stop is None else stop - start]
        )


async def _ranges(storage: Storage, url: str, content: bytes) -> None:
    size = len(content)
    for start, stop in ((0, None), (0, 1), (0, size), (1, 257), (size - 5, None)):
        got = await _read(storage, url, start, stop)
        assert got == content[start:stop], f"bytes {start} to {stop} are others"
    got = await _read(storage, url, 10, size + 1_000_000)
    assert got == content[10:], "what goes on beyond the end is not cut there"
    async with storage.get(url, stop=10) as part:
        assert part.size == size, f"{size} bytes are said to be {part.size}"
        assert part.etag, "there is no etag"
        expected = hashlib.sha256(content).hexdigest()
        assert part.sha256 in (None, expected), "sha256 is not what was put"
        etag = part.etag
        # Without having read it: the next request must not suffer.
    assert await _read(storage, url, 5, 15, etag) == content[5:15]


async def _several(storage: Storage, url: str, content: bytes) -> None:
    step = len(content) // 5
    parts = await asyncio.gather(
        *(_read(storage, url, step * n, step * (n + 1)) for n in range(5))
    )
    assert b"".join(parts) == content, "five parts at once are not the whole"


async def _replaced(storage: Storage, url: str, path: Path, other: bytes) -> None:
    async with storage.get(url, stop=10) as part:
        etag = part.etag
    await _put(storage, url, path, other)
    assert await _read(storage, url) == other, "put does not replace"
    try:
        await _read(storage, url, 5, 15, etag or "")
    except ChangedError:
        return
    except FetchError as error:
        raise AssertionError(
            "an object that was replaced is no ChangedError"
        ) from error
    raise AssertionError("a part of another object came for the first one's etag")
