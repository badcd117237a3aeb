# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What counts as delivered: by the kernel's account, or by a receiver's own word."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import pytest

from forza._event import Encoder
from forza.sinks import _unacked
from forza.sinks._answers import Answers
from forza.sinks._dial import first
from forza.sinks._unacked import Unacked, unsent
from tests.forza.conftest import PATIENCE, Run, StillLoop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forza._monitor import Monitor
    from forza.sinks._stream import Stream

GREETING = b'{"forza":"listen","version":1}\n'
DOUBT, DOUBT_BYTES = _unacked._DOUBT_SECONDS, _unacked._DOUBT_BYTES
WINDOW = _unacked._WINDOW


class Bench:
    """One connection; a test says what the peer's kernel has not acknowledged.

    It is the `Monitor` and the `Stream`, as far as `Unacked` knows of them.
    """

    def __init__(self, *, friend: bool = False) -> None:
        self.loop = StillLoop()
        self.delivered = 0
        self.resumed = 0
        self.unsent = 0
        self.unacked = Unacked(cast("Monitor", self))
        self.unacked.stream = cast("Stream", self)
        self.unacked.open(7, lambda _: self.unsent, friend=friend)
        self.answers = Answers(self.unacked)
        self.encoder = Encoder("host", "b1", None)

    def done(self, count: int) -> None:
        self.delivered += count

    def resume(self) -> None:
        self.resumed += 1

    def events(self, *counts: int) -> None:
        """Write batches of so many events: seq 1, 2, …"""
        for count in counts:
            self.unacked.add(self.encoder.lines("logs/stdout", b"x\n" * count))

    def bytes(self, *sizes: int) -> None:
        """Write batches of so many bytes."""
        for size in sizes:
            self.unacked.add(b"x" * size)

    def ack(self, boot: object, seq: object, events: object) -> bool:
        """Let the receiver acknowledge; the values are JSON as they stand."""
        return self.answers.data(
            b'{"ack":{"boot":%s,"seq":%s,"events":%s}}\n'
            % tuple(str(value).encode() for value in (boot, seq, events))
        )

    def plain(self) -> None:
        """Let the time for a greeting pass."""
        self.loop.advance(_unacked._GREETING_OF_A_FRIEND)
        assert self.unacked.plain

    @property
    def timers(self) -> int:
        return len(self.loop._live())


@pytest.fixture
def bench() -> Bench:
    """A new connection."""
    return Bench()


# A receiver that does not acknowledge.


def test_nothing_counts_before_the_greeting_might_come(bench: Bench) -> None:
    """However much the kernel has acknowledged, nothing is delivered as yet, and no
    more than the window is sent."""
    while not bench.unacked.full:
        bench.bytes(50_000)
    assert bench.delivered == 0
    assert bench.unacked._bytes < WINDOW + 50_000
    bench.plain()
    assert not bench.unacked.full
    assert bench.delivered > 0
    assert bench.resumed == 1


def test_the_newest_stays_in_doubt(bench: Bench) -> None:
    """What the kernel has taken just now may never be read: so much of it is kept."""
    bench.plain()
    for _ in range(100):
        bench.bytes(1000)
    kept = 100 - bench.delivered
    assert DOUBT_BYTES / 1000 <= kept <= DOUBT_BYTES / 1000 + 36  # a look each 64 KiB


def test_doubt_ends_with_a_later_write(bench: Bench) -> None:
    """What was acknowledged a second before is delivered when more is written."""
    bench.plain()
    bench.bytes(10)  # looks at once: the last look was long ago
    bench.bytes(10)
    bench.loop.advance(DOUBT / 2)
    bench.bytes(10)
    assert bench.delivered == 0
    bench.loop.advance(DOUBT / 2)
    bench.bytes(10)  # and what the first look saw is old
    assert bench.delivered == 1
    bench.loop.advance(DOUBT)
    bench.bytes(10)
    assert bench.delivered == 4


def test_unacknowledged_is_not_delivered(bench: Bench) -> None:
    """What the kernel has not acknowledged is kept, however old."""
    bench.plain()
    bench.unsent = 25
    bench.bytes(10, 10, 10)
    for _ in range(5):
        bench.loop.advance(DOUBT)
        bench.unacked.look()
    assert bench.delivered == 0
    bench.unsent = 15
    bench.unacked.look(0)
    assert bench.delivered == 1
    bench.unsent = 0
    bench.unacked.look(0)
    assert bench.delivered == 3


def test_idle_sets_no_timer(bench: Bench) -> None:
    """A few readings, in doubt, wake nobody."""
    bench.plain()
    for _ in range(10):
        bench.bytes(*[300] * 6)
        assert bench.timers == 0
        bench.loop.advance(5.0)
    assert bench.delivered >= 6 * 8


def test_a_burst_is_given_back(bench: Bench) -> None:
    """After a burst, the memory of what has arrived is freed without another."""
    bench.unsent = 500_000
    bench.plain()
    bench.bytes(*[10_000] * 50)
    assert bench.delivered == 0
    assert bench.timers == 1
    bench.unsent = 0
    bench.loop.advance(3 * DOUBT)
    assert bench.unacked._bytes <= DOUBT_BYTES
    assert bench.timers == 0


def test_all_arrived(bench: Bench) -> None:
    """In doubt is not the same as on its way."""
    assert not bench.unacked.all_arrived
    bench.plain()
    bench.bytes(10)
    assert bench.unacked.all_arrived
    bench.unsent = 1
    assert not bench.unacked.all_arrived


def test_close_forgets(bench: Bench) -> None:
    """What a connection had on its way is nobody's on the next one."""
    bench.plain()
    bench.bytes(100_000)
    bench.unacked.close()
    assert bench.timers == 0
    bench.unacked.open(7, lambda _: 0, friend=False)
    bench.plain()
    bench.unacked.look(0)
    assert bench.delivered == 0


# A receiver that does.


def test_greeting_and_acknowledgements(bench: Bench) -> None:
    """From its greeting on, its word alone counts: batches, and all before them."""
    assert bench.answers.data(GREETING)
    bench.events(3, 1, 2)
    bench.unacked.look()
    assert bench.timers == 0
    assert bench.ack('"b1"', 1, 2)
    assert bench.delivered == 0
    assert bench.ack('"b1"', 1, 3)
    assert bench.delivered == 1
    assert bench.ack('"b1"', 3, 2)
    assert bench.delivered == 3
    assert not bench.unacked._bytes


@pytest.mark.parametrize("size", [1, 2, 7, 4096])
def test_in_pieces(bench: Bench, size: int) -> None:
    """It makes no difference how the words are cut up on their way."""
    bench.events(1, 1)
    words = GREETING
    for seq in (1, 2):
        words += b'{"ack":{"boot":"b1","seq":%d,"events":1}}\n' % seq
    for at in range(0, len(words), size):
        bench.answers.data(words[at : at + size])
    assert bench.delivered == 2


def test_late_greeting(bench: Bench) -> None:
    """A greeting after the time for it counts from then on; what had been delivered by
    the kernel's account is."""
    bench.unsent = 100_000
    bench.events(*[100] * 20)
    bench.plain()
    before = bench.delivered
    assert 0 < before < 20
    bench.unsent = 0
    assert bench.answers.data(GREETING)
    bench.loop.advance(10 * DOUBT)
    bench.events(1)
    assert bench.delivered == before
    assert bench.ack('"b1"', 20, 100)
    assert bench.delivered == 20


def test_greeting_twice(bench: Bench) -> None:
    """A second greeting is as good as none."""
    bench.answers.data(GREETING)
    bench.events(1)
    assert not bench.answers.data(GREETING)
    bench.answers.data(GREETING + b'{"ack":{"boot":"b1","seq":1,"events":1}}\n')
    assert bench.delivered == 1


def test_greeting_after_other_words(bench: Bench) -> None:
    """Who begins with anything else is no receiver of ours, whatever follows."""
    assert not bench.answers.data(b"220 mail.example ready\n" + GREETING)
    assert bench.unacked.plain
    bench.events(1)
    assert not bench.answers.data(GREETING)
    assert not bench.ack('"b1"', 1, 1)
    assert bench.delivered == 0


@pytest.mark.parametrize(
    "word",
    [
        b'{"forza":"listen","version":2}\n',
        b'{"forza":"listen"}\n',
        b'["forza"]\n',
        b"\n",
        b"\xff\xfe\n",
        b"{" * 400 + b"\n",
        b" " * 600 + GREETING,
        b"x" * 10_000,
    ],
)
def test_no_greeting(bench: Bench, word: bytes) -> None:
    """What is not just our greeting is none, and does not make us wait."""
    assert not bench.answers.data(word)
    assert bench.unacked.plain
    assert len(bench.answers._tail) <= 513


@pytest.mark.parametrize(
    ("boot", "seq", "events"),
    [
        ('"b1"', 4, 1),  # not sent yet
        ('"b1"', 2**62, 1),
        ('"b1"', 10**30, 1),
        ('"b1"', -1, 1),
        ('"b1"', "1.0", 1),
        ('"b1"', '"1"', 1),
        ('"b1"', "true", 1),
        ('"b1"', 1, "null"),
        ('"b1"', 1, "true"),
        ('"b1"', 1, 10**30),
        ('"b2"', 1, 1),
        ('"b"', 1, 1),
        ('""', 1, 1),
        ("null", 1, 1),
        ("[]", 1, 1),
        ('"\\ud800"', 1, 1),
        ('"%s"' % ("b" * 600), 1, 1),
    ],
)
def test_lies(bench: Bench, boot: str, seq: object, events: object) -> None:
    """An acknowledgement of what was not sent, or of nothing at all, delivers
    nothing, and spoils nothing for the next."""
    bench.answers.data(GREETING)
    bench.events(1, 1, 1)
    assert not bench.ack(boot, seq, events)
    assert bench.delivered == 0
    assert bench.ack('"b1"', 3, 1)
    assert bench.delivered == 3


@pytest.mark.parametrize("events", [-1, -(2**62), 0])
def test_nothing_of_a_batch(bench: Bench, events: int) -> None:
    """Of the batch itself nothing has come then; all before it has."""
    bench.answers.data(GREETING)
    bench.events(1, 1, 1)
    bench.ack('"b1"', 2, events)
    assert bench.delivered == 1


def test_more_than_there_is_of_a_batch(bench: Bench) -> None:
    """All of it, and no more."""
    bench.answers.data(GREETING)
    bench.events(1, 1)
    assert bench.ack('"b1"', 1, 2**62)
    assert bench.delivered == 1


def test_backwards(bench: Bench) -> None:
    """An old acknowledgement is no news."""
    bench.answers.data(GREETING)
    bench.events(4, 4)
    assert bench.ack('"b1"', 1, 4)
    assert not bench.ack('"b1"', 1, 4)
    assert bench.ack('"b1"', 2, 3)
    assert not bench.ack('"b1"', 2, 2)
    assert bench.delivered == 1


def test_endless_line(bench: Bench) -> None:
    """A word without an end takes no memory, and what follows it is understood."""
    bench.answers.data(GREETING)
    bench.events(1)
    for _ in range(1000):
        assert not bench.answers.data(b'{"ack":' + b"x" * 1000)
    assert len(bench.answers._tail) <= 513
    bench.answers.data(b"\n")
    assert bench.ack('"b1"', 1, 1)


def test_only_the_last_of_many_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood of lies costs no more than one."""
    looked: list[int] = []
    bench.answers.data(GREETING)
    bench.events(1)
    real = Unacked.acked

    def count(self: Unacked, boot: str, seq: int, events: int) -> bool:
        looked.append(seq)
        return real(self, boot, seq, events)

    monkeypatch.setattr(Unacked, "acked", count)
    lie = b'{"ack":{"boot":"b1","seq":%d,"events":1}}\n'
    bench.answers.data(b"".join(lie % n for n in range(1000, 0, -1)))
    assert looked == [1]
    assert bench.delivered == 1


def test_several_batches_as_one(bench: Bench) -> None:
    """A spool hands out several batches, of several boots even, in one piece."""
    other = Encoder("host", "b2", None)
    bench.answers.data(GREETING)
    pieces = [
        b"".join(e.lines("logs/stdout", b"x\n" * 3) for _ in range(2))
        for e in (other, bench.encoder)
    ]
    for piece in pieces:
        bench.unacked.add(piece)
    assert bench.ack('"b2"', 1, 3)
    assert bench.delivered == 0
    assert bench.ack('"b2"', 2, 3)
    assert bench.delivered == 1
    assert bench.ack('"b1"', 1, 1)
    assert bench.delivered == 1
    assert bench.ack('"b1"', 2, 3)
    assert bench.delivered == 2


def test_a_friend_is_given_time() -> None:
    """Who has greeted before is waited for, and nothing counts meanwhile."""
    bench = Bench(friend=True)
    bench.events(1)
    bench.loop.advance(_unacked._GREETING)
    assert not bench.unacked.plain
    bench.plain()


# The kernel's account.


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection whose reader takes little."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with closing(socket.create_connection(listener.getsockname())) as writer:
            reader, _ = listener.accept()
            with closing(reader):
                writer.setblocking(False)
                yield writer, reader


def fill(writer: socket.socket) -> int:
    """Write until there is no room; return how much that was."""
    written = 0
    while True:
        try:
            written += writer.send(b"x" * 65536)
        except BlockingIOError:
            return written


def test_unsent(pair: tuple[socket.socket, socket.socket]) -> None:
    """What the peer's kernel has not taken is counted, before and after a reset."""
    writer, reader = pair
    assert unsent(writer.fileno()) == 0
    written = fill(writer)
    left = unsent(writer.fileno())
    assert 0 < left < written
    reader.close()  # with unread data: a reset
    writer.settimeout(PATIENCE)
    with pytest.raises(ConnectionResetError):
        writer.recv(1)
    assert 0 < unsent(writer.fileno()) <= left


# Dialling.


class Made:
    """Something that a dial has made."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_first(run: Run) -> None:
    """Targets are tried in turn, none is waited for, and only the first is kept."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun: list[str] = []
        made: dict[str, Made] = {}
        go = {name: asyncio.Event() for name in "abc"}
        ended: list[str] = []

        async def attempt(name: str) -> Made | None:
            begun.append(name)
            try:
                await go[name].wait()
                made[name] = Made(name)
                return made[name]
            finally:
                ended.append(name)

        task: asyncio.Task[Any] = loop.create_task(first(loop, attempt, "abc", 0.01))
        while len(begun) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0)
        go["b"].set()
        assert (await task).name == "b"
        assert begun == ["a", "b", "c"]
        assert sorted(ended) == ["a", "b", "c"]
        assert not made["b"].closed

    run(main())


def test_first_of_none(run: Run) -> None:
    """If all fail, the next is not waited for, and the answer is None."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun: list[int] = []

        async def attempt(n: int) -> Made | None:
            begun.append(n)
            return None

        assert await first(loop, attempt, range(5), 3600.0) is None
        assert begun == [0, 1, 2, 3, 4]
        assert await first(loop, attempt, [], 3600.0) is None

    run(main())


def test_first_that_succeeds_ends_the_search(run: Run) -> None:
    """A success at once leaves the others untried."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        begun: list[str] = []

        async def attempt(name: str) -> Made | None:
            begun.append(name)
            return Made(name) if name == "b" else None

        made = await first(loop, attempt, "abc", 3600.0)
        assert made is not None
        assert made.name == "b"
        assert begun == ["a", "b"]

    run(main())


def test_second_success_is_undone(run: Run) -> None:
    """Two that succeed at the same moment: one is kept, the other closed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        go = asyncio.Event()
        made: list[Made] = []
        waiting: list[str] = []

        async def attempt(name: str) -> Made | None:
            waiting.append(name)
            await go.wait()
            made.append(Made(name))
            return made[-1]

        task: asyncio.Task[Any] = loop.create_task(first(loop, attempt, "ab", 0.001))
        while len(waiting) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        go.set()
        kept = await task
        assert [m for m in made if not m.closed] == [kept]
        assert len(made) == 2

    run(main())


def test_first_cancelled(run: Run) -> None:
    """Who gives up leaves nothing behind: neither attempts nor what they have made."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended: list[str] = []
        begun: list[str] = []

        async def attempt(name: str) -> Made | None:
            begun.append(name)
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(name)
            return None

        task: asyncio.Task[Any] = loop.create_task(first(loop, attempt, "ab", 0.001))
        while len(begun) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == ["a", "b"]

    run(main())
