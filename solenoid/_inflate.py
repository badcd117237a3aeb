# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decompress in a thread of its own, so that a second core has something to do."""

from __future__ import annotations

import threading
import zlib
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from solenoid._errors import UnpackError

if TYPE_CHECKING:
    from collections.abc import Iterator

# So little is read that it mostly comes out in one block: what a block has no room
# for is copied, again and again, which took 3 MB more at the peak.
_READ, _BLOCK = 1 << 14, 1 << 17
# So many blocks wait at most: what memory it takes does not depend on the archive.
_AHEAD = 2
# A small archive of zeros is no bomb; below this the ratio is nobody's business.
_HARMLESS = 32 << 20


class Inflated:
    """The decompressed bytes of a gzip file, counted and bounded."""

    def __init__(self, file: BinaryIO, max_bytes: int, max_ratio: int) -> None:
        self._file = file
        self._max_bytes, self._max_ratio = max_bytes, max_ratio
        self._blocks: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._closed = False
        self._data, self._at = b"", 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def read(self, size: int) -> bytes:
        """Return exactly so many bytes, fewer only at the end."""
        end = self._at + size
        while end > len(self._data):
            block = self._next()
            if not block:
                end = len(self._data)
                break
            self._data = self._data[self._at :] + block
            end -= self._at
            self._at = 0
        data = self._data[self._at : end]
        self._at = end
        return data

    def some(self, most: int) -> bytes:
        """Return some bytes, none at the end: whatever takes no joining."""
        if self._at == len(self._data):
            self._data, self._at = self._next(), 0
        data = self._data[self._at : self._at + most]
        self._at += len(data)
        return data

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._room.release()
        self._thread.join()

    def _next(self) -> bytes:
        block = self._blocks.get()
        if isinstance(block, Exception):
            self._blocks.put(block)
            raise block
        if not block:
            self._blocks.put(b"")
        self._room.release()
        return block

    def _run(self) -> None:
        try:
            taken = 0
            for block in self._inflate():
                taken += len(block)
                self._check(taken)
                self._room.acquire()
                if self._closed:
                    return
                self._blocks.put(block)
            self._blocks.put(b"")
        except Exception as error:
            self._blocks.put(error)

    def _check(self, taken: int) -> None:
        if taken > self._max_bytes:
            raise UnpackError(f"more than {self._max_bytes} bytes when unpacked")
        if taken > _HARMLESS and taken > self._max_ratio * self._file.tell():
            raise UnpackError(f"a bomb: more than 1:{self._max_ratio} compressed")

    def _inflate(self) -> Iterator[bytes]:
        if self._file.read(2) != b"\x1f\x8b":
            raise UnpackError("not a gzip file")
        self._file.seek(0)
        library = _library()
        try:
            yield from self._members(library)
        except (zlib.error, library.error) as error:
            raise UnpackError(f"damaged gzip data ({error})") from error

    def _members(self, library: Any) -> Iterator[bytes]:
        data = self._file.read(_READ)
        while data:
            engine = library.decompressobj(31)
            while not engine.eof:
                if not data:
                    raise UnpackError("the gzip data end too early")
                block = engine.decompress(data, _BLOCK)
                if block:
                    yield block
                data = engine.unconsumed_tail
                if not data and not engine.eof:
                    data = self._file.read(_READ)
            # Another member may follow, or zeros that fill a block of a tape.
            data = engine.unused_data.lstrip(b"\0")
            while not data and (more := self._file.read(_READ)):
                data = more.lstrip(b"\0")


def _library() -> Any:
    """Return isal's zlib, twice as fast, where it is installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib
