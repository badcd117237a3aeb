# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know where an app is on a drone, and have solenoid there do things with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solenoid._errors import SolenoidError
from solenoid.drones._ask import ask
from solenoid.drones._bootstrap import ensure_solenoid
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from solenoid.drones._visit import Visit
    from solenoid.drones._wheelhouse import Wheelhouse


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app is on a drone, and how solenoid is asked about it.

    In `run_dir` a drone's variables are filled in: `/srv/{disk}/shop`.

    Solenoid itself comes from the `wheelhouse`; without one it has to be there, and
    `solenoid` are the words that run it. It may take `timeout` seconds for anything.
    """

    run_dir: str
    wheelhouse: Wheelhouse | None = None
    solenoid: tuple[str, ...] = ()
    timeout: float = 600.0

    def on(self, visit: Visit) -> str:
        """Return the run directory on the drone of a visit."""
        return visit.drone.fill(self.run_dir)

    async def ask(
        self, visit: Visit, verb: str, *options: str, input: bytes = b""
    ) -> dict[str, Any]:
        """Have solenoid do a verb on the app; return its answer."""
        await self.prepare(visit)
        words = [*visit.solenoid, verb, *options, "--run-dir", self.on(visit)]
        accept = (0, 1) if verb == "status" else (0,)
        return await ask(
            visit.session, words, input=input, timeout=self.timeout, accept=accept
        )

    async def prepare(self, visit: Visit) -> None:
        """Have solenoid on the drone, once in a visit."""
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

    async def is_as(self, visit: Visit, before: dict[str, Any]) -> bool:
        """Say whether what runs is what ran before, after something has failed."""
        try:
            return running(await self.look(visit)) == running(before)
        except SolenoidError:
            return False

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Go back to what ran before, if what runs is what the outcome has made.

        While a connection was down another deployer may have been there.
        """
        now = running(await visit.steadily(lambda: self.look(visit)))
        if now not in (outcome.release, outcome.before):
            raise StepError(f"another has been there: {now or 'nothing'} runs")
        await visit.steadily(lambda: self.back_to(visit, outcome.before))

    async def back_to(self, visit: Visit, release: str | None) -> None:
        """Have an earlier release run again; None is that nothing shall run."""
        if release is None:
            await self.ask(visit, "stop")
        else:
            await self.ask(visit, "rollback", release)

    async def busy(self, visit: Visit) -> bool:
        """Say whether a solenoid is at work there: it holds a lock as long as it is."""
        words = ["flock", "-n", f"{self.on(visit)}/lock", "true"]
        return (await visit.session.run(words, timeout=60)).status == 1


def running(status: dict[str, Any]) -> str | None:
    """Return the release that runs, if one does."""
    found = status.get("release") if status.get("running") else None
    return None if found is None else str(found)
