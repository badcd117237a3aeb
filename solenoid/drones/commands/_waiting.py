# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what is waited for, when it takes long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from solenoid._console import Console

EVERY = 10.0


@asynccontextmanager
async def saying(console: Console, what: str) -> AsyncIterator[None]:
    """Say every ten seconds of the block what is still being done."""
    begun = monotonic()

    async def say() -> None:
        while True:
            await asyncio.sleep(EVERY)
            console.info(f"still {what}, for {monotonic() - begun:.0f} s")

    task = asyncio.create_task(say())
    try:
        yield
    finally:
        task.cancel()
