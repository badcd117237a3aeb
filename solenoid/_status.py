# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what runs in a run directory, and of what does not, why."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from solenoid._keeper import read_state
from solenoid._record import records
from solenoid._rundir import START_LOG, STATE, RunDir
from solenoid._theirs import json_object, read_tail

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid._record import Record

_RUNNING = ("running", "restarting")
_MOST = 1 << 20
_END_OF_TIME = 1e11


@dataclass(frozen=True, slots=True)
class Status:
    """How an app is: `state` is a word of the keeper's, or `never started`, or `lost`.

    `release` is the one that runs, else the current one, and `sha256` its snapshot's
    digest; `failed` the release that was tried last, if that did not start, and `why`.
    `also` are others that have a keeper, which a solenoid has left that was killed.
    Times are seconds since 1970. `start` is the start event of the monitor that runs,
    None until there is one.
    """

    run_dir: str
    release: str | None
    version: str | None
    running: bool
    state: str
    reason: str | None = None
    since: float | None = None
    keeper: int | None = None
    pid: int | None = None
    restarts: int = 0
    next: float | None = None
    last: Mapping[str, Any] | None = None
    start: Mapping[str, Any] | None = None
    user: str | None = None
    restrict: str | None = None
    failed: str | None = None
    why: str | None = None
    also: tuple[str, ...] = ()
    sha256: str | None = None


async def status(run_dir: str | os.PathLike[str]) -> Status:
    """Look at the app of a run directory. Raises AbsentError if there is none."""
    return await asyncio.to_thread(look, RunDir(run_dir))


def look(run_dir: RunDir) -> Status:
    """Do what `status` does, here and now."""
    run_dir.must_exist()
    known = records(run_dir)
    current = run_dir.current()
    states = {one.id: read_state(run_dir.release(one.id) / STATE) for one in known}
    # The link may not have been moved yet, if a solenoid was killed.
    held = [one for one in known if states[one.id][1]]
    held.sort(key=lambda one: one.id != current)
    shown = held[0] if held else next((x for x in known if x.id == current), None)
    failed = next((x for x in known if x.failed), None)
    if failed is not None and shown is not None and failed.made < shown.made:
        failed = None  # old news: a later one has started since
    if shown is not None:
        found = _of(run_dir, shown, *states[shown.id])
    else:
        found = Status(str(run_dir), current, None, False, "never started")
    found = replace(found, also=tuple(one.id for one in held[1:]))
    if failed is None:
        return found
    return replace(found, failed=failed.id, why=failed.failed)


def _of(run_dir: RunDir, record: Record, state: dict[str, Any], held: bool) -> Status:
    word = str(state.get("state", "never started"))
    reason, keeper = _word(state.get("reason")), _whole(state.get("keeper"))
    last = state.get("last")
    if not held and keeper:
        word, reason, keeper = "lost", f"the keeper is gone, pid {keeper}", None
    launch = record.launch or {}
    return Status(
        str(run_dir),
        record.id,
        record.version,
        held and word in _RUNNING,
        word,
        reason,
        _moment(state.get("since")),
        keeper,
        _whole(state.get("pid")) if held else None,
        _whole(state.get("restarts")) or 0,
        _moment(state.get("next")) if held else None,
        last if isinstance(last, dict) else None,
        _event(run_dir, record) if held else None,
        launch.get("user", {}).get("name"),
        launch.get("policy", {}).get("level"),
        sha256=record.sha256 or None,
    )


# What a keeper writes is in the app's hands: anything may be there.


def _word(found: object) -> str | None:
    return found if isinstance(found, str) else None


def _whole(found: object) -> int | None:
    return found if isinstance(found, int) else None


def _moment(found: object) -> float | None:
    if isinstance(found, int | float) and abs(found) < _END_OF_TIME:
        return found
    return None


def _event(run_dir: RunDir, record: Record) -> dict[str, Any] | None:
    return json_object(read_tail(run_dir.release(record.id) / START_LOG, _MOST)) or None


def sentence(status: Status, now: float) -> str:
    """Say it in one line."""
    words = [status.release or "no release", status.state]
    if status.since is not None and status.state != "lost":
        words[-1] += f" for {_span(now - status.since)}"
    words += _started(status)
    if status.pid:
        words.append(f"pid {status.pid}")
    if status.keeper:
        words.append(f"keeper {status.keeper}")
    if status.user:
        words.append(f"user {status.user}")
    if status.reason:
        words.append(status.reason)
    if status.next is not None:
        words.append(f"next start in {_span(status.next - now)}")
    if status.restarts:
        words.append(f"{status.restarts} restart{'s' if status.restarts > 1 else ''}")
    if status.also:
        words.append(f"{', '.join(status.also)} too, which solenoid start ends")
    if status.failed:
        words.append(f"{status.failed} has failed: {status.why}")
    return ", ".join(words)


def _started(status: Status) -> list[str]:
    """Say where it listens, or that it has not got as far as that."""
    if not status.running:
        return []
    if status.start is None:
        return ["it has not started yet"]
    meta = status.start.get("meta")
    about = meta if isinstance(meta, dict) else {}
    if status.start.get("metric") != 1:
        return [f"it has not started: {about.get('reason')}"]
    places = ("port", "address", "path")
    return [f"{name} {about[name]}" for name in places if name in about]


def _span(seconds: float) -> str:
    left = max(0, round(seconds))
    days, hours, minutes = left // 86400, left % 86400 // 3600, left % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left % 60} s" if minutes else f"{left} s"
