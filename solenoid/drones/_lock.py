# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Have an app on a drone to oneself while it is being changed."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid._errors import AbsentError
from solenoid._theirs import json_object
from solenoid.drones._answer import answer
from solenoid.drones._errors import LockedError, LockLostError, SessionError
from solenoid.drones._operator import operator
from solenoid.drones._remote import remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from solenoid.drones._channel import Channel
    from solenoid.drones._inventory import Drone
    from solenoid.drones._session import Completed, Session

# Without a sign of life for so many seconds a deployer is taken for dead, on the drone
# and by itself. It gives one four times in that time.
LEASE = 45.0
# How long the drone may take to say something at all, and to give a lock back.
ANSWER, _GOODBYE = 60.0, 5.0
# What is longer was not said by a lock.
_LINE_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lock, since when and what for; `pid` is the process on the drone.

    `drone` is what its deployer calls the drone.
    """

    owner: str
    since: str
    what: str
    pid: int = 0
    drone: str = ""

    def __str__(self) -> str:
        return f"{self.owner} since {self.since} ({self.what})"


class Lock:
    """A lock that is held; made by `lock`."""

    def __init__(
        self, drone: Drone, lease: float, on_wait: Callable[[Holder], None] | None
    ) -> None:
        self.drone = drone
        self._lease = lease
        self._on_wait = on_wait
        self._rest = b""
        self._sent: dict[int, float] = {}
        self._number = 0
        # When the drone has last heard of us, for sure; never, until it is held.
        self._heard = float("-inf")
        self._changed = asyncio.Event()
        self.answer: dict[str, Any] | None = None
        self.channel: Channel | None = None

    @property
    def lost(self) -> bool:
        """Say whether the lock may be another's by now."""
        over = self.channel is None or self.channel.over
        return over or _now() >= self._heard + self._lease

    @property
    def resumed(self) -> bool:
        """Say whether nobody else has had it since this run had it the last time."""
        return bool(self.answer and self.answer.get("resumed"))

    def check(self) -> None:
        """Raise LockLostError unless the lock is ours; ask before each step."""
        if self.lost:
            raise LockLostError(
                self.drone, "the lock was lost: broken by somebody, or out of touch"
            )

    async def log(self, what: str, result: str, **more: str | float) -> None:
        """Write to the drone's audit log; returns when that is done.

        Raises LockLostError.
        """
        number = self._send({"log": {"what": what, "result": result, **more}})
        while number in self._sent:
            self.check()
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._changed.wait()

    # --- What `lock` does with it ---------------------------------------------------

    def hear(self, data: bytes) -> None:
        """Take what the holder on the drone says."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_MOST:]
        for line in lines:
            said = json_object(line)
            if not said:
                continue  # a greeting of somebody's .bashrc
            if isinstance(said.get("seen"), int):
                self._heard = self._sent.pop(said["seen"], self._heard)
            elif said.get("state") == "waiting":
                if self._on_wait is not None:
                    self._on_wait(holder_of(said))
            elif self.answer is None:
                self.answer = said
        self._changed.set()

    async def beat(self) -> None:
        """Give signs of life."""
        while True:
            self._send({})
            await asyncio.sleep(self._lease / 4)

    async def settle(self, ended: asyncio.Task[Completed]) -> None:
        """Wait until the lock is held, and the drone has heard of us, or raise."""
        while not ended.done():
            if self.answer and (self.answer.get("state") != "held" or not self.lost):
                break
            self._changed.clear()
            changed = asyncio.create_task(self._changed.wait())
            waited: list[asyncio.Future[Any]] = [ended, changed]
            try:
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
        said = self.answer or answer(ended.result())
        if said.get("state") == "absent":
            raise AbsentError(f"{self.drone.name}: there is no app")
        if said.get("state") == "busy":
            other = holder_of(said)
            why = f"locked by {other}"
            if said.get("twin"):
                why = (
                    f"it is the same machine as {other.drone}, which this very run"
                    " has locked: give it one name"
                )
            raise LockedError(self.drone, why, other)
        if said.get("state") != "held":
            raise LockedError(self.drone, f"cannot lock: {said['error']}", None)
        self.check()

    def _send(self, message: dict[str, object]) -> int:
        self._number += 1
        self._sent[self._number] = _now()
        assert self.channel is not None
        self.channel.write(json.dumps({"n": self._number, **message}).encode() + b"\n")
        return self._number


@asynccontextmanager
async def lock(
    session: Session,
    app_dir: str,
    what: str,
    *,
    wait: float = 0.0,
    make: bool = True,
    owner: str | None = None,
    on_wait: Callable[[Holder], None] | None = None,
    lease: float = LEASE,
) -> AsyncIterator[Lock]:
    """Hold the lock of the app whose run directory is `app_dir`, for `what`.

    If another has it, this waits up to `wait` seconds, tells `on_wait` for whom, and
    raises LockedError. The lock ends with the block, with the connection, or `lease`
    seconds after the last sign of life: ask `check()` before each step. Whoever had
    it, when, and what for is in the drone's audit log.

    The folder is made if it is missing; without `make` that is an AbsentError.
    """
    held = Lock(session.drone, lease, on_wait)
    # Ours may be there still, if the connection broke and the drone has not noticed.
    lost = session.ssh.lost_locks
    ours = session.drone.name, app_dir
    wait = max(wait, lost.pop(ours, 0.0) - _now())
    order = {
        "app_dir": app_dir,
        "base": session.drone.base or "",
        "owner": owner or operator(),
        "what": what,
        "wait": wait,
        "lease": lease,
        "make": make,
        "run": session.ssh.run,
        "drone": session.drone.name,
    }
    words = remote(session.drone, "lock", "hold", order)
    channel = held.channel = await session.open(words, on_output=held.hear)
    beats = asyncio.create_task(held.beat())
    ended = asyncio.create_task(channel.wait())
    try:
        try:
            async with asyncio.timeout(wait + ANSWER):
                await held.settle(ended)
        except TimeoutError:
            raise LockedError(
                session.drone, f"no word of the lock in {wait + ANSWER:g} s", None
            ) from None
        yield held
    finally:
        beats.cancel()
        try:
            async with asyncio.timeout(_GOODBYE):
                await channel.feed(b"")
                await ended
        except (SessionError, TimeoutError):
            lost[ours] = _now() + lease + _GOODBYE
        finally:
            ended.cancel()
            channel.close()


async def break_lock(
    session: Session, app_dir: str, *, owner: str | None = None
) -> Holder | None:
    """Free an app's lock, whoever has it; return who that was. It is logged there.

    Raises LockedError if that is not possible.
    """
    order = {
        "app_dir": app_dir,
        "base": session.drone.base or "",
        "owner": owner or operator(),
    }
    words = remote(session.drone, "lock", "break", order)
    ended = await session.run(words, timeout=ANSWER)
    said = answer(ended)
    if "broken" not in said:
        raise LockedError(
            session.drone, f"cannot break the lock: {said['error']}", None
        )
    return None if said["broken"] is None else holder_of(said["broken"])


def holder_of(said: dict[str, Any]) -> Holder:
    """Return the holder that the drone speaks of."""
    owner, since, what = (str(said.get(k, "?")) for k in ("owner", "since", "what"))
    return Holder(
        owner, since, what, int(said.get("pid", 0)), str(said.get("drone", ""))
    )


def _now() -> float:
    # Goes on while the operator's machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME)
