# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Look at all apps of a drone at once, by the files that their keepers leave."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid.drones._remote import remote
from solenoid.drones._visit import Outcome, StepError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solenoid.drones._visit import Visit


class Look:
    """An action that changes nothing: `reply["apps"]` has a status for each app.

    It needs no solenoid on the drone, and reads all apps in one process, whether their
    keepers live or not. `run_dirs` are run directories, or folders full of them.
    """

    verb = "status"
    run_dir = None
    undoable = False
    makes = False

    def __init__(self, run_dirs: Sequence[str], *, timeout: float = 60.0) -> None:
        self._run_dirs = run_dirs
        self._timeout = timeout

    async def do(self, visit: Visit) -> Outcome:
        """Look."""
        visit.step("look")
        places = [visit.drone.fill(place) for place in self._run_dirs]
        words = remote(visit.drone, "apps", "look", {"run_dirs": places})
        ended = await visit.session.run(words, timeout=self._timeout)
        if ended.status:
            said = ended.stderr.decode("utf-8", "replace")
            raise StepError(f"status {ended.status}", output=said)
        apps = []
        for line in ended.stdout.splitlines():
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and "run_dir" in found:
                    apps.append(found)
        return Outcome(reply={"apps": apps})

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: nothing was done."""
