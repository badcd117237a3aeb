# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a command on many drones costs the operator's machine, beside other programs."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil

from benchmarks.harness.cache import UnavailableError
from benchmarks.harness.fanout import (
    PARALLEL,
    PEERS,
    asyncssh_drones,
    prepared,
    real_drones,
)
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.statistics import median

BENCHMARK = "drones"
KINDS = {"asyncssh": asyncssh_drones, "sshd": real_drones}
TIMEOUT, MANY = 600.0, 1000
LOOK_AGAIN = 0.1


def main() -> None:
    options = argparse.ArgumentParser(
        description="Seconds, CPU and memory that a program takes to run `true` on many"
        f" drones, {PARALLEL} at a time, connections included. Drones are SSH servers"
        " of asyncssh in two processes, which share the cores with the program; and a"
        " few real ones, each in a network namespace of its own (else on ports of"
        " loopback, which is said)."
    )
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--quick", action="store_true", help="one round, no 1,000")
    options.add_argument("--counts", metavar="N[,N]", default="1,10,100,1000")
    options.add_argument("--real", type=int, default=10, help="of real sshd, so many")
    options.add_argument("--subjects", metavar="NAME[,NAME]", default=",".join(PEERS))
    given = options.parse_args()
    rounds = 1 if given.quick else given.rounds
    counts = [int(count) for count in given.counts.split(",")]
    cells = [("asyncssh", count) for count in counts if not given.quick or count < MANY]
    subjects = [name for name in given.subjects.split(",") if name in PEERS]
    for kind, count in [*cells, *([("sshd", given.real)] if given.real else [])]:
        # A thousand even out by themselves what a few do not.
        measure(kind, count, subjects, 1 if count >= MANY else rounds)


def measure(kind: str, count: int, subjects: list[str], rounds: int) -> None:
    """Measure all programs in turn, so that a slow minute is everybody's."""
    runs: dict[str, list[Result]] = {name: [] for name in subjects}
    about: Result = {"part": kind, "drones": count, "parallel": PARALLEL}
    with (
        tempfile.TemporaryDirectory() as made,
        KINDS[kind](Path(made), count) as drones,
    ):
        about["network"] = drones.network
        for turn in range(rounds):
            for name in [name for name in subjects if name in runs]:
                note(f"drones: {kind}, {count}: {name}, round {turn + 1}")
                try:
                    words, environ = prepared(name, drones)
                    runs[name].append(once(words, environ))
                except UnavailableError as error:
                    emit(BENCHMARK, name, {**about, "unavailable": str(error)})
                    del runs[name]
                except FailedError as error:
                    emit(BENCHMARK, name, {**about, "failed": str(error)})
                    del runs[name]
    for name, found in runs.items():
        values = {
            field: round(median([float(str(run[field])) for run in found]) or 0.0, 3)
            for field in ("seconds", "cpu_s", "peak_mb")
        }
        cpu = round(values["cpu_s"] / count * 1000, 2)
        emit(
            BENCHMARK,
            name,
            {**about, "rounds": len(found), **values, "cpu_ms_per_drone": cpu},
        )


class FailedError(Exception):
    """A program did not run the command on all drones."""


def once(words: list[str], environ: dict[str, str]) -> Result:
    """Run a program; return its time, the CPU of its whole tree, and peak memory."""
    with tempfile.TemporaryFile() as said:
        before = psutil.Process().cpu_times()
        begun = time.monotonic()
        child = subprocess.Popen(
            words, env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        watch = Watch(child.pid)
        try:
            status = child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            for process in psutil.Process(child.pid).children(recursive=True):
                process.kill()
            child.kill()
            child.wait()
            raise FailedError(f"not done within {TIMEOUT:g} s") from None
        finally:
            watch.stop()
        taken = time.monotonic() - begun
        after = psutil.Process().cpu_times()
        if status:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise FailedError(f"status {status}: {' '.join(last)[:200]}")
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return {"seconds": taken, "cpu_s": cpu, "peak_mb": watch.peak / 1e6}


class Watch:
    """Looks at the memory of a process and all below it, pages shared out fairly."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_AGAIN):
            total = 0
            try:
                below = self._process.children(recursive=True)
            except psutil.Error:
                return
            for process in (self._process, *below):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


if __name__ == "__main__":
    main()
