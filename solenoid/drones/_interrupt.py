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
    task = asyncio.current_task()
    assert task is not None
    count = 0

    def take() -> None:
        nonlocal count
        count += 1
        (first if count == 1 else second)()

    for number in _SIGNALS:
        loop.add_signal_handler(number, take)
    try:
        yield
    finally:
        for number in _SIGNALS:  # from now on, it is the end
            loop.add_signal_handler(number, task.cancel)
