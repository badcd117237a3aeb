# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What else can be done on a drone: stop, restart, go back, run a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._errors import SessionError
from solenoid.drones._place import anew, found_instead, running
from solenoid.drones._probe import port_of, wait_healthy
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from solenoid.drones._inventory import Probe
    from solenoid.drones._place import Place
    from solenoid.drones._visit import Visit


class Stop:
    """Stop the app."""

    verb = "stop"
    undoable = False
    makes = False

    def __init__(self, place: Place) -> None:
        self._place, self.run_dir = place, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Stop it; where none runs, that is well, too."""
        place = self._place
        if visit.absent:
            return Outcome(warning=place.nothing(visit))
        await place.prepare(visit)
        visit.step("look")
        before = await place.look(visit)
        visit.release = running(before)
        if not before:
            return Outcome(warning=place.nothing(visit))
        visit.step("stop")
        visit.changing = True
        try:
            reply = await place.ask(visit, "stop")
        except SessionError as lost:
            reply = await place.settled(visit, lost)
            if running(reply) is not None:
                raise found_instead(visit, lost) from lost
        except StepError as error:
            raise await place.aftermath(visit, before, error) from error
        visit.changing = False
        return Outcome(bool(before.get("running")), None, running(before), reply=reply)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: who stopped an app meant it."""


class Restart:
    """Restart the app, and let it through the probe, if there is one."""

    verb = "restart"
    undoable = False
    makes = False

    def __init__(self, place: Place, *, probe: Probe | None = None) -> None:
        self._place, self._probe, self.run_dir = place, probe, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Restart it."""
        place = self._place
        await place.prepare(visit)
        visit.step("look")
        before = await place.look(visit)
        visit.release = running(before)
        visit.step("restart")
        visit.changing = True
        try:
            event = await place.ask(visit, "restart")
        except SessionError as lost:
            after = await place.settled(visit, lost)
            same = running(after) == running(before)
            if not (same and anew(before, after)):
                raise found_instead(visit, lost) from lost
            event = after.get("start") or {}
        except StepError as error:
            raise await place.aftermath(visit, before, error) from error
        else:
            after = await visit.steadily(lambda: place.look(visit))
        visit.changing = False  # the same release runs, well or not
        if self._probe is not None:
            visit.step("probe", self._probe.path)
            port = port_of(after.get("start") or event)
            await wait_healthy(self._probe, visit.session, port)
        return Outcome(True, running(after), running(after), reply=event)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: it is the same app."""


class Rollback:
    """Go back to the last good release, or to one by name."""

    verb = "rollback"
    undoable = True
    makes = False

    def __init__(self, place: Place, release: str | None = None) -> None:
        self._place, self._release, self.run_dir = place, release, place.run_dir

    async def do(self, visit: Visit) -> Outcome:
        """Go back."""
        place = self._place
        await place.prepare(visit)
        visit.step("look")
        before = await place.look(visit)
        visit.release = running(before)
        visit.step("rollback", self._release or "")
        visit.changing = True
        words = [self._release] if self._release else []
        try:
            reply = await place.ask(visit, "rollback", *words)
        except SessionError as lost:
            after = await place.settled(visit, lost)
            if not (visit.alone and anew(before, after) and self._is_meant(after)):
                raise found_instead(visit, lost) from lost
            reply = after.get("start") or {}
        except StepError as error:
            raise await place.aftermath(visit, before, error) from error
        else:
            after = await visit.steadily(lambda: place.look(visit))
        visit.changing = False
        return Outcome(True, running(after), running(before), reply=reply)

    def _is_meant(self, status: dict[str, Any]) -> bool:
        """Say whether what runs is what was asked for."""
        names = (None, status.get("release"), status.get("version"))
        return self._release in names

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Go forth again."""
        await self._place.undo(visit, outcome)


class Command:
    """Run any command; status 0 is well."""

    verb = "run"
    run_dir = None
    undoable = False
    makes = False

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
