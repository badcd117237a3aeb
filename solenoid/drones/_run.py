# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Carry one change to many drones: begin, wait, stop, and undo as the rollout says."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid.drones._connect import connector
from solenoid.drones._result import Result
from solenoid.drones._rollout import Ending, Rollout, Strategy
from solenoid.drones._visit import Visit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from solenoid.drones._connect import Connect
    from solenoid.drones._inventory import Drone
    from solenoid.drones._result import Step
    from solenoid.drones._ssh import Ssh
    from solenoid.drones._visit import Action

PARALLEL = 64


def run(
    drones: Iterable[Drone],
    action: Action,
    strategy: Strategy | None = None,
    *,
    ssh: Ssh,
    what: str = "",
    wait: float = 0.0,
    parallel: int = PARALLEL,
    on_step: Callable[[Step], None] | None = None,
    on_batch: Callable[[int, int, tuple[str, ...]], None] | None = None,
) -> Run:
    """Carry an action to drones, as the strategy says; iterate over it for the results.

    Nothing happens before. No more than `parallel` drones are in the middle of
    something at a time. The app's lock on each is waited for `wait` seconds; others are
    told that it was taken for `what`. `on_step` is told each step of each drone,
    `on_batch` the number of a batch, how many there are, and who is in it.
    """
    connect = connector(
        ssh,
        run_dir=action.run_dir,
        what=what or action.verb,
        wait=wait,
        make=action.makes,
    )
    return Run(
        drones,
        action,
        strategy or Strategy(),
        connect=connect,
        parallel=parallel,
        on_step=on_step,
        on_batch=on_batch,
    )


class Run:
    """A change on its way: iterate over it for the results, as they become known.

    A drone whose change is taken back comes twice, the last time as `undone`; those
    that never began come at the end. `results` has the last word on each. Who leaves
    the loop early awaits `close`, which lets nobody begin any more.
    """

    def __init__(
        self,
        drones: Iterable[Drone],
        action: Action,
        strategy: Strategy,
        *,
        connect: Connect,
        parallel: int = PARALLEL,
        on_step: Callable[[Step], None] | None = None,
        on_batch: Callable[[int, int, tuple[str, ...]], None] | None = None,
    ) -> None:
        self.drones = {drone.name: drone for drone in drones}
        self.results: dict[str, Result] = {}
        self.rollout = Rollout([*self.drones], strategy)
        self._abandoned = False
        self._action, self._strategy = action, strategy
        self._connect, self._parallel = connect, max(1, parallel)
        self._on_step = on_step or (lambda step: None)
        self._on_batch = on_batch or (lambda number, of, names: None)
        self._visits: dict[str, Visit] = {}
        self._news: asyncio.Queue[Result] = asyncio.Queue()
        self._stopping = asyncio.Event()
        # Connections and locks are kept only where something may have to be undone.
        total = len(self.drones)
        self._keeps = (
            action.undoable and strategy.undo and strategy.allowed(total) < total
        )

    @property
    def busy(self) -> list[str]:
        """Return the drones in the middle of something."""
        visits = self._visits.items()
        return [name for name, visit in visits if visit.busy and not visit.leaving]

    def stop(self, why: str = "interrupted") -> None:
        """Let nobody begin any more; those in the middle go on to their end.

        Who only waits for another's lock has not begun.
        """
        self.rollout.stop(why)
        self._stopping.set()
        for visit in self._visits.values():
            if visit.waits:
                visit.cancel()

    def abandon(self) -> list[Step]:
        """Leave at once; return who was in the middle, and where."""
        self.stop()
        self._abandoned = True
        left = [visit.at for visit in self._visits.values() if visit.busy]
        for visit in self._visits.values():
            visit.cancel()
        return left

    async def __aiter__(self) -> AsyncIterator[Result]:
        try:
            async for result in self._go():
                yield result
        finally:
            await self.close()

    async def close(self) -> None:
        """Let nobody begin any more, and wait for those in the middle."""
        if not self.rollout.over:
            self.stop("left")
        for visit in self._visits.values():
            visit.keep()
        for visit in self._visits.values():
            await visit.ended()
        while not self._news.empty():  # nobody was there to take them
            self._noted(self._news.get_nowait())

    async def _go(self) -> AsyncIterator[Result]:
        rollout = self.rollout
        if self.drones:
            self._on_batch(*rollout.batch, rollout.current)
        while not rollout.over:
            if rollout.due:
                await self._pause()
                if rollout.due:
                    rollout.advance()
                    self._on_batch(*rollout.batch, rollout.current)
            self._begin()
            if rollout.running:
                result = await self._news.get()
                rollout.settle(result.drone, _ending(result))
                yield self._noted(result)
        if rollout.broken and self._keeps:
            async for result in self._undo():
                yield result
        for name in rollout.untouched:
            yield self._noted(Result(name, "untouched", error=rollout.stopped))

    def _begin(self) -> None:
        rollout = self.rollout
        while len(rollout.running) < self._parallel and (name := rollout.take()):
            self._visits[name] = Visit(
                self.drones[name],
                self._action,
                connect=self._connect,
                keep_open=self._keeps,
                tell=self._on_step,
                done=self._news.put_nowait,
            )

    async def _undo(self) -> AsyncIterator[Result]:
        for batch in self.rollout.to_undo():
            waiting = [*reversed(batch)]
            running = 0
            while waiting or running:
                if self._abandoned:
                    waiting.clear()
                while waiting and running < self._parallel:
                    self._visits[waiting.pop()].undo()
                    running += 1
                if running:
                    yield self._noted(await self._news.get())
                    running -= 1

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._strategy.pause)

    def _noted(self, result: Result) -> Result:
        self.results[result.drone] = result
        return result


def _ending(result: Result) -> Ending:
    if not result.ok:
        return "failed"
    return "changed" if result.changed else "same"
