# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Try again what may pass, with growing pauses, and not for ever."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

from solenoid._errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 20.0


async def retrying(
    action: Callable[[], Awaitable[T]],
    attempts: int,
    reached: Callable[[], int] = lambda: 0,
    enough: int = 1,
) -> T:
    """Do it until it works, or fails `attempts` times in a row to get on.

    It has got on if `reached` has grown by `enough`. Raises the last TransientError.
    """
    failures = 0
    while True:
        before = reached()
        try:
            return await action()
        except TransientError as error:
            failures = 1 if reached() - before >= enough else failures + 1
            if failures >= attempts:
                tries = f" ({failures} attempts)" if failures > 1 else ""
                raise TransientError(f"{error}{tries}") from error
            await asyncio.sleep(_pause(failures, error.retry_after))


def _pause(failures: int, asked: float) -> float:
    """Return a random share of a growing bound: many drones shall not come at once."""
    bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * (1 << failures))
    share = int.from_bytes(os.urandom(4), "big") / 2**32
    return max(share * bound, min(asked, _LONGEST_PAUSE))
