# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let a thread do what waits for the disk, and end with it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def in_thread(action: Callable[[threading.Event], T]) -> T:
    """Return what `action` returns; it is given an event that says when to stop.

    When cancelled, this waits until the thread has cleared up: no thread goes on
    writing where nobody expects it.
    """
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(action, stop))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        # How the thread has ended is of no interest any more, but has to be seen.
        if not running.cancelled():
            running.exception()
        raise
