# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the operator's own commands around a change, on the operator's machine."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from solenoid._errors import SolenoidError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid.drones._visit import Action, Outcome, Visit


class HookError(SolenoidError):
    """A hook failed; `output` is the end of what it said."""

    step = "hook"
    blame = "user"

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


async def run_hook(name: str, command: str, told: Mapping[str, object]) -> str:
    """Run a command line by sh, with SOLENOID_... variables that tell what it is about.

    Returns what it has said. Raises HookError if it fails. A hook that is cancelled is
    killed with all that it has started.
    """
    variables = {f"SOLENOID_{key.upper()}": str(value) for key, value in told.items()}
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", command),
        env={**os.environ, "SOLENOID_HOOK": name, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C is for us: a hook in the middle of its work goes on to its end.
        start_new_session=True,
    )
    try:
        said, _ = await child.communicate()
    except asyncio.CancelledError:
        os.killpg(child.pid, 9)
        await child.wait()
        raise
    output = said.decode("utf-8", "replace")
    if child.returncode:
        status = child.returncode
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise HookError(f"the hook {name} ended with {how}: {command}", output[-4096:])
    return output


class Hooked:
    """An action with commands of the operator's around it, on each drone.

    What comes after, comes after a failure, too: whoever was taken out of a load
    balancer is put back. If the first one fails, the drone is left alone.
    """

    def __init__(
        self,
        action: Action,
        before: str | None,
        after: str | None,
        told: Mapping[str, object],
    ) -> None:
        self.verb, self.run_dir = action.verb, action.run_dir
        self.undoable, self.makes = action.undoable, action.makes
        self._action, self._before, self._after = action, before, after
        self._told = told

    async def do(self, visit: Visit) -> Outcome:
        """Do it, hooks around it, unless there is no app for it."""
        if visit.absent:
            return await self._action.do(visit)
        await self._hook(visit, "before-each", self._before)
        try:
            done = await self._action.do(visit)
        except Exception:
            # What went wrong first is what counts.
            await self._afterwards(visit, "failed")
            raise
        return replace(done, warning=await self._afterwards(visit, "done"))

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Take it back, hooks around it; that one of them fails is no reason not to."""
        with suppress(HookError):
            await self._hook(visit, "before-each", self._before)
        try:
            await self._action.undo(visit, outcome)
        finally:
            await self._afterwards(visit, "undone")

    async def _afterwards(self, visit: Visit, outcome: str) -> str:
        """Run the last hook; what is done stays done if that fails, but it is said."""
        step = visit.at
        try:
            await self._hook(visit, "after-each", self._after, outcome=outcome)
        except HookError as error:
            return str(error)
        finally:
            visit.at = step  # where it failed, if it did
        return ""

    async def _hook(
        self, visit: Visit, name: str, command: str | None, **more: object
    ) -> None:
        if command is None:
            return
        visit.tell(name)
        drone = visit.drone
        about = {"drone": drone.name, "host": drone.host, **more}
        await run_hook(name, command, {**self._told, **about})
