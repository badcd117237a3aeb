# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a receiver takes from 1, 100 and 1,000 drones at once, beside nc and socat."""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import (
    CACHE,
    UnavailableError,
    debian_package,
    forza_python,
)
from benchmarks.harness.cell import Cell, GaveUpError, wait_until
from benchmarks.harness.commandline import numbers, parser
from benchmarks.harness.receivers import refusing_port
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.sampling import forget_peaks, memory_of, peak_of, usage_of
from benchmarks.harness.statistics import median

BENCHMARK = "listen"
PATIENCE = 120.0
# A read of an app's output makes about so much; the seq is put in for each batch.
BATCH = 250
LINE = "GET /items/{n} 200 12 ms, a line of ordinary length, as web servers write it\\n"
SEQ = b"1000000000"


@dataclass(frozen=True)
class Subject:
    """Something that stores what it receives."""

    name: str
    command: Callable[[int, Path], Sequence[str | Path]]
    # Whether it says when events are safe; else to have written them is all it does.
    acknowledges: bool = False
    # How many clients it serves at the same time.
    most: int = 1_000_000


def forza(port: int, file: Path) -> Sequence[str | Path]:
    """forza listen, as it is installed."""
    words = (forza_python(), "-m", "forza", "listen", f"--port={port}")
    return (*words, "--to", f"file:{file}")


def nc(port: int, file: Path) -> Sequence[str | Path]:
    """OpenBSD's netcat, which serves one client after the other."""
    return ("sh", "-c", 'exec nc -k -l 127.0.0.1 "$0" >>"$1"', str(port), file)


def socat(port: int, file: Path) -> Sequence[str | Path]:
    """A process for each client; each appends what it reads, cut anywhere."""
    root = debian_package("socat")
    library = next((root / "usr/lib").glob("*-linux-gnu"), root)
    return (
        *("env", f"LD_LIBRARY_PATH={library}", root / "usr/bin/socat", "-u"),
        f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=1024",
        f"OPEN:{file},creat,append",
    )


SUBJECTS = (
    Subject("forza listen", forza, acknowledges=True),
    Subject("nc -k -l", nc, most=1),
    Subject("socat, fork", socat),
)


def main() -> None:
    options = parser(
        "As many connections as drones send events as fast as they are taken; how many"
        " a second, at what cost, and what the receiver holds in memory when all are"
        " connected and nothing comes. forza listen syncs to disk and acknowledges,"
        " and its time ends with the last acknowledgement; that of the others when"
        " their file has all bytes, which a crash of the machine may still lose.",
        "python benchmarks/listen.py --drones 100 --events 1000000",
    )
    options.add_argument(
        "--drones", type=numbers, default=[1, 100, 1000], metavar="N[,N]"
    )
    options.add_argument("--events", type=int, metavar="N", help="in all (2,000,000)")
    options.add_argument("--rounds", type=int, metavar="N", help="3; quick: 1")
    given = options.parse_args()
    given.events = given.events or (200_000 if given.quick else 2_000_000)
    given.rounds = given.rounds or (1 if given.quick else 3)
    if given.subjects and all(s.name != "forza" for s in given.subjects):
        return  # a run that is about other subjects
    for drones in given.drones:
        measure(drones, given)


def measure(drones: int, given: argparse.Namespace) -> None:
    """Measure all with so many drones, in interleaved rounds."""
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(given.rounds):
        for subject in SUBJECTS:
            if drones > subject.most:
                continue
            note(f"{BENCHMARK}: {drones} drones, round {turn + 1}, {subject.name}")
            try:
                result = once(subject, drones, given.events)
            except UnavailableError as error:
                if not turn:
                    emit(BENCHMARK, subject.name, {"unavailable": str(error)})
            except GaveUpError as error:
                emit(BENCHMARK, subject.name, {"drones": drones, "failed": str(error)})
            else:
                found.setdefault(subject.name, []).append(result)
    for name, results in found.items():
        values: Result = {"drones": drones, "rounds": len(results)}
        for field in results[0]:
            values[field] = median([result[field] for result in results])
        emit(BENCHMARK, name, values)


def once(subject: Subject, drones: int, events: int) -> dict[str, float]:
    """Let so many drones connect and send, and look at the receiver meanwhile."""
    CACHE.mkdir(exist_ok=True)
    # Not in memory, where a sync would cost nothing.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder, Cell() as cell:
        file, port = Path(folder, "events"), refusing_port()
        cell.spawn(subject.command(port, file))
        each = events // drones
        sent: list[Drone] = []
        try:
            sent.extend(Drone(port, n, each, subject) for n in range(drones))
            time.sleep(1.0)  # all are accepted, and it has come to rest
            pids = [pid for pid, _ in cell.processes()]
            idle = memory_of(pids)
            forget_peaks(pids)
            before = usage_of(pids)
            size = sum(drone.size for drone in sent)
            flood(sent)
            wait_until(
                lambda: file.exists() and file.stat().st_size >= size,
                PATIENCE,
                f"{subject.name}: {size} bytes",
            )
            used = usage_of(pids) - before
            peak = peak_of(pids)
        finally:
            for drone in sent:
                drone.sock.close()
        count = each * drones
        return {
            "events": count,
            "bytes": size,
            "events_per_s": round(count / used.when),
            "cpu_s_per_million": round(used.cpu / count * 1e6, 3),
            "processes": idle.processes,
            **idle.per(1),
            "peak_mb": round(peak, 3),
            "torn": torn(file),
        }


class Drone:
    """One connection, and what is still to be sent on it."""

    def __init__(self, port: int, number: int, events: int, subject: Subject) -> None:
        self.boot = f"{number:016x}".encode()
        self.acknowledges = subject.acknowledges
        self.sizes = [BATCH] * (events // BATCH)
        if events % BATCH:
            self.sizes.append(events % BATCH)
        self.templates = {size: batch(self.boot, size) for size in set(self.sizes)}
        self.size = sum(len(self.templates[size]) for size in self.sizes)
        self.batches = len(self.sizes)
        self.sent = 0
        self.rest = memoryview(b"")
        self.said = b""
        self.sock = self.connect(port)

    def connect(self, port: int) -> socket.socket:
        """Connect, and hear the greeting if there is one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise GaveUpError(f"cannot connect: {error}") from error
                time.sleep(0.01)
        if self.acknowledges:
            greeting = sock.recv(4096)
            if b'"forza":"listen"' not in greeting:
                raise GaveUpError(f"no greeting: {greeting!r}")
        sock.setblocking(False)
        return sock

    @property
    def all_sent(self) -> bool:
        """Whether there is nothing more to send."""
        return not self.rest and self.sent == self.batches

    @property
    def done(self) -> bool:
        """Whether all is sent and, where that is known, safe."""
        if not self.all_sent:
            return False
        last = b'"seq":%d,"events":%d}}\n' % (self.seq, self.sizes[-1])
        return not self.acknowledges or self.said.endswith(last)

    @property
    def seq(self) -> int:
        """The seq of the newest batch."""
        return int(SEQ) + self.sent

    def write(self) -> None:
        """Send what the connection takes."""
        with suppress(BlockingIOError):
            while not self.all_sent:
                if not self.rest:
                    self.sent += 1
                    text = self.templates[self.sizes[self.sent - 1]]
                    self.rest = memoryview(text.replace(SEQ, b"%d" % self.seq))
                self.rest = self.rest[self.sock.send(self.rest) :]

    def read(self) -> None:
        """Hear what is acknowledged."""
        with suppress(BlockingIOError):
            data = self.sock.recv(65536)
            if not data:
                raise GaveUpError("the receiver has hung up")
            self.said = (self.said + data)[-200:]


def batch(boot: bytes, count: int) -> bytes:
    """Return so many events as forza sends them."""
    return b"".join(
        b'{"metric":1.0,"time":1700000000.123,"host":"10.0.0.7","description":"%s",'
        b'"service":"logs/stdout","meta":{"boot":"%s","seq":%s,"pid":4711}}\n'
        % (LINE.format(n=n).encode(), boot, SEQ)
        for n in range(count)
    )


def flood(drones: Sequence[Drone]) -> None:
    """Send all that all have to send, as fast as it is taken."""
    both = selectors.EVENT_READ | selectors.EVENT_WRITE
    with selectors.DefaultSelector() as selector:
        for each in drones:
            selector.register(each.sock, both, each)
        deadline = time.monotonic() + PATIENCE
        while selector.get_map():
            if time.monotonic() > deadline:
                raise GaveUpError("not all was taken in time")
            for key, events in selector.select(1.0):
                drone: Drone = key.data
                if events & selectors.EVENT_READ:
                    drone.read()
                if events & selectors.EVENT_WRITE and not drone.all_sent:
                    drone.write()
                if drone.done:
                    selector.unregister(drone.sock)
                elif drone.all_sent and key.events == both:
                    selector.modify(drone.sock, selectors.EVENT_READ, drone)


def torn(file: Path) -> int:
    """Count the lines that are no events: cut by others' in the middle."""
    count = 0
    with file.open("rb") as stream:
        for line in stream:
            whole = line.startswith(b'{"metric"') and line.endswith(b"}}\n")
            count += not whole or line.count(b'"metric"') != 1
    return count


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    main()
