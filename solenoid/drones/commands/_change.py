# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Carry a command to all drones: hooks, progress, record, report, exit status."""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid._errors import UsageError
from solenoid._exits import of_signal
from solenoid._theirs import printable
from solenoid.drones._hooks import Hooked, HookError, run_hook
from solenoid.drones._interrupt import interrupts
from solenoid.drones._progress import listed, progress_on
from solenoid.drones._record import Record, last_run
from solenoid.drones._report import (
    EXIT_ALL,
    EXIT_NONE,
    exit_status,
    json_line,
    last_words,
    put,
    summary,
    table,
)
from solenoid.drones._run import run
from solenoid.drones.commands._options import ssh_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from solenoid.drones._inventory import Drone
    from solenoid.drones._progress import Progress
    from solenoid.drones._result import Step
    from solenoid.drones._rollout import Strategy
    from solenoid.drones._run import Run
    from solenoid.drones._visit import Action

_OUTCOMES = {EXIT_ALL: "all", EXIT_NONE: "none"}


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done, on which drones, and what to call it."""

    action: Action
    drones: Sequence[Drone]
    strategy: Strategy
    # What a run is found again by: who says "the last one" means one of the same.
    scope: str
    about: Mapping[str, str]


def chosen(
    options: argparse.Namespace, verb: str, scope: str, drones: Sequence[Drone]
) -> Sequence[Drone]:
    """Return the drones; with --retry-failed those that were not left as asked for."""
    if not getattr(options, "retry_failed", False):
        return drones
    last = last_run(verb, scope)
    if last is None:
        raise UsageError(f"there is no earlier {verb} to retry: {scope}")
    failed = set(last.unfinished)
    return [drone for drone in drones if drone.name in failed]


async def carry_out(options: argparse.Namespace, change: Change) -> int:
    """Do it; return the status to leave with."""
    verb, names = change.action.verb, [drone.name for drone in change.drones]
    if not names:
        put(sys.stderr, "nothing to do: all drones are as was asked for\n")
        return EXIT_ALL
    told = {"action": verb, "drones": " ".join(names), **change.about}
    if options.before:
        await run_hook("before", options.before, told)
    progress = progress_on(sys.stderr, len(names))
    action: Action = Hooked(
        change.action, options.before_each, options.after_each, told
    )
    left: list[str] = []
    with ExitStack() as stack, Record(verb, change.scope, names, change.about) as kept:
        stack.callback(progress.close)
        if kept.trouble:
            progress.say(f"this run is not written down: {kept.trouble}")

        def step(step: Step) -> None:
            kept.begun(step.drone)
            progress.step(step)

        what = _what(verb, change.about)
        async with ssh_of(options) as ssh:
            going = run(
                change.drones,
                action,
                change.strategy,
                ssh=ssh,
                what=what,
                wait=options.wait,
                parallel=options.parallel,
                on_step=step,
                on_batch=progress.batch,
            )
            with interrupts(
                lambda: _stop(going, progress),
                lambda: left.extend(_leave(going, progress)),
            ):
                await _follow(going, kept, progress, as_json=options.json)
    return await _report(options, going, kept, told, left)


async def _follow(
    run: Run, record: Record, progress: Progress, *, as_json: bool
) -> None:
    stopped = ""
    async for result in run:
        if run.rollout.stopped and not stopped:
            stopped = run.rollout.stopped
            progress.say(f"stopped: {stopped}")
        record.result(result)
        progress.result(result)
        if as_json:
            put(sys.stdout, json_line(result.as_dict()))


async def _report(
    options: argparse.Namespace,
    run: Run,
    record: Record,
    told: Mapping[str, str],
    left: Sequence[str],
) -> int:
    results = [run.results[name] for name in run.drones if name in run.results]
    status = of_signal(signal.SIGINT) if left else exit_status(results)
    if options.json:
        counts = {"summary": summary(results), "status": status}
        line = {**counts, "stopped": run.rollout.stopped, "record": str(record.path)}
        put(sys.stdout, json_line(line))
    else:
        put(sys.stderr, last_words(one for one in results if not one.ok))
        put(sys.stdout, last_words(one for one in results if one.ok) + table(results))
        put(sys.stderr, f"{summary(results)}\n")
    if status not in (EXIT_ALL, of_signal(signal.SIGINT)):
        put(
            sys.stderr,
            "to try those again that are not done: the same with --retry-failed\n",
        )
    if options.after:
        outcome = _OUTCOMES.get(status, "some")
        good = " ".join(result.drone for result in results if result.ok)
        bad = " ".join(result.drone for result in results if not result.ok)
        more = {"outcome": outcome, "done": good, "failed": bad}
        try:
            await run_hook(
                "after", options.after, {**told, **more, "record": record.path}
            )
        except HookError as error:  # what is done on the drones is done
            put(sys.stderr, f"{printable(error.output)}\nsolenoid: {error}\n")
    return status


def _what(verb: str, about: Mapping[str, str]) -> str:
    named = (about.get("app"), about.get("version"))
    return " ".join((verb, *(word for word in named if word)))


def _stop(run: Run, progress: Progress) -> None:
    run.stop("interrupted")
    busy = sorted(run.busy)
    if busy:
        progress.say(
            f"interrupted: no other drone begins; waiting for {listed(busy)}"
            " (once more to leave them)"
        )


def _leave(run: Run, progress: Progress) -> list[str]:
    steps = run.abandon()
    if steps:
        where = ", ".join(f"{step.drone} ({step.step})" for step in steps)
        progress.say(f"left in the middle: {where}; see solenoid status --drones ...")
    return [step.drone for step in steps]
