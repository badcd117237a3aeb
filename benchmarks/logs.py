# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What log lines cost: throughput, the app's own speed, metrics behind a flood."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import UnavailableError
from benchmarks.harness.cell import Cell, GaveUpError
from benchmarks.harness.chatter import app_speed
from benchmarks.harness.commandline import installed, parser
from benchmarks.harness.flood import LINE_SIZE, Flood, marks_in, size_of
from benchmarks.harness.quiet import PATIENCE, QUICK_PATIENCE, Patience
from benchmarks.harness.receivers import Receiver
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.sampling import forget_peaks, peak_of, usage_of
from benchmarks.harness.statistics import median, median_of_each, percentile
from benchmarks.harness.subjects import Forza, Subject

BENCHMARK = "logs"
PARTS = ("flood", "app", "latency")
TIMEOUT = 120.0
QUIET = 3.0  # so long without growth, and a file is taken to be complete
PROBE_MS = 10
LATENCY_LINES = 20_000_000  # some seconds


def main() -> None:
    options = parser(
        f"A child writes lines of {LINE_SIZE} bytes in large writes, as fast as it"
        " can: lines per second, the monitor's own CPU time and peak memory, lines"
        " lost. forza, cat and the C pump send to a TCP port, the others to files in"
        " memory. Then short lines from node's console.log: how much longer the app"
        " takes. Then how old metrics are on arrival that were sent during a flood.",
        "python benchmarks/logs.py --subjects forza,cat,'C pump' --parts flood",
    )
    options.add_argument(
        "--rounds",
        type=int,
        metavar="N",
        help="interleaved repeats, of which the median counts (default 5; quick: 3)",
    )
    options.add_argument(
        "--parts", default=",".join(PARTS), help="flood, app, latency (default: all)"
    )
    given = options.parse_args()
    parts = given.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        options.error(f"no part is called {', '.join(unknown)}")
    subjects = installed(BENCHMARK, given.subjects)
    if "flood" in parts:
        floods(subjects, given)
    monitors = [subject for subject in subjects if subject.is_forza]
    if "app" in parts and monitors:
        rounds = given.rounds or (3 if given.quick else 7)
        app_speed(BENCHMARK, monitors[:1], given.quick, rounds)
    if "latency" in parts:
        for subject in subjects:
            if isinstance(subject, Forza):
                emit(BENCHMARK, subject.name, {"part": "latency", **latency(subject)})


def floods(subjects: list[Subject], given: argparse.Namespace) -> None:
    """Let each have its turn in each round, then report the medians."""
    rounds = given.rounds or (3 if given.quick else 5)
    collected: dict[str, list[Result]] = {subject.name: [] for subject in subjects}
    failures: dict[str, str] = {}
    patience = Patience(QUICK_PATIENCE if given.quick else PATIENCE)
    for turn in range(rounds):
        for subject in subjects:
            note(f"logs: {subject.name}, flood {turn + 1} of {rounds}")
            lines = subject.lines // (5 if given.quick else 1)
            patience.wait()
            try:
                collected[subject.name].append(flood(subject, lines))
            except (GaveUpError, UnavailableError) as error:
                failures[subject.name] = str(error)
    cat = median([run["lines_per_s"] for run in collected.get("cat", [])])
    pump = median([run["lines_per_s"] for run in collected.get("C pump", [])])
    for subject in subjects:
        values: Result = {"part": "flood", "rounds": len(collected[subject.name])}
        if collected[subject.name]:
            values |= median_of_each(collected[subject.name])
            speed = values["lines_per_s"]
            assert isinstance(speed, int | float)
            if cat and pump:
                values["of_cat"] = round(speed / cat, 3)
                values["of_c_pump"] = round(speed / pump, 3)
        if subject.name in failures:
            values["failed"] = failures[subject.name]
        values |= {"to": subject.destination, "ran": subject.shows}
        emit(BENCHMARK, subject.name, {**values, "note": subject.note})


def flood(subject: Subject, lines: int) -> Result:
    """Measure one flood from the opening of the gate to the last line's arrival."""
    with Cell() as cell:
        flood = Flood(cell, lines)
        with Receiver(flood.lines) as receiver:
            subject.prepare(cell, [flood.argv], receiver.port)
            subject.start(cell)
            cell.wait_for_apps(1)
            time.sleep(2)  # until it has imported, connected, found its feet
            monitors = cell.monitors()
            forget_peaks(monitors)
            before = usage_of(monitors)
            begun = time.monotonic()
            cell.open_gate()
            if subject.sends_events:
                ended, arrived = await_port(receiver)
            else:
                ended, arrived = await_files(subject, cell, flood)
            used = usage_of(monitors) - before
            peak = peak_of(monitors)
            seconds = flood.seconds()
            subject.stop(cell)
    return {
        "lines": flood.lines,
        "lost": flood.lines - arrived,
        "seconds": round(ended - begun, 3),
        "lines_per_s": round(arrived / (ended - begun)),
        "mb_per_s": round(arrived * LINE_SIZE / (ended - begun) / 1e6, 1),
        "cpu_s_per_million": round(used.cpu / arrived * 1e6, 4) if arrived else 0.0,
        "peak_mb": round(peak, 2),
        "app_s": round(seconds, 3) if seconds else 0.0,
    }


def await_port(receiver: Receiver) -> tuple[float, int]:
    """Return when the last line came to the receiver, and how many did."""
    try:
        counts = receiver.wait(TIMEOUT)
    except GaveUpError:
        partial = receiver.close()
        if partial is None or not partial.marks:
            raise
        return partial.when, partial.marks
    return counts.when, counts.marks


def await_files(subject: Subject, cell: Cell, flood: Flood) -> tuple[float, int]:
    """Return when the log files last grew, and how many lines they hold."""
    deadline = time.monotonic() + TIMEOUT
    size = 0
    grown = time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.01)
        now = size_of(subject.log_files(cell))
        if now != size:
            size, grown = now, time.monotonic()
        done = flood.seconds() is not None and size >= flood.size
        if time.monotonic() - grown > (0.3 if done else QUIET):
            break
    return grown, marks_in(subject.log_files(cell))


def latency(subject: Forza) -> Result:
    """Age on arrival of metrics sent while the log lines fill every buffer."""
    note(f"logs: {subject.name}, latency")
    often = [f"--{name}-interval" for name in ("cpu", "mem", "uptime")]
    words = [word for option in often for word in (option, "0.1")]
    subject = subject.with_options("--ipc", "yes", *words)
    with Cell() as cell:
        flood = Flood(cell, LATENCY_LINES, probe_ms=PROBE_MS)
        with Receiver(flood.lines, probe=True) as receiver:
            subject.prepare(cell, [flood.argv], receiver.port)
            subject.start(cell)
            cell.wait_for_apps(1)
            time.sleep(2)
            receiver.forget_probes()
            cell.open_gate()
            try:
                receiver.wait(TIMEOUT)
            except GaveUpError as error:
                return {"failed": str(error)}
    app, own = receiver.ages["probe"], receiver.ages["age"]
    return {
        "app_metrics": len(app),
        "app_p50_ms": percentile(app, 50),
        "app_p99_ms": percentile(app, 99),
        "app_max_ms": percentile(app, 100),
        "own_metrics": len(own),
        "own_p50_ms": percentile(own, 50),
        "own_p99_ms": percentile(own, 99),
        "own_max_ms": percentile(own, 100),
        "ran": subject.shows,
    }


if __name__ == "__main__":
    main()
