# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Go from the release that runs to another, and back if that one does not start.

The switch has a process of its own, in a session of its own and with the run
directory's lock: whoever has asked for it may be killed, or lose the connection, and
what was begun is still brought to an end, good or bad. SIGTERM makes it go back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from solenoid._errors import (
    LaunchError,
    StartError,
    StopError,
)
from solenoid._launch import Launch
from solenoid._python import isolated
from solenoid._report import Silence
from solenoid._rundir import RunDir

if TYPE_CHECKING:
    from solenoid._app import Order
    from solenoid._report import Report

_ERRORS = {"launch": LaunchError, "start": StartError}


@dataclass(frozen=True, slots=True)
class Switched:
    """A release that runs, its start event, and its keeper's pid."""

    release: str
    event: dict[str, Any]
    keeper: int


async def switch(
    run_dir: RunDir,
    release: str,
    how: Launch,
    *,
    lock: int,
    order: Order = "stop-first",
    report: Report | None = None,
) -> Switched:
    """Start a release in the place of the one that runs, if one does.

    `stop-first` ends that one before, and starts it again if the new one does not
    start; `start-first` ends it afterwards. `lock` is the run directory's, as `locked`
    yields it. When cancelled, the release of before runs.

    Raises StartError or LaunchError, whose `running` says which release runs; StopError
    if the old one cannot be ended.
    """
    told = report or Silence()
    plan = {
        "run_dir": str(run_dir),
        "release": release,
        "launch": how.to_json(),
        "order": order,
    }
    child = await asyncio.create_subprocess_exec(
        *isolated("solenoid._switcher"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        # Nothing of ours is for those that it starts, credentials least of all.
        env={"PATH": os.environ.get("PATH", os.defpath)},
        pass_fds=(lock,),
        start_new_session=True,
    )
    ended = asyncio.ensure_future(_listen(child, plan, told))
    try:
        found = await asyncio.shield(ended)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await asyncio.wait([ended])
        raise
    return _result(release, found)


async def _listen(
    child: asyncio.subprocess.Process, plan: dict[str, Any], told: Report
) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(plan).encode() + b"\n")
    with contextlib.suppress(ConnectionError):
        await child.stdin.drain()
    found: dict[str, Any] = {}
    async for line in child.stdout:
        said = json.loads(line)
        if "warn" in said:
            told.warn(said["warn"])
        elif "info" in said:
            told.info(said["info"])
        else:
            found = said
    status = await child.wait()
    return found or {
        "step": "launch",
        "error": f"the switch was ended with {status}: see solenoid status",
    }


def _result(release: str, found: dict[str, Any]) -> Switched:
    if "event" in found and "step" not in found:
        return Switched(release, found["event"], found["keeper"])
    message, blame = found["error"], found.get("blame")
    if found["step"] not in _ERRORS:
        raise StopError(message, blame=blame)
    given = {"output": found.get("output", ""), "running": found.get("running")}
    if found["step"] == "start":
        raise StartError(message, blame=blame, event=found.get("event"), **given)
    raise LaunchError(message, blame=blame, **given)
