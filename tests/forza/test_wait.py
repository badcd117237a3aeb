# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Waiting on either loop: bounded, on a shared grid, and never in the loop's way."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from forza._wait import Timers, end, settle, wait
from tests.forza.conftest import Run


def test_settle(run: Run) -> None:
    """A future that has a result, or was cancelled, is left as it is."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[object] = loop.create_future()
        settle(first, 1)
        settle(first, 2)
        assert first.result() == 1
        second: asyncio.Future[object] = loop.create_future()
        second.cancel()
        settle(second, 1)
        assert second.cancelled()

    run(main())


def test_wait(run: Run) -> None:
    """What is settled in time is true, what is not is false, and settled then too."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        loop.call_soon(settle, future)
        assert await wait(loop, future, 10.0)
        late: asyncio.Future[object] = loop.create_future()
        assert not await wait(loop, late, 0.01)
        assert late.done()
        never: asyncio.Future[object] = loop.create_future()
        assert not await wait(loop, never, -5.0)
        done: asyncio.Future[object] = loop.create_future()
        done.set_result(None)
        assert await wait(loop, done, 1.0)

    run(main())


def test_wait_is_cancelled(run: Run) -> None:
    """Who is cancelled while waiting leaves, and no timer stays."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        waiting = asyncio.create_task(wait(loop, future, 0.05))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert future.cancelled()

    run(main())


def test_end(run: Run) -> None:
    """When `end` returns, a task has cleaned up, or has had a second for it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []

        async def tidy() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(0.01)
                seen.append("tidy")

        async def fails() -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                seen.append("fails")
                raise RuntimeError("on the way out")

        async def deaf() -> None:
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                seen.append("deaf")
            await asyncio.sleep(1000)

        async def quick() -> None:
            pass

        for coroutine in tidy(), fails(), quick():
            task = asyncio.create_task(coroutine)
            await asyncio.sleep(0)
            await end(loop, task)
            assert task.done()
            await end(loop, task)
        task = asyncio.create_task(deaf())
        await asyncio.sleep(0)
        await end(loop, task)
        assert not task.done()
        assert seen == ["tidy", "fails", "deaf"]
        task.cancel()

    run(main())


def test_timers_share_a_wake_up(run: Run) -> None:
    """Whoever waits for the same moment is woken in the same turn."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        turn = 0
        turns: list[int] = []

        async def one() -> None:
            ticks = 0
            async for _ in timers.every(0.02):
                turns.append(turn)
                ticks += 1
                if ticks == 3:
                    break

        def count() -> None:
            nonlocal turn
            turn += 1
            handles.append(loop.call_later(0.02, count))

        handles = [loop.call_soon(count)]
        await asyncio.gather(*(one() for _ in range(5)))
        handles[-1].cancel()
        assert [turns[at : at + 5] for at in (0, 5, 10)] == [
            [turns[at]] * 5 for at in (0, 5, 10)
        ]
        assert timers._rings == {}

    run(main())


def test_every_begins_at_once(run: Run) -> None:
    """The first tick needs no turn of the loop, the second is at the grid's next."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        ticks = timers.every(0.05)
        with pytest.raises(StopIteration):
            ticks.__anext__().send(None)
        await ticks.__anext__()
        # uvloop's clock counts milliseconds, in floats.
        assert loop.time() > timers.start + 0.05 - 0.001

    run(main())


@pytest.mark.parametrize("seconds", [1e-9, 1e-4])
def test_every_lets_the_loop_go_on(run: Run, seconds: float) -> None:
    """A plugin that can't keep up with its interval does not stop everything else."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        others: list[int] = []
        loop.call_soon(others.append, 1)
        ticks = 0
        async for _ in Timers(loop).every(seconds):
            until = monotonic() + 2 * seconds
            while monotonic() < until:
                pass
            ticks += 1
            if ticks == 1000 or others:
                break
        assert others

    run(main())


def test_missed_ticks_are_left_out(run: Run) -> None:
    """After a long pause there is one tick at once, and then the grid's next."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        ticks = timers.every(10.0)
        timers.start -= 95.0
        for _ in range(2):  # the first, and one for all those that were missed
            await asyncio.wait_for(anext(ticks), 5.0)
        assert timers._rings == {}
        waiting = asyncio.ensure_future(anext(ticks))
        await asyncio.sleep(0)
        assert list(timers._rings) == [pytest.approx(timers.start + 100.0)]
        waiting.cancel()
        timers.close()

    run(main())


def test_close(run: Run) -> None:
    """After `close` no timer is left on the loop."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        future = timers.at(loop.time() + 0.01)
        timers.close()
        await asyncio.sleep(0.05)
        assert not future.done()

    run(main())
