# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read standard input, where nobody may ever type: ^C ends the wait all the same."""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PIECE = 1 << 16


async def everything() -> bytes:
    """Return all that comes. Raises OSError."""
    return await _waited_for(_everything)


async def first_line() -> bytes:
    """Return the first line; the rest is for others to read. Raises OSError."""
    return await _waited_for(_first_line)


def _everything() -> bytes:
    found = bytearray()
    while piece := os.read(0, _PIECE):
        found += piece
    return bytes(found)


def _first_line() -> bytes:
    found = bytearray()
    # Byte by byte: what else is in the pipe cannot be put back.
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        found += byte
    return bytes(found)


async def _waited_for(read: Callable[[], bytes]) -> bytes:
    # The loop's own threads are waited for at the end, and so is whoever reads by
    # sys.stdin, which has a lock.
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes] = loop.create_future()

    def settle(data: bytes, error: OSError | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(data)
        else:
            done.set_exception(error)

    def run() -> None:
        data, failed = b"", None
        try:
            data = read()
        except OSError as error:
            failed = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, data, failed)

    threading.Thread(target=run, daemon=True).start()
    return await done
