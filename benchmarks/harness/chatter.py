# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""How much longer an app takes that prints short lines, one console.log each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median as exact_median

from .cache import BENCHMARKS, UnavailableError, node
from .cell import Cell, GaveUpError, wait_until
from .quiet import PATIENCE, QUICK_PATIENCE, Patience
from .receivers import Receiver, black_hole, refusing_port
from .results import Result, emit, note
from .statistics import median
from .subjects import Cat, Subject

__all__ = ["app_speed"]

LINES = 200_000
TIMEOUT = 120.0


class ToFile(Subject):
    """No monitor: the app's stdout is a file."""

    name = "file"
    shows = "CMD > FILE"

    def start(self, cell: Cell) -> None:
        for app in self.apps:
            with (cell.path / "app.out").open("wb") as out:
                cell.spawn(app, stdout=out)


@contextmanager
def up() -> Iterator[int]:
    """Yield the port of a receiver that reads."""
    with Receiver() as receiver:
        yield receiver.port


@contextmanager
def stalled() -> Iterator[int]:
    """Yield the port of a receiver that accepts and never reads."""
    with Receiver() as receiver:
        receiver.toggle_stall()
        yield receiver.port


@contextmanager
def refused() -> Iterator[int]:
    """Yield a port that refuses."""
    yield refusing_port()


RECEIVERS = {
    "receiver up": up,
    "connection refused": refused,
    "black hole": black_hole,
    "receiver stalled": stalled,
}


@dataclass
class Case:
    """One way to run the app, and how long it took each time."""

    subject: Subject
    receiver: str
    seconds: list[float] = field(default_factory=list)
    failure: str = ""


def app_speed(benchmark: str, monitors: list[Subject], quick: bool, turns: int) -> None:
    """Time the same node app in interleaved rounds and report ratios."""
    lines = LINES // 4 if quick else LINES
    to_file, cat = Case(ToFile(), "receiver up"), Case(Cat(), "receiver up")
    cases = [to_file, cat]
    cases += [Case(monitor, where) for monitor in monitors for where in RECEIVERS]
    patience = Patience(QUICK_PATIENCE if quick else PATIENCE)
    for turn in range(turns):
        # Each round begins elsewhere, so that none always follows the same one.
        for case in cases[turn % len(cases) :] + cases[: turn % len(cases)]:
            note(f"{benchmark}: {case.subject.name}, {case.receiver}, {turn + 1}")
            patience.wait()
            try:
                case.seconds.append(app_seconds(case, lines))
            except (GaveUpError, UnavailableError) as error:
                case.failure = str(error)
    for case in cases:
        values: Result = {"part": "app", "receiver": case.receiver, "lines": lines}
        values |= {"rounds": len(case.seconds), "app_s": median(case.seconds)}
        if case.seconds and to_file.seconds and cat.seconds:
            values["of_file"] = ratio(case.seconds, to_file.seconds)
            values["of_cat"] = ratio(case.seconds, cat.seconds)
        if case.failure:
            values["failed"] = case.failure
        emit(benchmark, case.subject.name, {**values, "ran": case.subject.shows})


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Compare medians."""
    return round(exact_median(ours) / exact_median(theirs), 3)


def app_seconds(case: Case, lines: int) -> float:
    """Run the app once and return how long its loop took by its own clock."""
    with RECEIVERS[case.receiver]() as port, Cell() as cell:
        result = cell.path / "app-ns"
        script = BENCHMARKS / "node/chatty.js"
        words = (node(), script, cell.pids, cell.closed_gate(), lines, result)
        case.subject.prepare(cell, [[str(word) for word in words]], port)
        case.subject.start(cell)
        cell.wait_for_apps(1)
        time.sleep(1)
        cell.open_gate()
        wait_until(result.exists, TIMEOUT, "the end of the app's loop")
        return int(result.read_text()) / 1e9
