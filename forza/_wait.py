# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Wait on any loop, without importing asyncio."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task, TimerHandle
    from collections.abc import Callable
    from typing import Any


def settle(future: Future[Any], result: object = None) -> None:
    """Give a future its result, unless it has one or was cancelled."""
    if not future.done():
        future.set_result(result)


async def wait(loop: AbstractEventLoop, future: Future[Any], within: float) -> bool:
    """Wait until `future` is settled, `within` seconds at most; say whether it was.

    On a time-out the future is settled with None.
    """
    late: list[bool] = []

    def ring() -> None:
        late.append(not future.done())
        settle(future)

    timer = loop.call_later(max(0.0, within), ring)
    try:
        await future
    finally:
        timer.cancel()
    return not any(late)


async def ready(
    loop: AbstractEventLoop,
    fd: int,
    add: Callable[..., object],
    remove: Callable[[int], object],
    within: float,
) -> bool:
    """Wait until a descriptor can be read or written; say whether it can in time."""
    waiter: Future[None] = loop.create_future()
    add(fd, settle, waiter)
    try:
        return await wait(loop, waiter, within)
    finally:
        remove(fd)


async def end(loop: AbstractEventLoop, task: Task[Any]) -> None:
    """Cancel a task and wait until it has cleaned up: a second, if it will not."""
    done: Future[None] = loop.create_future()
    task.add_done_callback(lambda _: settle(done))
    task.cancel()
    await wait(loop, done, 1.0)
    if task.done() and not task.cancelled():
        task.exception()  # Looked at, so that nobody complains when it is freed.


class Timers:
    """Timers whose deadlines coincide share one wake-up of the loop."""

    __slots__ = ("_loop", "_rings", "start")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self.start = loop.time()
        self._rings: dict[float, tuple[TimerHandle, list[Future[None]]]] = {}

    def at(self, deadline: float) -> Future[None]:
        """Return a future that is settled at `deadline`, a time of the loop."""
        future: Future[None] = self._loop.create_future()
        ring = self._rings.get(deadline)
        if ring is None:
            handle = self._loop.call_at(deadline, self._ring, deadline)
            ring = self._rings[deadline] = handle, []
        ring[1].append(future)
        return future

    def every(self, seconds: float) -> Every:
        """Yield at once, then at every multiple of `seconds` since the start."""
        return Every(self._loop, self, seconds)

    def close(self) -> None:
        """Forget all deadlines; who waits for one goes on waiting."""
        for handle, _ in self._rings.values():
            handle.cancel()
        self._rings.clear()

    def _ring(self, deadline: float) -> None:
        for future in self._rings.pop(deadline)[1]:
            settle(future)


class Every:
    """An endless asynchronous iterator over a grid that all plugins share.

    Two plugins with the same interval wake the monitor once. A tick that was missed,
    because the machine slept or was busy, is left out and not made up for.
    """

    __slots__ = ("_loop", "_next", "_seconds", "_timers")

    def __init__(self, loop: AbstractEventLoop, timers: Timers, seconds: float) -> None:
        self._loop = loop
        self._timers = timers
        self._seconds = seconds
        self._next = 0

    def __aiter__(self) -> Every:
        return self

    async def __anext__(self) -> None:
        if self._next:
            elapsed = self._loop.time() - self._timers.start
            self._next = max(self._next, int(elapsed / self._seconds))
            deadline = self._timers.start + self._next * self._seconds
            # Even one that has passed: a plugin that is too slow for its interval
            # must leave the loop to others between two turns.
            await self._timers.at(deadline)
        self._next += 1
