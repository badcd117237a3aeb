# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start a release on a drone, with nothing between it and the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solenoid._errors import SolenoidError
from solenoid.drones._errors import SessionError
from solenoid.drones._place import anew, found_instead, running
from solenoid.drones._probe import ProbeError, port_of, wait_healthy
from solenoid.drones._snapshot import Present
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solenoid.drones._inventory import Probe
    from solenoid.drones._place import Place
    from solenoid.drones._snapshot import Snapshot
    from solenoid.drones._visit import Visit


class Start:
    """Start a snapshot as a new release, and let it through the gate.

    The gate is solenoid's own on the drone, the start event, and then the `probe`, if
    there is one. What fails there goes back to what ran before, and so does `undo`.
    """

    undoable = True

    def __init__(
        self,
        place: Place,
        snapshot: Snapshot,
        *,
        options: Sequence[str] = (),
        environ: bytes | None = None,
        probe: Probe | None = None,
        verb: str = "start",
    ) -> None:
        self.verb, self.run_dir = verb, place.run_dir
        self._place, self._snapshot, self._probe = place, snapshot, probe
        self._options, self._environ = options, environ
        self.makes = not isinstance(snapshot, Present)

    async def do(self, visit: Visit) -> Outcome:
        """Look at what runs, bring the snapshot, start it, ask whether it is well."""
        place = self._place
        await place.prepare(visit)
        visit.step("look")
        before = await place.look(visit)
        visit.release = running(before)
        visit.step("send", self._snapshot.about)
        async with self._snapshot.on(visit, place.on(visit)) as (words, secret):
            visit.step("start")
            visit.changing = True
            options = [*words, *self._options]
            environ = self._environ or b""
            if self._environ is not None:
                options += ["--env-file", "-"]
            try:
                event = await place.ask(
                    visit, "start", *options, input=secret + environ
                )
            except SessionError as error:
                event = await self._sort_out(visit, before, error)
            except StepError as error:
                raise await place.aftermath(visit, before, error) from error
        after = await visit.steadily(lambda: place.look(visit))
        await self._gate(visit, before, event)
        visit.changing = False
        return Outcome(True, running(after), running(before), reply=event)

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Go back to what ran before; stop the app if nothing did."""
        await self._place.undo(visit, outcome)

    async def _gate(
        self, visit: Visit, before: dict[str, Any], event: dict[str, Any]
    ) -> None:
        if self._probe is None:
            return
        visit.step("probe", self._probe.path)
        try:
            await wait_healthy(self._probe, visit.session, port_of(event))
        except (ProbeError, SessionError) as error:
            release, output = running(before), getattr(error, "output", "")
            try:
                await visit.steadily(lambda: self._place.back_to(visit, release))
            except SolenoidError as reason:
                why = f"{error}; and it cannot be taken back: {reason}"
                raise StepError(why, output=output, unclear=True) from error
            raise StepError(str(error), output=output, blame=error.blame) from error

    async def _sort_out(
        self, visit: Visit, before: dict[str, Any], lost: SessionError
    ) -> dict[str, Any]:
        """Find out how a start ended that nobody could watch to its end."""
        after = await self._place.settled(visit, lost)
        failed = after.get("failed")
        why = after.get("why") if failed != before.get("failed") else None
        ours = self._snapshot.is_in(after)
        # Where its digest is not known, it is ours if nobody else can have been there.
        ours = visit.alone if ours is None else ours
        # The same snapshot is the same release: then it has to have started anew.
        if ours and anew(before, after) and not why:
            return dict(after.get("start") or {})
        raise found_instead(visit, lost, why) from lost
