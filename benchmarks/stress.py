# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whether ten thousand starts and endings leave anything behind, or lose a word."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import forza_python
from benchmarks.harness.cell import Cell, GaveUpError, wait_until
from benchmarks.harness.commandline import parser
from benchmarks.harness.receivers import refusing_port
from benchmarks.harness.results import Result, emit, note

BENCHMARK = "stress"
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 60.0
# How an app ends, and forza's status then. Some leave children behind, in its session
# or in another, with and without its output open.
ENDINGS: tuple[tuple[str, int], ...] = (
    ("exit 0", 0),
    ("exit 7", 7),
    ("echo; exit 255", 255),
    ("kill -TERM $$", 143),
    ("kill -KILL $$", 137),
    ("sleep 1000 >/dev/null 2>&1 3>&1 & exit 3", 3),
    ("setsid sleep 1000 >/dev/null 2>&1 3>&1 & exit 4", 4),
    ("(setsid sleep 1000 >/dev/null 2>&1 3>&1 &); exit 5", 5),
    ("exec no-such-command", 127),
)
# What must be 0 of a result.
FAULTS = (
    *("failed", "wrong_status", "exits_missing", "exits_twice", "exits_wrong"),
    *("starts_missing", "starts_twice", "orphans", "files_left", "descriptors_left"),
    *("kept_exits_missing", "kept_descriptors_left"),
)


def main() -> None:
    options = parser(
        "Start forza again and again, several at a time, with apps that end at once in"
        " all ways there are, then as often under one keeper. Afterwards each start has"
        " its start and its exit event, stored by forza listen; no process is left, no"
        " file, and no descriptor of receiver or keeper. Exit status 1 if not.",
        "python benchmarks/stress.py --starts 10000",
    )
    options.add_argument("--starts", type=int, metavar="N", help="10000 (quick: 200)")
    options.add_argument(
        "--restarts", type=int, metavar="N", help="under one keeper: 1000 (quick: 20)"
    )
    options.add_argument(
        "--at-once", type=int, default=4, metavar="N", help="starts at a time (4)"
    )
    given = options.parse_args()
    given.starts = given.starts or (200 if given.quick else 10_000)
    given.restarts = given.restarts or (20 if given.quick else 1000)
    # Whoever loses its parents comes to us, and is counted.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        values = stress(forza_python(), given)
    except GaveUpError as error:
        values = {"failed": str(error)}
    emit(BENCHMARK, "forza", values)
    if any(values.get(fault) for fault in FAULTS):
        sys.exit(1)


class Listener:
    """`forza listen`, and what it has stored."""

    def __init__(self, cell: Cell, python: Path) -> None:
        self.port = refusing_port()
        self.path = cell.path / "events"
        words = (python, "-m", "forza", "listen", f"--port={self.port}")
        self.process = cell.spawn((*words, "--to", f"file:{self.path}?max=4G"))

    @property
    def where(self) -> tuple[str, ...]:
        return "-h", f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End it in order: then all is stored."""
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)

    def events(self) -> Iterator[tuple[str, str, int, str]]:
        """Return of each event the app's name, the service, the metric and text."""
        with self.path.open("rb") as file:
            for line in file:
                event = json.loads(line)
                name = event["meta"].get("app", {}).get("name", "")
                text = event.get("description", "")
                yield name, event["service"], int(event["metric"]), text


def stress(python: Path, given: argparse.Namespace) -> Result:
    with Cell() as cell:
        listener = Listener(cell, python)
        forza = Forza(cell, python, listener)
        for worker in range(given.at_once):
            forza.start(-1, worker)  # for its folder, and all that is compiled at first
        receiver = listener.process.pid
        settled = descriptors(receiver)
        files = names(cell.path)
        note(f"{BENCHMARK}: {given.starts} starts, {given.at_once} at a time")
        begun = time.monotonic()
        forza.start_all(given.starts, given.at_once)
        seconds = time.monotonic() - begun
        orphans = left_to_us({child.pid for child in cell.children})
        files_left = len(names(cell.path) - files)
        with suppress(GaveUpError):  # the last connections take a moment
            wait_until(lambda: descriptors(receiver) <= settled, 10.0, "their end")
        descriptors_left = max(0, descriptors(receiver) - settled)
        note(f"{BENCHMARK}: {given.restarts} restarts under one keeper")
        kept = keep(cell, python, listener, given.restarts)
        listener.stop()
        return {
            "starts": given.starts,
            "at_once": given.at_once,
            "seconds": round(seconds, 1),
            "wrong_status": forza.wrong,
            "orphans": orphans,
            "files_left": files_left,
            "descriptors_left": descriptors_left,
            **told(listener, given.starts),
            "restarts": given.restarts,
            **kept,
            "kept_exits_missing": max(0, given.restarts - exits_of_the_kept(listener)),
        }


class Forza:
    """Start forza, with a number that is the app's name."""

    def __init__(self, cell: Cell, python: Path, listener: Listener) -> None:
        self.cell = cell
        self.python = python
        self.listener = listener
        self.wrong = 0
        self.next = 0
        self.lock = threading.Lock()

    def start(self, number: int, worker: int = 0) -> None:
        """Run one to its end."""
        script, status = ENDINGS[number % len(ENDINGS)]
        folder = self.cell.path / f"worker-{worker}"
        folder.mkdir(exist_ok=True)
        words: tuple[str | Path, ...] = (
            *(str(self.python), "-m", "forza", *self.listener.where),
            *(f"--spool={folder}/spool", f"--start-log={folder}/start.log"),
            *(
                "--app-user",
                "stress",
                "--app-name",
                str(number),
                "--",
                "sh",
                "-c",
                script,
            ),
        )
        if self.cell.run(words) != status:
            self.wrong += 1

    def start_all(self, count: int, at_once: int) -> None:
        """Run so many, so many at a time."""
        workers = [
            threading.Thread(target=self._work, args=(count, worker))
            for worker in range(at_once)
        ]
        for thread in workers:
            thread.start()
        for thread in workers:
            thread.join()

    def _work(self, count: int, worker: int) -> None:
        while True:
            with self.lock:
                number = self.next
                self.next += 1
            if number >= count:
                return
            self.start(number, worker)
            if number % 1000 == 999:
                note(f"{BENCHMARK}: {number + 1}")


def told(listener: Listener, count: int) -> Result:
    """Count the events of each start, and what they say."""
    exits: Counter[str] = Counter()
    starts: Counter[str] = Counter()
    wrong = 0
    for name, service, _, text in listener.events():
        if name in ("", "-1", "kept"):
            continue
        if service == "health/process/exit":
            exits[name] += 1
            wrong += text != str(ENDINGS[int(name) % len(ENDINGS)][1])
        elif service == "health/process/start":
            starts[name] += 1
    return {
        "exits_missing": count - len(exits),
        "exits_twice": sum(number > 1 for number in exits.values()),
        "exits_wrong": wrong,
        "starts_missing": count - len(starts),
        "starts_twice": sum(number > 1 for number in starts.values()),
    }


def exits_of_the_kept(listener: Listener) -> int:
    return sum(
        name == "kept" and service == "health/process/exit"
        for name, service, *_ in listener.events()
    )


def keep(cell: Cell, python: Path, listener: Listener, restarts: int) -> Result:
    """Let one keeper start an app so often."""
    state = cell.path / "kept.state"
    words: tuple[str | Path, ...] = (
        *(python, "-m", "forza.aeternum", "run", "--state", state, "--park", "never"),
        *("--min-delay", "0", "--", "forza", *listener.where),
        *("--app-user", "stress", "--app-name", "kept", "--", "sh", "-c", "exit 1"),
    )
    keeper = cell.spawn(words)

    def done() -> int:
        with suppress(OSError, ValueError):
            return int(json.loads(state.read_text())["restarts"])
        return 0

    def fewest() -> int:
        # While it starts a child it has a pipe for that.
        return min(descriptors(keeper.pid) for _ in range(200))

    begun = time.monotonic()
    wait_until(lambda: done() >= min(10, restarts), PATIENCE, "a restart")
    before = fewest()
    wait_until(lambda: done() >= restarts, 60 + restarts, f"{restarts} restarts")
    seconds = time.monotonic() - begun
    after = fewest()
    keeper.terminate()
    if keeper.wait(timeout=PATIENCE):
        raise GaveUpError(f"the keeper has failed\n{cell.output()}")
    return {
        "kept_seconds": round(seconds, 1),
        "kept_descriptors_left": max(0, after - before),
    }


def descriptors(pid: int) -> int:
    """Count what a process has open; very many if that cannot be seen."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 1 << 20


def names(folder: Path) -> set[str]:
    """Return all that is in a folder, however deep."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def left_to_us(own: set[int]) -> int:
    """Count, kill and reap who has lost its parents to us: nobody should have."""
    found = 0
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if pid not in own:
                found += 1
                os.kill(pid, 9)  # ours, and not reaped: nobody else's pid
                os.waitpid(pid, 0)
    return found


if __name__ == "__main__":
    main()
