# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a monitor costs while nothing happens: CPU time and wake-ups."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import BENCHMARKS, UnavailableError, node
from benchmarks.harness.cell import Cell, GaveUpError
from benchmarks.harness.commandline import installed, parser
from benchmarks.harness.receivers import Receiver
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.sampling import usage_of
from benchmarks.harness.subjects import Subject

BENCHMARK = "idle"
YARDSTICKS = ("C pump", "honcho", "cat")


def main() -> None:
    options = parser(
        "CPU time and wake-ups (voluntary context switches) of monitors over idle"
        " node apps. All subjects idle side by side, one app each, so that they share"
        " the machine's noise.",
        "python benchmarks/idle.py --seconds 300 --subjects forza",
    )
    options.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="how long to watch (default 60; quick: 20)",
    )
    options.add_argument(
        "--settle",
        type=float,
        metavar="S",
        help="how long to leave them alone before (default 30; quick: 18)",
    )
    given = options.parse_args()
    watch(installed(BENCHMARK, given.subjects, without=YARDSTICKS), given)


def watch(subjects: list[Subject], given: argparse.Namespace) -> None:
    """Start all, let them settle, and compare two readings of each."""
    seconds = given.seconds or (20 if given.quick else 60)
    settle = given.settle or (18 if given.quick else 30)
    running: list[tuple[Subject, Cell]] = []
    with ExitStack() as stack:
        for subject in subjects:
            note(f"idle: starting {subject.name}")
            receiver = stack.enter_context(Receiver())
            cell = stack.enter_context(Cell())
            try:
                words = (node(), BENCHMARKS / "node/idle.js", cell.pids)
                app = [str(word) for word in words]
                subject.prepare(cell, [app], receiver.port)
                subject.start(cell)
                cell.wait_for_apps(1)
                running.append((subject, cell))
            except (GaveUpError, UnavailableError) as error:
                emit(BENCHMARK, subject.name, {"failed": str(error)})
        note(f"idle: settling for {settle:.0f} s, then watching for {seconds:.0f} s")
        time.sleep(settle)
        monitors = [cell.monitors() for _, cell in running]
        before = [usage_of(pids) for pids in monitors]
        time.sleep(seconds)
        used = [
            usage_of(pids) - then for pids, then in zip(monitors, before, strict=True)
        ]
        for (subject, cell), usage, pids in zip(running, used, monitors, strict=True):
            values: Result = {
                "seconds": round(usage.when, 1),
                "cpu_ms_per_s": round(usage.cpu / usage.when * 1000, 4),
                "cpu_percent": round(usage.cpu / usage.when * 100, 4),
                "wakeups_per_s": round(usage.wakeups / usage.when, 3),
                "processes": len(pids),
                "ran": subject.shows,
                "note": subject.note,
            }
            emit(BENCHMARK, subject.name, values)
            subject.stop(cell)


if __name__ == "__main__":
    main()
