# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whether memory stays flat: a steady stream, a receiver that comes and goes."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cell import Cell, GaveUpError
from benchmarks.harness.commandline import installed, parser
from benchmarks.harness.flood import LINE_SIZE, Flood
from benchmarks.harness.receivers import Receiver
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.sampling import forget_peaks, memory_of, peak_of, usage_of
from benchmarks.harness.statistics import median, slope
from benchmarks.harness.subjects import Subject, named

BENCHMARK = "soak"
MB = 1_000_000
WARM_UP = 0.2  # of the time: buffers and arenas find their size
FLAT = 0.25  # MB of growth from the first cycle after the warm-up to the last


def main() -> None:
    options = parser(
        "The monitor ships a steady stream of log lines while the receiver goes away"
        " and comes back; its memory is read every second. Flat is: between the first"
        " and the last full cycle after the warm-up, the median of the anonymous memory"
        f" grows by less than {FLAT} MB.",
        "python benchmarks/soak.py --minutes 60",
    )
    options.add_argument(
        "--minutes", type=float, metavar="N", help="how long (default 10; quick: 1)"
    )
    options.add_argument(
        "--rate",
        type=float,
        default=10.0,
        metavar="MB",
        help="log megabytes a second (default 10)",
    )
    options.add_argument(
        "--cycle",
        type=float,
        metavar="S",
        help="the receiver is away for the last sixth of so many seconds"
        " (default 60; quick: 10)",
    )
    given = options.parse_args()
    given.minutes = given.minutes or (1 if given.quick else 10)
    given.cycle = given.cycle or (10 if given.quick else 60)
    for subject in installed(BENCHMARK, given.subjects or [named("forza")]):
        try:
            values = soak(subject, given)
        except GaveUpError as error:
            values = {"failed": str(error)}
        emit(BENCHMARK, subject.name, values)


def soak(subject: Subject, given: argparse.Namespace) -> Result:
    """Run for the time given and return the samples and what they say."""
    length = given.minutes * 60
    samples: list[Sample] = []
    arrived = outages = 0
    receiver: Receiver | None = Receiver()
    port = receiver.port if receiver else 0
    with Cell() as cell:
        try:
            lines = int(length * given.rate * MB / LINE_SIZE)
            flood = Flood(cell, lines, rate=int(given.rate * MB))
            subject.prepare(cell, [flood.argv], port)
            subject.start(cell)
            cell.wait_for_apps(1)
            time.sleep(3)
            monitors = cell.monitors()
            forget_peaks(monitors)
            before = usage_of(monitors)
            cell.open_gate()
            begun = time.monotonic()
            while (now := time.monotonic() - begun) < length:
                wanted = now % given.cycle < given.cycle * 5 / 6
                if wanted and receiver is None:
                    receiver = Receiver(port=port)
                elif not wanted and receiver is not None:
                    arrived += arrivals(receiver)
                    receiver = None
                    outages += 1
                memory = memory_of(monitors)
                if not memory.processes:
                    raise GaveUpError(f"the monitor has died\n{cell.output()}")
                samples.append((round(now, 1), memory.rss, memory.anonymous, wanted))
                if len(samples) % 30 == 0:
                    note(f"soak: {now:.0f} s, {memory.rss:.1f} MB resident")
                time.sleep(max(0.0, begun + len(samples) - time.monotonic()))
            peak = peak_of(monitors)
            used = usage_of(monitors) - before
        finally:
            if receiver is not None:
                arrived += arrivals(receiver)
        subject.stop(cell)
    return {
        "minutes": given.minutes,
        "rate_mb_per_s": given.rate,
        "cycle_s": given.cycle,
        "outages": outages,
        "lines": flood.lines,
        "arrived": arrived,
        "cpu_percent": round(used.cpu / used.when * 100, 2),
        "peak_mb": round(peak, 3),
        **judged(samples, given.cycle),
        "samples": samples_to_plot(samples),
        "ran": subject.shows,
    }


Sample = tuple[float, float, float, bool]  # seconds, resident, anonymous, receiver up


def arrivals(receiver: Receiver) -> int:
    """End a receiver and return how many lines it got."""
    counts = receiver.close()
    return counts.marks if counts else 0


def judged(samples: list[Sample], cycle: float) -> Result:
    """Compare like with like: whole cycles, since each outage fills the buffer."""
    warm = [s for s in samples if s[0] >= samples[-1][0] * WARM_UP]
    cycles: dict[int, list[Sample]] = {}
    for sample in warm:
        cycles.setdefault(int(sample[0] // cycle), []).append(sample)
    whole = [group for group in cycles.values() if len(group) >= cycle * 0.9]
    if len(whole) < 2:
        return {"flat": None, "why": "fewer than two whole cycles after the warm-up"}
    first, last = ([s[2] for s in group] for group in (whole[0], whole[-1]))
    growth = (median(last) or 0) - (median(first) or 0)
    per_hour = slope([(s[0], s[2]) for group in whole for s in group]) * 3600
    return {
        "rss_mb": round(median(s[1] for s in warm) or 0, 3),
        "anonymous_mb": round(median(s[2] for s in warm) or 0, 3),
        "growth_mb": round(growth, 3),
        "slope_mb_per_hour": round(per_hour, 3),
        "flat": growth < FLAT,
    }


def samples_to_plot(samples: list[Sample], most: int = 400) -> list[list[float]]:
    """Thin the samples out, so that the result stays a line one can read."""
    step = -(-len(samples) // most)
    return [[t, round(r, 2), round(a, 2), int(up)] for t, r, a, up in samples[::step]]


if __name__ == "__main__":
    main()
