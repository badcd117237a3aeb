# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a monitor holds in memory: idle, after a burst, before a stalled sink."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import (
    BENCHMARKS,
    UnavailableError,
    compiled,
    node,
    share_no_libpython,
)
from benchmarks.harness.cell import Cell, GaveUpError, wait_until
from benchmarks.harness.commandline import installed, numbers, parser
from benchmarks.harness.flood import Flood
from benchmarks.harness.receivers import Receiver
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.sampling import forget_peaks, memory_of, peak_of
from benchmarks.harness.subjects import Subject

BENCHMARK = "memory"
BURST_LINES = 1_000_000
STALL_LINES = 20_000_000
PARTS = ("idle", "burst", "stall")
YARDSTICKS = ("C pump", "honcho")


def main() -> None:
    share_no_libpython()
    options = parser(
        "Memory of the monitor's processes, the app's own left out: resident (RSS),"
        " proportional (PSS), private (USS) and anonymous, for each drone. A drone is"
        " one app with one monitor, or one more app under a shared daemon.",
        "python benchmarks/memory.py --subjects forza,pm2 --drones 1,10",
    )
    options.add_argument(
        "--drones",
        type=numbers,
        metavar="N[,N]",
        help="how many apps at once (default 1,10,100; quick: 1,10,30)",
    )
    options.add_argument(
        "--idle",
        type=float,
        metavar="S",
        help="seconds before a reading (default 60, with several drones 25; quick: 15)",
    )
    options.add_argument(
        "--parts",
        default=",".join(PARTS),
        help="idle; burst: forza after 1,000,000 lines; stall: its peak while the"
        " receiver has stopped reading (default: all three)",
    )
    given = options.parse_args()
    parts = set(given.parts.split(","))
    if unknown := parts - set(PARTS):
        options.error(f"no part is called {', '.join(unknown)}")
    subjects = installed(BENCHMARK, given.subjects, without=YARDSTICKS)
    if "idle" in parts:
        for drones in given.drones or ([1, 10, 30] if given.quick else [1, 10, 100]):
            for subject in subjects:
                measure(subject, "idle", drones, given)
    for part in ("burst", "stall"):
        for subject in subjects:
            if part in parts and subject.is_forza:
                measure(subject, part, 1, given)


def measure(
    subject: Subject, part: str, drones: int, given: argparse.Namespace
) -> None:
    """Take one reading; whatever goes wrong becomes the result."""
    note(f"memory: {subject.name}, {part}, {drones}")
    values: Result = {"part": part, "drones": drones}
    idle = given.idle or (15 if given.quick else 25 if drones > 1 else 60)
    try:
        if drones > subject.most_drones:
            values["skipped"] = f"at most {subject.most_drones}: {subject.note}"
        elif part == "idle":
            values |= idle_memory(subject, drones, idle)
        elif part == "burst":
            values |= memory_after_burst(subject, idle)
        else:
            values |= peak_before_stalled_sink(subject)
    except (GaveUpError, UnavailableError) as error:
        values["failed"] = str(error)
    emit(BENCHMARK, subject.name, values)


def idle_memory(subject: Subject, drones: int, idle: float) -> Result:
    """Read so many drones at rest, one of them with a real node app."""
    with Receiver() as receiver, Cell() as cell:
        if drones == 1:
            what = "node, a web server nobody asks"
            app = [str(node()), str(BENCHMARKS / "node/idle.js"), str(cell.pids)]
        else:
            what = "a static C program that sleeps"
            app = [str(compiled("app")), "idle", str(cell.pids)]
        subject.prepare(cell, [app] * drones, receiver.port)
        subject.start(cell)
        cell.wait_for_apps(drones, seconds=60 + drones)
        time.sleep(idle)
        monitors = cell.monitors()
        memory = memory_of(monitors)
        peak = peak_of(monitors)
        subject.stop(cell)
    return {
        "app": what,
        "idle_s": idle,
        **memory.per(drones),
        "peak_mb": round(peak / drones, 3),
        "processes": memory.processes,
        "ran": subject.shows,
        "note": subject.note,
    }


def memory_after_burst(subject: Subject, idle: float) -> Result:
    """Read one drone that has shipped a million lines and is idle again."""
    with Receiver(BURST_LINES // 2) as receiver, Cell() as cell:
        flood = Flood(cell, BURST_LINES)
        subject.prepare(cell, [flood.argv], receiver.port)
        subject.start(cell)
        cell.wait_for_apps(1)
        time.sleep(3)
        forget_peaks(cell.monitors())
        cell.open_gate()
        receiver.wait(60)
        wait_until(lambda: flood.seconds() is not None, 60, "the app's last line")
        time.sleep(2)
        # Counted now: an app that has not opened a port for 15 s is reported
        # with the end of its output, and those lines would be counted twice.
        counts = receiver.counts()
        time.sleep(idle)
        monitors = cell.monitors()
        memory = memory_of(monitors)
        peak = peak_of(monitors)
    return {
        "app": "a static C program",
        "lines": flood.lines,
        "lost": flood.lines - counts.marks,
        "idle_s": idle,
        **memory.per(1),
        "peak_mb": round(peak, 3),
        "ran": subject.shows,
    }


def peak_before_stalled_sink(subject: Subject) -> Result:
    """Stop the receiver from reading in mid-flood, then let it go on."""
    with Receiver() as receiver, Cell() as cell:
        flood = Flood(cell, STALL_LINES)
        subject.prepare(cell, [flood.argv], receiver.port)
        subject.start(cell)
        cell.wait_for_apps(1)
        time.sleep(3)
        monitors = cell.monitors()
        forget_peaks(monitors)
        cell.open_gate()
        time.sleep(0.5)
        receiver.toggle_stall()
        time.sleep(5)
        stalled = memory_of(monitors)
        receiver.toggle_stall()
        wait_until(lambda: flood.seconds() is not None, 60, "the app's last line")
        time.sleep(1)
        peak = peak_of(monitors)
        seconds = flood.seconds()
        counts = receiver.counts()
    return {
        "app": "a static C program",
        "lines": flood.lines,
        "arrived": counts.marks,
        "app_s": seconds,
        "stalled_rss_mb": round(stalled.rss, 3),
        "peak_mb": round(peak, 3),
        "ran": subject.shows,
    }


if __name__ == "__main__":
    main()
