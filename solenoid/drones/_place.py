# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know where an app is on a drone, and have solenoid there do things with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from solenoid._errors import SolenoidError
from solenoid.drones._answer import answer
from solenoid.drones._ask import ask
from solenoid.drones._bootstrap import ensure_solenoid
from solenoid.drones._remote import remote
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from solenoid.drones._errors import SessionError
    from solenoid.drones._visit import Visit
    from solenoid.drones._wheelhouse import Wheelhouse

_LOOK_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app is on a drone, and how solenoid is asked about it.

    In `run_dir` a drone's variables are filled in: `/srv/{disk}/shop`.

    Solenoid itself comes from the `wheelhouse`; without one it has to be there, and
    `solenoid` are the words that run it. It may take `timeout` seconds for anything.
    Another that is at work there is waited for, up to `wait` seconds: one that a
    deployer has left who was killed, for instance.
    """

    run_dir: str
    wheelhouse: Wheelhouse | None = None
    solenoid: tuple[str, ...] = ()
    timeout: float = 600.0
    wait: float = 0.0

    def on(self, visit: Visit) -> str:
        """Return the run directory on the drone of a visit."""
        return visit.drone.fill(self.run_dir)

    async def ask(
        self,
        visit: Visit,
        verb: str,
        *options: str,
        input: bytes = b"",
        wait: float | None = None,
    ) -> dict[str, Any]:
        """Have solenoid do a verb on the app; return its answer.

        `wait` is how long another is waited for, if not as usual.
        """
        await self.prepare(visit)
        words = [*visit.solenoid, verb, *options, "--run-dir", self.on(visit)]
        accept = (0, 1) if verb == "status" else (0,)
        deadline = monotonic() + (self.wait if wait is None else wait)
        while True:
            try:
                return await ask(
                    visit.session,
                    words,
                    input=input,
                    timeout=self.timeout,
                    accept=accept,
                )
            except StepError as error:
                if error.reply.get("step") != "lock" or monotonic() >= deadline:
                    raise
            visit.tell(visit.at.step, "waits for another solenoid there")
            await asyncio.sleep(_LOOK_AGAIN)

    async def prepare(self, visit: Visit) -> None:
        """Have solenoid on the drone, once in a visit, if there is an app at all."""
        if visit.absent:
            raise StepError(self.nothing(visit), blame="user", reply={"step": "find"})
        if self.wheelhouse is not None and not visit.solenoid:
            visit.step("bootstrap")
            words = await ensure_solenoid(visit.session, self.wheelhouse)
            visit.solenoid = tuple(words)
        elif not visit.solenoid:
            visit.solenoid = self.solenoid or ("solenoid",)

    async def look(self, visit: Visit) -> dict[str, Any]:
        """Return how the app is: nothing where there has never been one."""
        try:
            return await self.ask(visit, "status")
        except StepError as error:
            if error.reply.get("step") == "find":
                return {}
            raise

    def nothing(self, visit: Visit) -> str:
        """Say that there is no app."""
        return f"there is no app in {self.on(visit)}"

    async def aftermath(
        self, visit: Visit, before: dict[str, Any], error: StepError
    ) -> StepError:
        """Return the error of a step that failed, with what runs now if that differs.

        What does run is the visit's `release`, once it is known.
        """
        try:
            now = running(await visit.steadily(lambda: self.look(visit)))
        except SolenoidError as reason:
            why = visit.plain(reason)
            return _more(error, f"what runs now cannot be found out: {why}", True)
        visit.release = now
        if now == running(before):
            return error
        return _more(error, f"{now or 'nothing'} runs now", False)

    async def settled(self, visit: Visit, lost: SessionError) -> dict[str, Any]:
        """Return how the app is, once all is done that we could not watch to its end.

        The connection is gone, but solenoid on the drone goes on: it holds the lock of
        the run directory for as long as it is at work. Raises StepError if that cannot
        be found out.
        """
        # Who was late already has had the time that there is.
        deadline = monotonic() + (0 if lost.kind == "timeout" else self.timeout)
        visit.tell(visit.at.step, "the connection was lost")
        try:
            idle = 0
            while idle < 2:  # it may have been about to begin
                idle = 0 if await visit.steadily(lambda: self.busy(visit)) else idle + 1
                if not idle and monotonic() > deadline:
                    raise StepError(
                        f"{lost}; solenoid is still at work there", unclear=True
                    )
                await asyncio.sleep(_LOOK_AGAIN)
            after = await visit.steadily(lambda: self.look(visit))
        except StepError:
            raise
        except SolenoidError as reason:
            why = visit.plain(reason)
            raise StepError(
                f"{lost}; what has become of it cannot be found out: {why}",
                unclear=True,
            ) from reason
        visit.release = running(after)
        return after

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Go back to what ran before, if what runs is what the outcome has made.

        While a connection was down another deployer may have been there.
        """
        found = await visit.steadily(lambda: self.look(visit))
        if (now := running(found)) not in (outcome.release, outcome.before):
            raise StepError(f"another has been there: {now or 'nothing'} runs")
        try:
            await visit.steadily(lambda: self.back_to(visit, outcome.before))
        except StepError as error:
            raise await self.aftermath(visit, {}, error) from error

    async def back_to(self, visit: Visit, release: str | None) -> None:
        """Have an earlier release run again; None is that nothing shall run.

        May be done once more when the connection broke: then the first one may still
        be at work, and is waited for.
        """
        words = ["stop"] if release is None else ["rollback", release]
        await self.ask(visit, *words, wait=self.timeout)

    async def busy(self, visit: Visit) -> bool:
        """Say whether a solenoid is at work there: it holds a lock as long as it is."""
        words = remote(visit.drone, "lock", "busy", {"app_dir": self.on(visit)})
        said = answer(await visit.session.run(words, timeout=60))
        if "busy" not in said:
            raise StepError(f"cannot look: {said['error']}", unclear=True)
        return bool(said["busy"])


def running(status: dict[str, Any]) -> str | None:
    """Return the release that runs, if one does."""
    found = status.get("release") if status.get("running") else None
    return None if found is None else str(found)


def anew(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Say whether something runs that has been started since: the same, or another."""
    if running(after) is None:
        return False
    again = (after.get("start") or {}) != (before.get("start") or {})
    return running(after) != running(before) or again


def found_instead(visit: Visit, lost: SessionError, why: object = None) -> StepError:
    """Return the error of what was lost and has not come to what was asked for."""
    now = visit.release or "nothing"
    if why is None:
        why = f"{now} runs"
    if not visit.alone:
        why = f"{why}, and another has been there meanwhile"
    return StepError(f"{lost}; {why}")


def _more(error: StepError, what: str, unclear: bool) -> StepError:
    return StepError(
        f"{error}; {what}",
        output=error.output,
        blame=error.blame,
        unclear=unclear,
        reply=error.reply,
    )
