# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Have the keeper start its app anew, and wait until it has started.

A keeper of another installation of ours gives way to one of this: an upgrade.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from solenoid._attempt import failed
from solenoid._errors import AbsentError, LaunchError
from solenoid._launch import Launch
from solenoid._record import records
from solenoid._rundir import START_LOG, RunDir
from solenoid._stop import keeper_of
from solenoid._switch import Switched, switch
from solenoid._theirs import json_object, read_tail

if TYPE_CHECKING:
    from pathlib import Path

    from solenoid._keeper import Keeper
    from solenoid._record import Record

_LOOK_AGAIN = 0.05
_SLACK = 15.0
_MOST = 1 << 20


async def restart(run_dir: str | os.PathLike[str]) -> Switched:
    """Start the release that runs anew, with the same keeper, and wait for the app.

    A keeper of another installation of forza is replaced by one of this, as if the
    release were started again. To cancel it does not undo it. Raises AbsentError if
    none runs, StartError if the app does not start; the keeper goes on trying then.
    """
    place = RunDir(run_dir)
    place.must_exist()
    with place.locked() as lock:
        record, keeper = await asyncio.to_thread(_running, place)
        with keeper:
            how = Launch.from_json(record.launch or {})
            if not await asyncio.to_thread(_is_ours, keeper.pid):
                return await switch(place, record.id, how, lock=lock)
            folder = place.release(record.id)
            event = await _anew(folder / START_LOG, keeper, how)
            if event.get("metric") != 1:
                raise failed(folder, how, event)
            return Switched(record.id, event, keeper.pid)


def _running(run_dir: RunDir) -> tuple[Record, Keeper]:
    found = records(run_dir)
    found.sort(key=lambda record: record.id != run_dir.current())
    for record in found:
        keeper = keeper_of(run_dir, record)
        if keeper is not None:
            return record, keeper
    raise AbsentError(f"nothing runs in {run_dir}: see solenoid start")


def _is_ours(pid: int) -> bool:
    """Say whether a keeper would start its app by the forza that is beside us.

    It runs a program of ours while it sleeps, and Python else. Who is not to be seen
    is taken for one of ours.
    """
    try:
        words = [os.readlink(f"/proc/{pid}/exe")]
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words += os.fsdecode(file.read()).split("\0")
    except OSError:
        return True
    ours = (f"{sys.prefix}/", f"{os.path.dirname(os.path.dirname(__file__))}/")
    return any(word.startswith(ours) for word in words)


async def _anew(path: Path, keeper: Keeper, how: Launch) -> dict[str, Any]:
    """Tell the keeper; return the start event that comes of it."""
    before = await asyncio.to_thread(_line, path)
    keeper.send(signal.SIGUSR1)
    deadline = time.monotonic() + how.patience + how.start_timeout + how.stable + _SLACK
    # The keeper has been there before us: nobody could hand a descriptor to its
    # monitor. The start log is replaced whole, and each event has another boot.
    while (line := await asyncio.to_thread(_line, path)) in (before, b""):
        if not keeper.lives():
            raise LaunchError("the keeper has ended: see solenoid status")
        if time.monotonic() > deadline:
            raise LaunchError("no word of the app came in time: see solenoid status")
        await asyncio.sleep(_LOOK_AGAIN)
    event = json_object(line)
    if not event:
        raise LaunchError(f"{path} has no event")
    return event


def _line(path: Path) -> bytes:
    line = read_tail(path, _MOST)
    return line if line.endswith(b"\n") else b""
