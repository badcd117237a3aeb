# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What else can be done on a drone: stop, restart, go back, run a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._place import running
from solenoid.drones._probe import wait_healthy
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solenoid.drones._inventory import Probe
    from solenoid.drones._place import Place
    from solenoid.drones._visit import Visit


class Stop:
    """Stop the app."""

    verb = "stop"
    undoable = False

    def __init__(self, place: Place) -> None:
        self._place, self.run_dir = place, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Stop it; where none runs, that is well, too."""
        await self._place.prepare(visit)
        visit.step("look")
        before = await self._place.look(visit)
        if not before:
            return Outcome()
        visit.step("stop")
        visit.changing = True
        reply = await self._place.ask(visit, "stop")
        visit.changing = False
        return Outcome(bool(before.get("running")), None, running(before), reply=reply)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: who stopped an app meant it."""


class Restart:
    """Restart the app, and let it through the probe, if there is one."""

    verb = "restart"
    undoable = False

    def __init__(self, place: Place, *, probe: Probe | None = None) -> None:
        self._place, self._probe, self.run_dir = place, probe, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Restart it."""
        await self._place.prepare(visit)
        visit.step("restart")
        visit.changing = True
        event = await self._place.ask(visit, "restart")
        after = await visit.steadily(lambda: self._place.look(visit))
        visit.changing = False  # the same release runs, well or not
        if self._probe is not None:
            visit.step("probe", self._probe.path)
            port = (after.get("start") or event).get("meta", {}).get("port")
            await wait_healthy(self._probe, visit.session, port)
        return Outcome(True, running(after), running(after), reply=event)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: it is the same app."""


class Rollback:
    """Go back to the last good release, or to one by name."""

    verb = "rollback"
    undoable = True

    def __init__(self, place: Place, release: str | None = None) -> None:
        self._place, self._release, self.run_dir = place, release, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Go back."""
        await self._place.prepare(visit)
        visit.step("look")
        before = await self._place.look(visit)
        visit.step("rollback", self._release or "")
        visit.changing = True
        words = [self._release] if self._release else []
        try:
            reply = await self._place.ask(visit, "rollback", *words)
        except StepError as error:
            error.unclear = not await self._place.is_as(visit, before)
            raise
        after = await visit.steadily(lambda: self._place.look(visit))
        visit.changing = False
        return Outcome(True, running(after), running(before), reply=reply)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Go forth again."""
        await self._place.undo(visit, outcome)


class Command:
    """Run any command; status 0 is well."""

    verb = "run"
    run_dir = None
    undoable = False

    def __init__(
        self, argv: Sequence[str], *, input: bytes = b"", timeout: float | None = 600.0
    ) -> None:
        self._argv, self._input, self._timeout = argv, input, timeout

    async def do(self, visit: Visit) -> Outcome:
        """Run it to its end."""
        visit.step("run", self._argv[0])
        ended = await visit.session.run(
            self._argv, input=self._input, timeout=self._timeout
        )
        said = (ended.stdout + ended.stderr).decode("utf-8", "replace")
        if ended.status:
            raise StepError(f"{self._argv[0]}: status {ended.status}", output=said)
        return Outcome(output=said, reply={"status": 0})

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: nobody knows how."""
