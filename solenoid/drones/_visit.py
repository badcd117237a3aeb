# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be on one drone: connected and locked from the first step to the last word."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from solenoid._errors import SolenoidError
from solenoid.drones._errors import SessionError
from solenoid.drones._result import Result, State, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from solenoid.drones._connect import Connect, Reached
    from solenoid.drones._inventory import Drone
    from solenoid.drones._session import Session


T = TypeVar("T")

# How long one waits for a drone that was lost in the middle of something.
PATIENCE, _AGAIN = 120.0, 2.0
# How much of what a program has said goes into a result.
TAIL = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an action has done on a drone, and what it takes to undo it."""

    changed: bool = False
    release: str | None = None
    before: str | None = None
    output: str = ""
    warning: str = ""
    reply: Mapping[str, Any] = field(default_factory=dict)


class StepError(SolenoidError):
    """A step on a drone failed.

    Unless `unclear`, it is known what runs there: what did before, or else it is said.
    """

    step = "drone"

    def __init__(
        self,
        message: str,
        *,
        output: str = "",
        blame: str = "system",
        unclear: bool = False,
        reply: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, blame="user" if blame == "user" else "system")
        self.output = output
        self.unclear = unclear
        self.reply = reply or {}


class Action(Protocol):
    """What is done on each drone.

    `do` and `undo` may raise StepError, or any SolenoidError for which the drone is as
    it was before, unless the visit is `changing`.
    """

    @property
    def verb(self) -> str:
        """Return what this is called."""

    @property
    def run_dir(self) -> str | None:
        """Return the app to lock meanwhile, if any; variables are filled in."""

    @property
    def undoable(self) -> bool:
        """Say whether `undo` can take back what `do` has done."""

    @property
    def makes(self) -> bool:
        """Say whether the app's run directory is made where it is missing."""

    async def do(self, visit: Visit) -> Outcome:
        """Do it, to the end: what fails half-way leaves the drone as it was."""

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Take it back."""


class Visit:
    """One drone's part of a change: a task of its own, from connection to farewell.

    `done` is called with what became of the drone; where `keep_open` is set and the
    drone was changed, the visit then waits to be told `keep()` or `undo()`, the
    connection and the lock still held, so that nobody comes between.
    """

    def __init__(
        self,
        drone: Drone,
        action: Action,
        *,
        connect: Connect,
        keep_open: bool,
        tell: Callable[[Step], None],
        done: Callable[[Result], None],
    ) -> None:
        self.drone = drone
        self.at = Step(drone.name, "connect")
        self.busy = True
        # While set, a visit that is cut short leaves the drone who knows how.
        self.changing = False
        # Which release runs, once that is known.
        self.release: str | None = None
        # Nobody else has had the lock, though it was lost with a connection.
        self.alone = True
        # The words that run solenoid there, once that is known.
        self.solenoid: tuple[str, ...] = ()
        self._action, self._connect, self._keep_open = action, connect, keep_open
        self._tell, self._done = tell, done
        self._reached: Reached | None = None
        self._stack = AsyncExitStack()
        self._begun = monotonic()
        self._wanted = asyncio.Event()
        self._undo = False
        self._task = asyncio.create_task(self._go())
        self._task.add_done_callback(self._over)

    @property
    def connected(self) -> bool:
        """Say whether there is a connection, or was one until just now."""
        return self._reached is not None

    @property
    def absent(self) -> bool:
        """Say whether there is no app there, and so nothing to lock."""
        return self._reached is not None and self._reached.absent

    @property
    def waits(self) -> bool:
        """Say whether it waits for another's lock, with nothing done yet."""
        first = self.busy and not self.changing
        return first and self.at.step == "lock" and bool(self.at.detail)

    @property
    def leaving(self) -> bool:
        """Say whether it was told to leave."""
        return self._task.cancelling() > 0

    @property
    def session(self) -> Session:
        """Return the connection."""
        assert self._reached is not None
        return self._reached.session

    def step(self, step: str, detail: str = "") -> None:
        """Say what is done next. Raises LockLostError if the lock is not ours."""
        self.tell(step, detail)
        if self._reached is not None and self._reached.lock is not None:
            self._reached.lock.check()

    def tell(self, step: str, detail: str = "") -> None:
        """Say what is done next, which needs no lock."""
        self.at = Step(self.drone.name, step, detail)
        self._tell(self.at)

    async def reconnect(self) -> None:
        """Connect anew, after the connection was lost. Raises as connecting does."""
        stack, self._stack = self._stack, AsyncExitStack()
        self._reached = None
        await _closed(stack)
        await self._enter()
        lock = self._reached.lock if self._reached else None
        self.alone = self.alone and (lock is None or lock.resumed)

    async def steadily(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do what may be done twice, through broken connections, for two minutes.

        A lock that was lost with its connection is had anew.
        """
        deadline = monotonic() + PATIENCE
        lock = self._reached.lock if self._reached else None
        connected = lock is None or not lock.lost
        while True:
            try:
                if not connected:
                    await self.reconnect()
                return await action()
            except SessionError as error:
                if error.kind in ("host-key", "auth") or monotonic() > deadline:
                    raise
                connected = False
            await asyncio.sleep(_AGAIN)

    def plain(self, error: Exception) -> str:
        """Return an error without the drone's name, which is beside it anyway."""
        return str(error).removeprefix(f"{self.drone.name}: ")

    def keep(self) -> None:
        """Let it be as it is."""
        self._wanted.set()

    def undo(self) -> None:
        """Take back what was done; `done` is called once more."""
        self._undo = True
        self._wanted.set()

    def cancel(self) -> None:
        """Leave at once."""
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until the connection is closed, however the visit ended."""
        await asyncio.wait([self._task])

    async def _go(self) -> None:
        try:
            result, outcome = await self._did()
            await self._log(result)
            self._settle(result)
            if outcome is not None and outcome.changed and self._keep_open:
                await self._wanted.wait()
                if self._undo:
                    self.busy = True
                    result = await self._undid(outcome)
                    await self._log(result)
                    self._settle(result)
        except asyncio.CancelledError:
            self._cut_short()
            raise
        finally:
            await _closed(self._stack)

    def _over(self, task: asyncio.Task[None]) -> None:
        # Cancelled before its first step, it has had no chance to say so.
        self._cut_short()

    def _cut_short(self) -> None:
        if self.busy:
            state: State = "unclear" if self.changing else "failed"
            self._settle(self._result(state, error="interrupted"))

    async def _did(self) -> tuple[Result, Outcome | None]:
        try:
            self.step("connect")
            await self._enter()
            outcome = await self._action.do(self)
        except Exception as error:  # one drone's bad day is not the others'
            return self._failed(error), None
        return self._result("done", outcome), outcome

    async def _undid(self, outcome: Outcome) -> Result:
        try:
            self.tell("undo")
            self.changing = True
            await self._action.undo(self, outcome)
            self.changing = False
        except Exception as error:
            why = f"cannot be taken back: {error}"
            return self._result("unclear", outcome, error=why)
        was = Outcome(True, outcome.before, outcome.release)
        return self._result("undone", was)

    async def _enter(self) -> None:
        reached = self._connect(self.drone, self.tell)
        self._reached = await self._stack.enter_async_context(reached)

    async def _log(self, result: Result) -> None:
        """Write into the drone's audit log how it went, if the lock is still held."""
        lock = self._reached.lock if self._reached else None
        if lock is None or lock.lost:
            return
        more = {"release": result.release or "", "error": result.error}
        with suppress(SolenoidError):
            await lock.log(self._action.verb, result.state, **more)

    def _settle(self, result: Result) -> None:
        self.busy = False
        self._done(result)

    def _failed(self, error: Exception) -> Result:
        known = isinstance(error, SolenoidError)
        said = self.plain(error) if known else f"{type(error).__name__}: {error}"
        unclear = getattr(error, "unclear", self.changing)
        return self._result(
            "unclear" if unclear else "failed",
            Outcome(release=None if unclear else self.release),
            error=said,
            output=getattr(error, "output", ""),
            blame=getattr(error, "blame", "system"),
            step=getattr(error, "reply", {}).get("step", ""),
        )

    def _result(
        self,
        state: State,
        outcome: Outcome | None = None,
        *,
        error: str = "",
        output: str = "",
        blame: str = "",
        step: str = "",
    ) -> Result:
        made = outcome or Outcome()
        return Result(
            self.drone.name,
            state,
            step="" if state == "done" else step or self.at.step,
            error=error or made.warning,
            output=(output or made.output)[-TAIL:],
            blame=blame,
            release=made.release,
            before=made.before,
            changed=made.changed,
            seconds=monotonic() - self._begun,
            reply=made.reply,
        )


async def _closed(stack: AsyncExitStack) -> None:
    """Close what was opened; that this fails is no news about the drone."""
    try:
        await stack.aclose()
    except Exception:
        return
