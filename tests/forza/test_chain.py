# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Sender and receiver as they are, a network that does what it likes between them."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, cast

import orjson
import pytest

from forza._event import Encoder
from forza.listen._boots import Boots, Sifter
from forza.sinks._answers import Answers
from forza.sinks._buffer import Buffer
from forza.sinks._stream import Stream
from forza.sinks._unacked import Unacked
from forza.spool._depot import Depot
from forza.spool._queue import Spool
from tests.forza.conftest import StillLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue

GREETING = b'{"forza":"listen","version":1}\n'
FD = 7


class Loop(StillLoop):
    """One that a spool's announcements can be left to."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], object]] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        """Call what was to be called soon, and who waits to write."""
        while self.soon:
            self.soon.pop(0)()
        for resume in tuple(self.writers.values()):
            resume()


class Connection:
    """What was written to it, and what the receiver has made of it."""

    def __init__(self, boots: Boots) -> None:
        self.sifter = Sifter(boots)
        self.wire = b""
        self.tail = b""
        self.written = 0


class Receiver:
    """The part of `forza listen` that decides; its file is `stored`."""

    def __init__(self) -> None:
        self.boots = Boots()
        self.stored = b""

    def take(self, connection: Connection, size: int) -> None:
        """Let so many bytes of a connection arrive."""
        data, connection.wire = connection.wire[:size], connection.wire[size:]
        data = connection.tail + data
        end = data.rfind(b"\n") + 1
        connection.tail = data[end:]
        if end:
            self.stored += connection.sifter.sift(data[:end])

    def restart(self) -> None:
        """Be killed, and learn again from the file what is in it."""
        self.boots = Boots()
        Sifter(self.boots, stored=True).sift(self.stored)


class Chain:
    """A monitor with one sink, a network, a receiver."""

    def __init__(self, rng: random.Random, make: Callable[[Monitor], Queue]) -> None:
        self.rng = rng
        self.loop = Loop()
        self.silent = False
        self.ended = None
        self.backlogs = 0
        self.pushed: Counter[str] = Counter()
        self.receiver = Receiver()
        self.connection: Connection | None = None
        self.late: list[Connection] = []
        self.begin(make)

    def begin(self, make: Callable[[Monitor], Queue]) -> None:
        """Be a new monitor."""
        monitor = cast("Monitor", self)
        self.encoder = Encoder("host", f"{self.rng.getrandbits(64):016x}", None)
        self.queue = make(monitor)
        self.unacked = Unacked(monitor)
        self.stream = Stream(monitor, "tcp:", self.queue, self.lose, self.unacked)
        self.unacked.stream = self.stream
        self.answers = Answers(self.unacked)

    # The monitor.

    def say(self, text: str, *, problem: bool = True) -> None: ...

    def hold(self, holder: object) -> None: ...

    def release(self, holder: object) -> None: ...

    def send(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
        *,
        lifecycle: bool = False,
    ) -> None:
        self.pushed["own"] += 1
        event = self.encoder.event(service, metric, description, meta)
        self.stream.write(event, lifecycle)

    # What may happen.

    def lines(self) -> None:
        """The app prints."""
        count = self.rng.choice([1, 1, 2, 5, 30])
        self.pushed["lines"] += count
        self.stream.write(self.encoder.lines("logs/stdout", b"some words\n" * count))

    def event(self) -> None:
        """Something happens to the app."""
        self.send("health/process/start", 1, lifecycle=True)

    def connect(self) -> None:
        """There is a connection, and the receiver greets."""
        if self.connection is None:
            self.connection = Connection(self.receiver.boots)
            self.answers = Answers(self.unacked)
            self.unacked.open(FD, lambda _: 0, friend=True)
            if self.rng.random() < 0.8:
                self.answers.data(GREETING)
            self.stream.attach(FD, self.write)

    def greet(self) -> None:
        """The greeting comes late."""
        if self.connection is not None and not self.unacked.acking:
            self.answers.data(GREETING)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """The kernel takes some of it."""
        assert self.connection is not None
        size = self.rng.choice([0, 1, 17, 300, 5000, 1 << 20])
        piece = bytes(data[:size])
        if not piece:
            raise BlockingIOError
        self.connection.wire += piece
        return len(piece)

    def arrive(self) -> None:
        """Some of what is on its way arrives: also on old connections, if late."""
        for connection in (self.connection, *self.late):
            if connection is not None and self.rng.random() < 0.7:
                self.receiver.take(connection, self.rng.choice([1, 40, 900, 1 << 20]))
        self.late = [c for c in self.late if c.wire]

    def acknowledge(self) -> None:
        """The receiver says how far it is, or not."""
        if self.connection is None or self.connection.sifter.place is None:
            return
        self.greet()
        ack = b'{"ack":{"boot":"%b","seq":%d,"events":%d}}\n'
        self.answers.data(ack % self.connection.sifter.place)

    def cut(self) -> None:
        """The connection breaks; what is on its way is lost, or late."""
        if self.connection is not None:
            self.lose(OSError())

    def lose(self, error: OSError) -> None:
        """Do as the client does."""
        connection, self.connection = self.connection, None
        assert connection is not None
        self.unacked.close()
        self.stream.detach()
        if self.rng.random() < 0.5:
            self.late.append(connection)

    def kill_receiver(self) -> None:
        """It dies, and with it every connection."""
        self.cut()
        self.late.clear()
        self.receiver.restart()

    def turn(self) -> None:
        """The loop turns."""
        self.loop.turn()

    def wait(self) -> None:
        """Time passes, but not so much that a greeting is given up."""
        self.loop.advance(0.5)

    def settle(self) -> None:
        """Let all be well until all is delivered."""
        for _ in range(100_000):
            self.turn()
            self.connect()
            self.greet()
            self.stream.resume()
            self.receiver.take(cast("Connection", self.connection), 1 << 30)
            self.acknowledge()
            if self.stream.empty and not self.loop.soon:
                return
        pytest.fail("it does not come to an end")

    def check(self) -> None:
        """Each event is there once, or announced as dropped."""
        lines = self.receiver.stored.splitlines()
        events = [orjson.loads(line) for line in lines]
        places: set[tuple[str, int, int]] = set()
        seen: Counter[tuple[str, int]] = Counter()
        dropped = 0.0
        for event in events:
            batch = event["meta"]["boot"], event["meta"]["seq"]
            places.add((*batch, seen[batch]))
            seen[batch] += 1
            if event["service"] == "telemetry/dropped":
                dropped += event["metric"]
        assert len(places) == len(events)
        assert len(set(lines)) >= len(seen)
        missing = sum(self.pushed.values()) - len(events)
        assert 0 <= missing <= dropped
        if not self.may_drop:
            assert missing == 0

    may_drop = True

    def play(self, steps: int) -> None:
        """Let anything happen, so often."""
        chances: dict[Callable[[], None], float] = {
            self.lines: 5,
            self.event: 1,
            self.connect: 3,
            self.greet: 1,
            self.arrive: 4,
            self.acknowledge: 2,
            self.cut: 0.4,
            self.kill_receiver: 0.2,
            self.turn: 4,
            self.wait: 0.5,
        }
        for step in self.rng.choices(list(chances), list(chances.values()), k=steps):
            step()


@pytest.mark.parametrize("seed", range(30))
def test_from_memory(seed: int) -> None:
    """However a stream is cut up, delayed and broken: once each, or announced."""
    rng = random.Random(seed)
    limit = rng.choice([2000, 20_000, 1 << 20])
    chain = Chain(rng, lambda _: Buffer(limit))
    chain.may_drop = limit < 1 << 20
    chain.play(600)
    chain.settle()
    chain.check()


@pytest.mark.parametrize("seed", range(20))
def test_from_a_spool(seed: int, tmp_path: Path) -> None:
    """The same from disk, the monitor being killed now and then as well."""
    rng = random.Random(seed)

    def make(monitor: Monitor) -> Queue:
        return Spool(monitor, Depot(str(tmp_path), 64 << 20, ["tcp:"]), "tcp:", 1 << 20)

    chain = Chain(rng, make)
    chain.may_drop = False
    for _ in range(4):
        chain.play(150)
        chain.turn()
        chain.cut()
        chain.queue.close()
        chain.loop = Loop()
        chain.begin(make)
    chain.settle()
    chain.check()
    chain.queue.close()


def test_what_one_sink_finds_for_another(tmp_path: Path) -> None:
    """A lane that is found while one sink writes is delivered by the one that it is
    for, at the next event."""
    chain = Chain(random.Random(0), lambda _: Buffer(1 << 20))
    monitor = cast("Monitor", chain)
    depot = Depot(str(tmp_path), 64 << 20, ["a", "b"])
    queues = [Spool(monitor, depot, url, 1 << 20) for url in "ab"]
    wires = [bytearray(), bytearray()]
    streams = []
    for queue, wire in zip(queues, wires, strict=True):
        stream = Stream(monitor, queue.url, queue, chain.lose)

        def write(_: int, data: bytes | memoryview, wire: bytearray = wire) -> int:
            wire += data
            return len(data)

        stream.attach(FD, write)
        streams.append(stream)
    dead = Depot(str(tmp_path), 64 << 20, ["b"])
    left = Spool(monitor, dead, "b", 1 << 20)
    left.push(b"left\n", False)
    left.close()
    depot._look_at = 0.0
    for text in (b"one\n", b"two\n"):
        for stream in streams:
            stream.write(text)
    assert bytes(wires[0]) == b"one\ntwo\n"
    assert bytes(wires[1]) == b"left\none\ntwo\n"
    for queue in queues:
        queue.close()
