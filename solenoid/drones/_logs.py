# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what an app says on many drones, as one stream in the order of time."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from solenoid._theirs import json_object
from solenoid.drones._errors import DronesError, SessionError
from solenoid.drones._remote import remote

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from solenoid.drones._inventory import Drone
    from solenoid.drones._ssh import Ssh

# Drones are not equally fast: what comes is kept for so long, to be put in order.
_HOLD = 0.5
_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
_BEHIND = 64
_LINE_MOST, _END_OF_TIME = 1 << 22, 1e11
# How far one looks back for what was missed while a connection was down.
_MISSED = 10_000


@dataclass(frozen=True, slots=True, order=True)
class Event:
    """An event of forza's, and the drone that it is from."""

    time: float
    number: int
    drone: str = field(compare=False)
    event: dict[str, Any] = field(compare=False)


class LogsError(DronesError):
    """A drone's events cannot be read."""

    step = "logs"


async def read_logs(
    ssh: Ssh,
    drones: Sequence[Drone],
    run_dir: str,
    *,
    lines: int = 100,
    follow: bool = False,
    everything: bool = False,
    on_trouble: Callable[[Drone, DronesError], None] | None = None,
) -> AsyncGenerator[Event, None]:
    """Yield the last `lines` events of each drone, and with `follow` those to come.

    Only what the app says, unless `everything`. A drone that cannot be read is told to
    `on_trouble`; when one follows, it is connected to again, and what it has said
    meanwhile comes then.
    """
    order = {"follow": follow, "all": everything}
    inbox: asyncio.Queue[Event | None] = asyncio.Queue(10_000)
    trouble = on_trouble or (lambda drone, error: None)
    readers = [
        asyncio.create_task(
            _Reader(
                ssh,
                drone,
                {"run_dir": drone.fill(run_dir), **order},
                inbox,
                trouble,
            ).go(lines)
        )
        for drone in drones
    ]
    ended = asyncio.create_task(_sentinel(readers, inbox))
    try:
        async for event in _in_order(inbox, follow=follow):
            yield event
    finally:
        for task in (ended, *readers):
            task.cancel()
        await asyncio.wait([ended, *readers])


async def _sentinel(
    readers: Sequence[asyncio.Task[None]], inbox: asyncio.Queue[Event | None]
) -> None:
    if readers:
        await asyncio.wait(readers)
    await inbox.put(None)


async def _in_order(
    inbox: asyncio.Queue[Event | None], *, follow: bool
) -> AsyncIterator[Event]:
    """Sort what is there when nothing more comes, or nothing has for a moment."""
    held: list[Event] = []
    while True:
        try:
            async with asyncio.timeout(_HOLD if held and follow else None):
                event = await inbox.get()
        except TimeoutError:
            while held:
                yield heapq.heappop(held)
            continue
        if event is None:
            break
        heapq.heappush(held, event)
        # What is older than this was long enough on its way.
        while follow and held[0].time < event.time - _HOLD:
            yield heapq.heappop(held)
    while held:
        yield heapq.heappop(held)


class _Reader:
    """Reads one drone, again and again if it has to be."""

    def __init__(
        self,
        ssh: Ssh,
        drone: Drone,
        order: dict[str, object],
        inbox: asyncio.Queue[Event | None],
        trouble: Callable[[Drone, DronesError], None],
    ) -> None:
        self._ssh, self._drone, self._order = ssh, drone, order
        self._inbox, self._trouble = inbox, trouble
        self._rest = b""
        self._number = 0
        # What was the last of each of the monitor's lives: batch, and events of it.
        self._seen: dict[str, tuple[int, int]] = {}
        self._skip: dict[str, tuple[int, int]] = {}

    async def go(self, lines: int) -> None:
        pause = _PAUSE
        while True:
            before = self._number
            try:
                await self._read(lines)
                return
            except DronesError as error:
                self._trouble(self._drone, error)
                again = isinstance(error, SessionError) and error.kind not in (
                    "host-key",
                    "auth",
                )
            if not (again and self._order["follow"]):
                return
            pause = _PAUSE if self._number > before else min(pause * 2, _LONGEST_PAUSE)
            await asyncio.sleep(pause)
            if self._seen:
                lines = max(lines, _MISSED)
            self._skip, self._rest = dict(self._seen), b""

    async def _read(self, lines: int) -> None:
        words = remote(self._drone, "logs", "read", {**self._order, "lines": lines})
        came: asyncio.Queue[bytes] = asyncio.Queue()
        async with self._ssh.session(self._drone) as session:
            channel = await session.open(words, on_output=came.put_nowait)
            ended = asyncio.create_task(channel.wait())
            try:
                if not self._order["follow"]:
                    await channel.feed(b"")
                while not (ended.done() and came.empty()):
                    # Whoever reads us is slower than the drone: let it wait.
                    if came.qsize() > _BEHIND:
                        channel.hold()
                    elif came.empty():
                        channel.release()
                    getting = asyncio.create_task(came.get())
                    await asyncio.wait(
                        [getting, ended], return_when=asyncio.FIRST_COMPLETED
                    )
                    if getting.done():
                        await self._take(getting.result())
                    else:
                        getting.cancel()
                completed = await ended
            finally:
                ended.cancel()
                channel.close()
        if completed.status:
            said = completed.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1] if said else f"status {completed.status}"
            raise LogsError(f"{self._drone.name}: {why}")

    async def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_MOST:]
        for line in lines:
            event = json_object(line)
            # The file is in the app's hands: anything may be there.
            with suppress(ValueError, TypeError, AttributeError, OverflowError):
                if event and not self._is_repeated(event):
                    at = float(event.get("time", 0))
                    if not 0 <= at < _END_OF_TIME:
                        continue
                    self._number += 1
                    await self._inbox.put(
                        Event(at, self._number, self._drone.name, event)
                    )

    def _is_repeated(self, event: dict[str, Any]) -> bool:
        """Say whether it came before the connection broke: events of a batch count."""
        meta = event.get("meta", {})
        boot, seq = str(meta.get("boot")), int(meta.get("seq", 0))
        last, count = self._seen.get(boot, (-1, 0))
        skip_to, skip_of_it = self._skip.get(boot, (-1, 0))
        if seq < skip_to:
            return True
        if seq == skip_to and skip_of_it > 0:
            self._skip[boot] = (seq, skip_of_it - 1)
            return True
        self._seen[boot] = (seq, count + 1 if seq == last else 1)
        return False
