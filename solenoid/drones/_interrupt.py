# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take Ctrl-C as a wish to stop in good order, and the second one as an order."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts(first: Callable[[], None], second: Callable[[], None]) -> Iterator[None]:
    """Call `first` at the first SIGINT or SIGTERM, `second` at each one after it."""
    loop = asyncio.get_running_loop()
    count = 0

    def take() -> None:
        nonlocal count
        count += 1
        (first if count == 1 else second)()

    # Not by the loop's own handlers: what they replace could not be had back.
    before = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(take))
        for number in _SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():  # from now on, it is the end
            signal.signal(number, handler)
