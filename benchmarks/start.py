# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""How soon the app runs, and how soon the first event is on the wire."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import UnavailableError, compiled, forza_python
from benchmarks.harness.cell import Cell, GaveUpError
from benchmarks.harness.commandline import installed, parser
from benchmarks.harness.quiet import PATIENCE, QUICK_PATIENCE, Patience
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.statistics import median, percentile
from benchmarks.harness.subjects import Forza, Subject

BENCHMARK = "start"
TIMEOUT = 20.0
FLOOR = "python -I -S -c pass"
PEERS_EVERY = 5  # rounds: they take a hundred times as long
YARDSTICKS = ("C pump", "honcho", "cat")
SPAWN = "import posix, sys; posix.posix_spawn(sys.argv[1], sys.argv[1:], posix.environ)"


class Direct(Subject):
    """The app alone."""

    name = "no monitor"
    shows = "CMD"

    def start(self, cell: Cell) -> None:
        for app in self.apps:
            cell.spawn(app)


class BarePython(Subject):
    """An interpreter that does nothing: what every Python program costs at least."""

    name = FLOOR
    shows = FLOOR

    def install(self) -> None:
        self.python = forza_python()

    def start(self, cell: Cell) -> None:
        cell.spawn([self.python, "-I", "-S", "-c", "pass"]).wait()


class SpawningPython(BarePython):
    """The least that a monitor written in Python could do."""

    name = "python -I -S that spawns"
    shows = "python -I -S -c 'posix_spawn(CMD)'"

    def start(self, cell: Cell) -> None:
        for app in self.apps:
            cell.spawn([self.python, "-I", "-S", "-c", SPAWN, *app])


class PythonWithSite(BarePython):
    """The interpreter as `python -m forza` finds it, with site and -m."""

    name = "python -m that does nothing"
    shows = "python -m __future__"

    def start(self, cell: Cell) -> None:
        cell.spawn([self.python, "-m", "__future__"]).wait()


class ForzaScript(Forza):
    """The installed script."""

    name = "forza, installed script"
    shows = Forza.shows.replace("python -m forza", "forza")

    def install(self) -> None:
        script = forza_python().parent / "forza"
        if not script.exists():
            raise UnavailableError("the forza script is not installed")
        self.words = (str(script),)


WITHOUT_APP = (BarePython.name, PythonWithSite.name)
FLOORS: tuple[Subject, ...] = (
    Direct(),
    BarePython(),
    SpawningPython(),
    PythonWithSite(),
    ForzaScript(),
)


@dataclass
class Times:
    """Milliseconds from exec, one for each round."""

    app: list[float] = field(default_factory=list)
    event: list[float] = field(default_factory=list)
    failure: str = ""


def main() -> None:
    options = parser(
        "Milliseconds from the exec of the monitor to the app's first instruction,"
        " and to the first event at the receiver; as ratios to"
        f" `{FLOOR}` (to its end) in the same interleaved rounds.",
        "python benchmarks/start.py --subjects forza",
    )
    options.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help=f"repeats; peers join in one of {PEERS_EVERY} (default 25; quick: 10)",
    )
    given = options.parse_args()
    rounds = given.rounds or (10 if given.quick else 25)
    floors = installed(BENCHMARK, list(FLOORS))
    subjects = installed(BENCHMARK, given.subjects, without=YARDSTICKS)
    times = {subject.name: Times() for subject in [*floors, *subjects]}
    patience = Patience(QUICK_PATIENCE if given.quick else PATIENCE)
    for turn in range(-1, rounds):  # the first fills the page cache and is dropped
        note(f"start: round {turn + 1} of {rounds}")
        for subject in [*floors, *subjects]:
            if turn % PEERS_EVERY and not (subject in floors or subject.is_forza):
                continue
            patience.wait()
            try:
                app, event = once(subject)
            except GaveUpError as error:
                times[subject.name].failure = str(error)
                continue
            if turn >= 0:
                times[subject.name].app.append(app)
                if event is not None:
                    times[subject.name].event.append(event)
    floor = median(times[FLOOR].app)
    for subject in [*floors, *subjects]:
        report(subject, times[subject.name], floor)


def report(subject: Subject, times: Times, floor: float | None) -> None:
    """Write the medians and their ratios to the bare interpreter."""
    values: Result = {"rounds": len(times.app)}
    for name, milliseconds in (("app", times.app), ("first_event", times.event)):
        middle = median(milliseconds)
        if middle is not None:
            values[f"{name}_ms"] = round(middle, 2)
            values[f"{name}_min_ms"] = round(min(milliseconds), 2)
            values[f"{name}_p90_ms"] = percentile(milliseconds, 90)
            if floor:
                values[f"{name}_of_bare_python"] = round(middle / floor, 2)
    if times.failure:
        values["failed"] = times.failure
    emit(
        BENCHMARK, subject.name, {**values, "ran": subject.shows, "note": subject.note}
    )


def once(subject: Subject) -> tuple[float, float | None]:
    """Return the milliseconds to the app, and to the first event if there is one."""
    with Cell(grace=0.05) as cell, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stamp = cell.path / "stamp"
        os.mkfifo(stamp)
        fifo = os.open(stamp, os.O_RDWR | os.O_CLOEXEC)
        try:
            app = [str(compiled("app")), "stamp", str(cell.pids), str(stamp)]
            subject.prepare(cell, [app], listener.getsockname()[1])
            begun = time.monotonic_ns()
            subject.start(cell)
            if subject.name in WITHOUT_APP:
                return (time.monotonic_ns() - begun) / 1e6, None
            first = first_instruction(fifo, cell) - begun
            event = first_event(listener, cell) - begun if subject.is_forza else None
        finally:
            os.close(fifo)
        subject.stop(cell)
    return first / 1e6, None if event is None else event / 1e6


def first_instruction(fifo: int, cell: Cell) -> int:
    """Return the clock that the app has read."""
    if not select.select([fifo], [], [], TIMEOUT)[0]:
        raise GaveUpError(f"the app did not start\n{cell.output()}")
    return int(os.read(fifo, 64))


def first_event(listener: socket.socket, cell: Cell) -> int:
    """Return the clock when the first bytes have come."""
    listener.settimeout(TIMEOUT)
    try:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(TIMEOUT)
            connection.recv(4096)
    except TimeoutError:
        raise GaveUpError(f"no event came\n{cell.output()}") from None
    return time.monotonic_ns()


if __name__ == "__main__":
    main()
