# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a sink has not taken: bounded, the oldest logs dropped first, each one counted.

The stream is tested with real pipes and a clock that stands still.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from forza._monitor import Monitor
from forza.sinks._buffer import _OVERHEAD, Buffer
from forza.sinks._patience import _CREDIT, _KEEPS_UP, _SHARE
from forza.sinks._stream import Stream
from tests.forza.conftest import StillLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

F_SETPIPE_SZ = 1031


def batch(number: int, lines: int = 1, size: int = 0) -> bytes:
    """Return a batch that can be told from others."""
    return (b"%d " % number).ljust(size, b".") + b"\n" * lines


def everything(buffer: Buffer) -> list[bytes]:
    """Take all that waits out of a buffer."""
    taken = [item[0] for item in iter(buffer.pop, None)]
    buffer.done(len(taken))
    return taken


def test_first_in_first_out() -> None:
    """Within the bound a buffer is a queue."""
    buffer = Buffer(10_000)
    for number in range(10):
        buffer.push(batch(number), lifecycle=number % 3 == 0)
    assert buffer.events() == 10
    assert everything(buffer) == [batch(number) for number in range(10)]
    assert buffer.pop() is None
    assert buffer.size == 0
    assert buffer.take_dropped() is None


def test_oldest_logs_first() -> None:
    """When it is full the oldest go, life-cycle events excepted; the order is kept."""
    buffer = Buffer(4 * (_OVERHEAD + 3))
    for number in range(8):
        buffer.push(batch(number), lifecycle=number in (1, 4))
    assert everything(buffer) == [batch(1), batch(4), batch(6), batch(7)]
    dropped = buffer.take_dropped()
    assert dropped is not None
    assert dropped.count == 4
    assert dropped.bytes == 4 * len(batch(0))
    assert buffer.take_dropped() is None


def test_lifecycle_last() -> None:
    """When nothing else is left, the oldest life-cycle events go, never the newest."""
    buffer = Buffer(2 * (_OVERHEAD + 3))
    for number in range(5):
        buffer.push(batch(number), lifecycle=True)
    assert everything(buffer) == [batch(3), batch(4)]
    buffer.push(batch(5), lifecycle=True)
    buffer.push(batch(6, size=1000), lifecycle=False)
    assert everything(buffer) == [batch(6, size=1000)]
    dropped = buffer.take_dropped()
    assert dropped is not None
    assert dropped.count == 4


def test_larger_than_the_bound() -> None:
    """A batch that is larger than the whole buffer is held all the same, alone."""
    buffer = Buffer(1000)
    buffer.push(batch(0), lifecycle=False)
    buffer.push(batch(1, 20, 5000), lifecycle=False)
    assert buffer.events() == 20
    assert everything(buffer) == [batch(1, 20, 5000)]
    assert buffer.size == 0


def test_handed_out() -> None:
    """What was handed out is kept until it is done, or comes again in its order."""
    buffer = Buffer(10_000)
    for number in range(6):
        buffer.push(batch(number), lifecycle=number == 4)
    full = buffer.size
    assert buffer.waiting == full
    assert [buffer.pop(), buffer.pop(), buffer.pop()] == [
        (batch(number), False) for number in range(3)
    ]
    assert buffer.size == full
    assert buffer.waiting == full // 2
    assert buffer.events() == 6
    buffer.done(2)
    assert buffer.events() == 4
    buffer.rewind()
    assert buffer.waiting == buffer.size == full // 3 * 2
    assert everything(buffer) == [batch(number) for number in range(2, 6)]
    assert buffer.size == buffer.waiting == 0


def test_handed_out_is_not_dropped() -> None:
    """What is on its way stays, however much comes after it; not once it is back."""
    buffer = Buffer(3 * (_OVERHEAD + 3))
    for number in range(3):
        buffer.push(batch(number), lifecycle=number == 1)
    for _ in range(2):
        buffer.pop()
    for number in range(3, 8):
        buffer.push(batch(number), lifecycle=False)
    assert buffer.events() == 5
    buffer.rewind()
    assert buffer.take_dropped().count == 3  # type: ignore[union-attr]
    buffer.push(batch(8), lifecycle=False)
    assert everything(buffer) == [batch(number) for number in (1, 7, 8)]


class BufferMachine(RuleBasedStateMachine):
    """Push, hand out, deliver and rewind at random, and keep the books."""

    LIMIT = 2000

    def __init__(self) -> None:
        super().__init__()
        self.buffer = Buffer(self.LIMIT)
        self.number = 0
        self.pushed = self.delivered = self.announced = 0
        self.last_delivered = -1
        self.out: list[bytes] = []

    @rule(
        lines=st.integers(1, 5),
        size=st.sampled_from([0, 10, 300, 5000]),
        lifecycle=st.booleans(),
    )
    def push(self, lines: int, size: int, lifecycle: bool) -> None:
        newest = batch(self.number, lines, size)
        self.buffer.push(newest, lifecycle)
        assert self.buffer.waiting <= max(self.LIMIT, len(newest) + _OVERHEAD)
        self.number += 1
        self.pushed += lines

    @rule()
    def pop(self) -> None:
        item = self.buffer.pop()
        if item is None:
            assert self.buffer.waiting == 0
            return
        number = int(item[0].split()[0])
        before = self.out[-1] if self.out else b"%d" % self.last_delivered
        assert number > int(before.split()[0])
        self.out.append(item[0])

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.out)))
        self.buffer.done(count)
        self.last_delivered = int(self.out[count - 1].split()[0])
        self.delivered += sum(sent.count(b"\n") for sent in self.out[:count])
        del self.out[:count]

    @rule()
    def rewind(self) -> None:
        self.buffer.rewind()
        self.out.clear()

    @rule()
    def announce(self) -> None:
        dropped = self.buffer.take_dropped()
        if dropped is not None:
            assert dropped.count > 0
            self.announced += dropped.count

    @invariant()
    def nothing_is_unaccounted_for(self) -> None:
        dropped = self.buffer.dropped.count if self.buffer.dropped else 0
        held = self.buffer.events()
        assert self.pushed == self.delivered + self.announced + dropped + held

    @invariant()
    def sizes_are_right(self) -> None:
        out = sum(len(sent) + _OVERHEAD for sent in self.out)
        assert self.buffer.size == self.buffer.waiting + out
        if not self.buffer.events():
            assert self.buffer.size == 0


BufferMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None
)
TestBuffer = BufferMachine.TestCase


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 12))
def test_who_is_left(lifecycles: list[bool], room: int) -> None:
    """Those left are the newest, and all the life-cycle events there is room for."""
    buffer = Buffer(room * (_OVERHEAD + 10))
    for number, lifecycle in enumerate(lifecycles):
        buffer.push(batch(number, size=9), lifecycle)
    left = [int(data.split()[0]) for data in everything(buffer)]
    assert left == sorted(left)
    assert len(left) == min(room, len(lifecycles))
    assert left[-1] == len(lifecycles) - 1
    gone = set(range(len(lifecycles))) - set(left)
    if any(lifecycles[number] for number in gone):
        assert not any(not lifecycles[number] for number in left[:-1])
    kept_logs = [number for number in left if not lifecycles[number]]
    gone_logs = [number for number in gone if not lifecycles[number]]
    assert not gone_logs or not kept_logs or max(gone_logs) < min(kept_logs)


class Owner:
    """As much of a monitor as a stream needs."""

    def __init__(self) -> None:
        self.loop = StillLoop()
        self.stream: Stream
        self.ended: object = None
        self.silent = False
        self.backlogs = 0
        self.seq = 0
        self.lines: dict[int, int] = {}
        self.announced = 0
        self.held_since: float | None = None
        self.held_for = 0.0
        self.holds = 0
        self.lost: list[OSError] = []
        self.said: list[str] = []

    def make(self, limit: int) -> Stream:
        self.stream = Stream(
            cast("Monitor", self), "sink:", Buffer(limit), self.lost_cb
        )
        return self.stream

    def say(self, text: str) -> None:
        self.said.append(text)

    def lost_cb(self, error: OSError) -> None:
        self.lost.append(error)
        self.stream.detach()

    def write(self, lines: int = 1, size: int = 0, lifecycle: bool = False) -> None:
        self.seq += 1
        self.lines[self.seq] = lines
        line = json.dumps({"seq": self.seq, "pad": "x" * size}).encode() + b"\n"
        self.stream.write(line * lines, lifecycle)

    def send(
        self,
        service: str,
        metric: float,
        meta: dict[str, Any],
        lifecycle: bool,
    ) -> None:
        assert service == "telemetry/dropped"
        assert meta["reason"] == "buffer full"
        assert meta["sink"] == "sink:"
        assert lifecycle
        self.announced += 1
        self.seq += 1
        self.lines[self.seq] = 1
        event = {"seq": self.seq, "dropped": metric}
        self.stream.write(json.dumps(event).encode() + b"\n", lifecycle)

    def hold(self, holder: object) -> None:
        assert self.held_since is None
        self.held_since = self.loop.now
        self.holds += 1

    def release(self, holder: object) -> None:
        assert self.held_since is not None
        self.held_for += self.loop.now - self.held_since
        self.held_since = None

    def turn(self) -> None:
        """Let the stream write, if it waits to."""
        for callback in tuple(self.loop.writers.values()):
            callback()


class Server:
    """One connection after the other, each a small pipe."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.connections: list[bytes] = []
        self.read = self.write = -1

    @property
    def up(self) -> bool:
        return self.read >= 0

    def connect(self) -> None:
        self.read, self.write = os.pipe()
        fcntl.fcntl(self.write, F_SETPIPE_SZ, 4096)
        os.set_blocking(self.write, False)
        os.set_blocking(self.read, False)
        self.connections.append(b"")
        self.owner.stream.attach(self.write)

    def receive(self, size: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self.connections[-1] += os.read(self.read, size)
        self.owner.turn()

    def receive_all(self) -> None:
        while True:
            before = len(self.connections[-1])
            self.receive(65536)
            if len(self.connections[-1]) == before:
                return

    def disconnect(self, *, first_reader: bool = False) -> None:
        if not self.up:
            return
        if first_reader:
            os.close(self.read)
            self.owner.turn()
            self.owner.stream.detach()
            os.close(self.write)
        else:
            self.owner.stream.detach()
            # What the kernel had taken the peer still gets.
            os.close(self.write)
            while data := os.read(self.read, 65536):
                self.connections[-1] += data
            os.close(self.read)
        self.read = self.write = -1


@pytest.fixture
def owner() -> Owner:
    """The monitor of a stream."""
    return Owner()


@pytest.fixture
def server(owner: Owner) -> Iterator[Server]:
    """Where the stream goes."""
    server = Server(owner)
    yield server
    server.disconnect()


def received(connections: list[bytes]) -> tuple[list[dict[str, Any]], int]:
    """Return what a receiver makes of it: each batch once, by seq."""
    events: list[dict[str, Any]] = []
    have: dict[int, int] = {}
    repeats = 0
    for data in connections:
        *lines, _ = data.split(b"\n")  # the rest was cut off with the connection
        here: dict[int, int] = {}
        for line in lines:
            event = json.loads(line)
            seq = event["seq"]
            here[seq] = here.get(seq, 0) + 1
            if here[seq] > have.get(seq, 0):
                have[seq] = here[seq]
                events.append(event)
            else:
                repeats += 1
    return events, repeats


def test_written_at_once(owner: Owner, server: Server) -> None:
    """A descriptor that takes it gets each batch in the call that sent it."""
    owner.make(100_000)
    server.connect()
    owner.write()
    assert os.read(server.read, 4096) == b'{"seq": 1, "pad": ""}\n'
    assert owner.stream.empty
    assert owner.loop.writers == {}


def test_kept_until_there_is_a_descriptor(owner: Owner, server: Server) -> None:
    """What is written before there is a descriptor comes first of all."""
    owner.make(100_000)
    for _ in range(3):
        owner.write(2)
    assert not owner.stream.empty
    assert owner.stream.events() == 6
    server.connect()
    server.receive_all()
    assert [event["seq"] for event in received(server.connections)[0]] == [
        *(1, 1, 2, 2, 3, 3)
    ]
    assert owner.stream.empty


def test_resent_whole(owner: Owner, server: Server) -> None:
    """A batch of which only a part was written is written again from its begin."""
    owner.make(100_000)
    server.connect()
    owner.write(100, 200)
    owner.write()
    server.receive(1000)
    assert owner.stream.events() == 101
    server.disconnect()
    assert owner.stream.events() == 101
    server.connect()
    server.receive_all()
    first, second = server.connections
    assert first
    assert second.startswith(first[:1000])
    assert second.count(b"\n") == 101
    events, repeats = received(server.connections)
    assert [event["seq"] for event in events] == [1] * 100 + [2]
    assert repeats == first.count(b"\n")


def test_error_of_the_descriptor(owner: Owner, server: Server) -> None:
    """A descriptor that fails is told of once; what it did not take is kept."""
    owner.make(100_000)
    server.connect()
    os.close(server.read)
    owner.write()
    owner.write()
    assert [error.errno for error in owner.lost] == [32]  # EPIPE
    os.close(server.write)
    server.connect()
    server.receive_all()
    assert [event["seq"] for event in received(server.connections)[0]] == [1, 2]


def test_drops_are_announced(owner: Owner, server: Server) -> None:
    """Once the sink is back it is told, among the events, how many are missing."""
    owner.make(8000)
    for number in range(100):
        owner.write(3, 50, lifecycle=number == 5)
    held = owner.stream.events()
    assert held == 300  # those dropped have not been told yet
    server.connect()
    server.receive_all()
    events, _ = received(server.connections)
    assert 6 in [event["seq"] for event in events]
    told = sum(event.get("dropped", 0) for event in events)
    assert told + sum("pad" in event for event in events) == 300
    assert owner.stream.events() == 0
    assert owner.announced <= 2


def test_announcement_that_is_dropped(owner: Owner, server: Server) -> None:
    """If the announcement must go too, the next one tells what it would have."""
    owner.make(8000)
    for _ in range(100):
        owner.write(1, 500)
    server.connect()
    server.disconnect()
    for _ in range(10):
        owner.write(1, 3000, lifecycle=True)
    server.connect()
    server.receive_all()
    events, _ = received(server.connections)
    told = sum(event.get("dropped", 0) for event in events)
    assert len(events) + told == sum(owner.lines.values())


class StreamMachine(RuleBasedStateMachine):
    """Write, read, connect and disconnect at random; a receiver keeps the books."""

    LIMIT = 20_000
    MOST = 5 * 3100

    @initialize()
    def begin(self) -> None:
        self.owner = Owner()
        self.owner.make(self.LIMIT)
        self.server = Server(self.owner)

    @rule(
        lines=st.integers(1, 5),
        size=st.sampled_from([0, 40, 3000]),
        lifecycle=st.booleans(),
        times=st.sampled_from([1, 1, 10]),
    )
    def write(self, lines: int, size: int, lifecycle: bool, times: int) -> None:
        # Life-cycle events are few and small: they are not what makes a buffer full.
        for _ in range(1 if lifecycle else times):
            self.owner.write(lines, 0 if lifecycle else size, lifecycle)

    @precondition(lambda self: not self.server.up)
    @rule()
    def connect(self) -> None:
        self.server.connect()

    @precondition(lambda self: self.server.up)
    @rule(size=st.sampled_from([1, 100, 4096, 65536]))
    def receive(self, size: int) -> None:
        self.server.receive(size)

    @precondition(lambda self: self.server.up)
    @rule()
    def disconnect(self) -> None:
        self.server.disconnect()

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0]))
    def advance(self, seconds: float) -> None:
        self.owner.loop.advance(seconds)

    @invariant()
    def bounded(self) -> None:
        assert self.owner.stream._queue.size <= self.LIMIT + self.MOST

    @invariant()
    def held_only_by_who_can_let_go(self) -> None:
        since = self.owner.held_since
        if not self.server.up and since is not None:
            # Before the first connection, which may be a moment away.
            assert not self.server.connections
            assert self.owner.loop.now - since < _KEEPS_UP

    def teardown(self) -> None:
        if not self.server.up:
            self.server.connect()
        self.server.receive_all()
        assert self.owner.stream.empty
        assert self.owner.held_since is None
        events, _ = received(self.server.connections)
        # Whole batches, in order, each once: and what is missing was announced.
        numbers = [event["seq"] for event in events]
        assert numbers == sorted(numbers)
        # A batch of which the receiver got a part, and no more, counts as missing.
        lines = self.owner.lines
        whole = [n for n in set(numbers) if numbers.count(n) == lines[n]]
        told = sum(event.get("dropped", 0) for event in events)
        assert sum(lines[n] for n in whole) + told == sum(lines.values())
        self.server.disconnect()


StreamMachine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None
)
TestStream = StreamMachine.TestCase


def test_patience(owner: Owner, server: Server) -> None:
    """A sink that takes nothing holds the app up once, for so long, and no more."""
    owner.make(20_000)
    server.connect()
    for _ in range(1000):
        owner.write(1, 500)
        owner.loop.advance(0.01)
    assert owner.holds == 1
    assert owner.held_since is None
    assert owner.held_for == pytest.approx(_KEEPS_UP + _CREDIT)


def test_patience_in_the_long_run(owner: Owner, server: Server) -> None:
    """A sink that takes a little now and then costs the app its share of the time."""
    owner.make(20_000)
    server.connect()
    began = owner.loop.now
    for turn in range(20_000):
        if owner.held_since is None:
            owner.write(1, 500)
        if turn % 500 == 499:
            server.receive_all()
        owner.loop.advance(0.01)
    elapsed = owner.loop.now - began
    assert owner.holds > 3
    most = _CREDIT + _SHARE * elapsed + _KEEPS_UP * owner.holds
    assert owner.held_for <= most


def test_a_sink_that_keeps_up_is_waited_for(owner: Owner, server: Server) -> None:
    """A burst that a good sink takes within the time is not dropped from."""
    owner.make(20_000)
    server.connect()
    sent = 0
    for _ in range(2000):
        if owner.held_since is None:
            owner.write(1, 500)
            sent += 1
        else:
            server.receive_all()
        owner.loop.advance(0.01)
    server.receive_all()
    assert owner.announced == 0
    assert len(received(server.connections)[0]) == sent > 1000


def test_held_app_is_let_go_when_the_sink_goes(owner: Owner, server: Server) -> None:
    """A connection that breaks while the app is held up lets it go at once."""
    owner.make(20_000)
    server.connect()
    while owner.held_since is None:
        owner.write(1, 500)
    server.disconnect()
    assert owner.held_since is None
    owner.loop.advance(10.0)
    assert owner.holds == 1


def test_when_empty(owner: Owner, server: Server) -> None:
    """`when_empty` calls at once if there is nothing, else after the last byte."""
    owner.make(100_000)
    called: list[int] = []
    owner.stream.when_empty(lambda: called.append(1))
    assert called == [1]
    owner.write(100, 200)
    owner.stream.when_empty(lambda: called.append(2))
    server.connect()
    server.receive(1000)
    assert called == [1]
    server.receive_all()
    assert called == [1, 2]


def test_full_disk(owner: Owner) -> None:
    """While the disk is full the events are kept, and tried again every second."""
    owner.make(100_000)
    owner.loop.add_writer = refuse  # type: ignore[method-assign]
    full = os.open("/dev/full", os.O_WRONLY)
    null = os.open("/dev/null", os.O_WRONLY)
    try:
        owner.stream.attach(full)
        for _ in range(10):
            owner.write()
        owner.loop.advance(5.0)
        assert owner.stream.events() == 10
        assert owner.lost == []
        (said,) = owner.said  # once, not once a second
        assert "no space left on device" in said
        os.dup2(null, full)
        owner.loop.advance(1.0)
        assert owner.stream.empty
        owner.stream.detach()
    finally:
        os.close(full)
        os.close(null)


def refuse(fd: int, callback: object) -> None:
    """Be a loop that is asked to watch a file."""
    raise PermissionError(1, "Operation not permitted")
