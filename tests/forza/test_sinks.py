# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Sinks that are slow, dead or hostile: no event is lost unseen, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

import forza
from forza import sinks
from forza.sinks import _client, _dial
from forza.sinks._buffer import Buffer
from forza.sinks._client import Client
from forza.sinks.file import open_file
from forza.sinks.tcp import open_tcp
from forza.testing import MetricsServer
from tests.conftest import CHILDREN, ROOT
from tests.conftest import MetricsServer as AnyServer
from tests.forza.conftest import (
    PATIENCE,
    Owner,
    Run,
    Watched,
    descriptors,
    of,
    read_events,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Event

LIMIT = 1 << 20

# URLs.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", [("a", 1337)]),
        ("a:1", [("a", 1)]),
        ("//a:65535", [("a", 65535)]),
        ("", [("127.0.0.1", 1337)]),
        (":80", [("127.0.0.1", 80)]),
        ("a:", [("a", 1337)]),
        ("[::1]:80", [("::1", 80)]),
        ("[::1]", [("::1", 1337)]),
        ("::1", [("::1", 1337)]),
        ("a:1,b,[::1]:3", [("a", 1), ("b", 1337), ("::1", 3)]),
    ],
)
def test_servers(text: str, expected: list[tuple[str, int]]) -> None:
    """Hosts and ports are understood in all their forms."""
    assert sinks.servers(text) == expected


@pytest.mark.parametrize(
    "text", ["a:0", "a:65536", "a:-1", "a:x", "a: 1", "a:1,b:x", "[::1]x", "a:\u0663"]
)
def test_bad_port(text: str) -> None:
    """A port that is none is told from other slips."""
    with pytest.raises(forza.PortError):
        sinks.check(f"tcp:{text}")


@pytest.mark.parametrize("url", ["file:a", "file:///a", "stdout:", "stdout://", "tcp:"])
def test_good_url(url: str) -> None:
    """These can be opened, perhaps."""
    sinks.check(url)


@pytest.mark.parametrize(
    "url", ["", "a", "gopher:a", "file:", "stdout:x", "TCP:a", "/tmp/a", ":", "tcp"]
)
def test_bad_url(url: str) -> None:
    """These can never be opened, and the error says so."""
    with pytest.raises(forza.UsageError) as caught:
        sinks.check(url)
    assert url in str(caught.value)


def test_file_options() -> None:
    """Both ways to write a file's URL mean the same; it may be told to rotate."""
    assert sinks.file_options("file:a/b") == ("a/b", 0, 5)
    assert sinks.file_options("file:/a") == ("/a", 0, 5)
    assert sinks.file_options("file:///a") == ("/a", 0, 5)
    assert sinks.file_options("file:a?max=10M") == ("a", 10 << 20, 5)
    assert sinks.file_options("file:a?keep=2&max=64K") == ("a", 64 << 10, 2)


@pytest.mark.parametrize(
    ("query", "culprit"),
    [
        ("max=1", "64K"),
        ("max=x", "'x'"),
        ("keep=0", "keep"),
        ("keep=1000", "keep"),
        ("size=1M", "size=1M"),
        ("", "''"),
    ],
)
def test_bad_file_options(query: str, culprit: str) -> None:
    """A slip in a file's URL is found before anything runs, and named."""
    with pytest.raises(forza.UsageError) as caught:
        sinks.check(f"file:a?{query}")
    assert culprit in str(caught.value)


# TCP.


class Peer:
    """The other end of connections, which does just what a test tells it."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0, **options: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for name, value in options.items():
            number: int = getattr(socket, name)
            self.listener.setsockopt(socket.SOL_SOCKET, number, value)
        self.listener.bind((host, port))
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []

    def listen(self, backlog: int = 8) -> None:
        """Begin to take connections; before that, they are refused."""
        self.listener.listen(backlog)

    async def accept(self) -> socket.socket:
        """Take the next connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            connection, _ = await loop.sock_accept(self.listener)
        connection.setblocking(False)
        self.connections.append(connection)
        return connection

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all of it."""
        self.listener.close()
        for connection in self.connections:
            connection.close()


async def receive(connection: socket.socket, size: int) -> bytes:
    """Receive so many bytes, or fewer if the other end has closed."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(PATIENCE):
        while len(data) < size:
            more = await loop.sock_recv(connection, size - len(data))
            if not more:
                break
            data += more
    return data


async def receive_all(connection: socket.socket) -> list[Event]:
    """Receive until the other end has closed; return the events."""
    data = await receive(connection, 1 << 30)
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.splitlines()]


def reset(connection: socket.socket) -> None:
    """Break a connection off by RST."""
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


async def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without waiting long."""
    monkeypatch.setattr(_client, "_DELAY_FIRST", 0.002)
    monkeypatch.setattr(_client, "_DELAY_MOST", 0.01)


def connect(*addresses: tuple[str, int], limit: int = LIMIT) -> tuple[Owner, Client]:
    """Open a sink, and what owns it."""
    owner = Owner()
    name = "tcp:" + ",".join(f"{host}:{port}" for host, port in addresses)
    owner.sink = sink = open_tcp(owner, name, addresses, Buffer(limit))
    return owner, sink


def number(events: list[Event]) -> list[int]:
    """Return the numbers that the test has sent."""
    return [int(event["metric"]) for event in events]


def test_delivery(run: Run) -> None:
    """What was sent before and after the connection arrives, in order, and an end."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port))
            owner.send("n", 0)
            connection = await peer.accept()
            first = await receive(connection, 10)
            owner.send("n", 1)
            owner.send_lines("logs/stdout", b"a\nb\n")
            assert await sink.close(PATIENCE) == 0
            rest = await receive(connection, 1 << 20)
            events = [json.loads(line) for line in (first + rest).splitlines()]
            assert [e["service"] for e in events] == ["n", "n"] + ["logs/stdout"] * 2
            assert owner.said == [f"connected to 127.0.0.1:{peer.port}"]

    run(main())


def test_close_without_a_word(run: Run) -> None:
    """A sink that has nothing to say closes at once, connected or not."""

    async def main() -> None:
        async with Peer() as peer:
            _, sink = connect(("127.0.0.1", peer.port))
            assert await sink.close(3600.0) == 0
            peer.listen()
            _, sink = connect(("127.0.0.1", peer.port))
            connection = await peer.accept()
            assert await sink.close(3600.0) == 0
            assert await receive(connection, 1) == b""

    run(main())


@pytest.mark.usefixtures("hasty")
def test_refused_and_then_there(run: Run) -> None:
    """While a server refuses, its events wait; the outage is said once."""

    async def main() -> None:
        async with Peer() as peer:
            owner, sink = connect(("127.0.0.1", peer.port))
            for n in range(5):
                owner.send("n", n)
            await soon(lambda: owner.said)
            await asyncio.sleep(0.05)
            peer.listen()
            connection = await peer.accept()
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) == [0, 1, 2, 3, 4]
            assert len(owner.said) == 2
            assert "connection refused; trying again" in owner.said[0]

    run(main())


def test_undelivered_is_counted(run: Run) -> None:
    """What could not be sent in time is counted, each line of a batch."""

    async def main() -> None:
        async with Peer() as peer:
            owner, sink = connect(("127.0.0.1", peer.port))
            owner.send("n", 0)
            owner.send_lines("logs/stdout", b"a\nb\n")
            assert await sink.close(0.05) == 3

    run(main())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("end", ["close", "reset"])
def test_broken_in_the_middle(run: Run, end: str) -> None:
    """A batch that was cut off is sent again whole to whoever comes next."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=64 << 20)
            connection = await peer.accept()
            await soon(lambda: owner.said)
            lines = b"".join(b"%d %s\n" % (n, b"x" * 1000) for n in range(20_000))
            owner.send_lines("logs/stdout", lines)
            owner.send("n", 1)
            part = await receive(connection, 100_000)
            # The first is slow, so that much is on its way; the next is not.
            peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            if end == "reset":
                reset(connection)
            else:
                connection.close()
            connection = await peer.accept()
            closing = asyncio.create_task(sink.close(PATIENCE))
            events = await receive_all(connection)
            assert await closing == 0
            # The first event of the repeat is the first of the batch, byte for byte.
            assert [e["service"] for e in events] == ["logs/stdout"] * 20_000 + ["n"]
            assert part.count(b"\n") > 10
            for index, line in enumerate(part.splitlines()[:-1]):
                assert json.loads(line) == events[index]
            assert any("lost the connection" in text for text in owner.said)

    run(main())


@pytest.mark.usefixtures("hasty")
def test_closed_by_the_server(run: Run) -> None:
    """A server that closes, nothing being sent, is noticed and replaced."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port))
            for n in range(3):
                connection = await peer.accept()
                owner.send("n", n)
                assert (await receive(connection, 9)) == b'{"metric"'
                connection.close()
            await peer.accept()
            assert await sink.close(PATIENCE) == 0
            said = [text for text in owner.said if "closed by the server" in text]
            assert said or any("reset" in text for text in owner.said)

    run(main())


def test_server_that_talks(run: Run) -> None:
    """What a server says is read and ignored, and costs none of the last words."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port))
            connection = await peer.accept()
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(connection, b"hello, who are you?\n" * 50_000)
            for n in range(100):
                owner.send("n", n)
            closing = asyncio.create_task(sink.close(PATIENCE))
            assert number(await receive_all(connection)) == list(range(100))
            assert await closing == 0

    run(main())


def test_receiver_that_acknowledges_without_end(run: Run) -> None:
    """However much a receiver has to say, the loop is there for others, too."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port))
            connection = await peer.accept()
            connection.setblocking(True)
            over = threading.Event()

            def talk() -> None:
                count = 1
                with suppress(OSError):
                    connection.sendall(b'{"forza":"listen","version":1}\n')
                    while not over.is_set():
                        ack = b'{"ack":{"boot":"boot","seq":1,"events":%d}}\n'
                        words = b"".join(ack % n for n in range(count, count + 1000))
                        connection.sendall(words)
                        count += 1000

            talker = threading.Thread(target=talk)
            talker.start()
            try:
                owner.send_lines("logs/stdout", b"x\n" * 1_000_000)
                await soon(lambda: sink._unacked.acking)
                for _ in range(200):
                    await asyncio.sleep(0.001)
                assert sink.connected
                assert await sink.close(0.05) in (0, 1_000_000)
            finally:
                over.set()
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                talker.join()

    run(main())


@pytest.mark.parametrize("host", ["::1", "localhost", "127.0.0.1", "127.1.2.3"])
def test_addresses(run: Run, host: str) -> None:
    """Names and addresses of both families will do."""

    async def main() -> None:
        async with Peer("::1" if host == "::1" else "0.0.0.0") as peer:
            peer.listen()
            owner, sink = connect((host, peer.port))
            owner.send("n", 1)
            connection = await peer.accept()
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) == [1]
            shown = "[::1]" if host == "::1" else host
            assert owner.said[-1] == f"connected to {shown}:{peer.port}"

    run(main())


@pytest.mark.usefixtures("hasty")
def test_name_is_resolved_each_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may come to mean another address while the app runs; all are tried."""

    async def main() -> None:
        async with Peer() as dead, Peer() as peer:
            asked: list[tuple[Any, ...]] = []

            def getaddrinfo(host: bytes, port: int, *_: int) -> list[Any]:
                asked.append((host, port))
                if len(asked) == 1:
                    raise socket.gaierror(-2, "Name or service not known")
                known = [dead.port] if len(asked) < 4 else [dead.port, peer.port]
                kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
                return [(*kind, ("127.0.0.1", port)) for port in known]

            monkeypatch.setattr("forza.sinks._names.getaddrinfo", getaddrinfo)
            peer.listen()
            owner, sink = connect(("metrics.example", 7))
            owner.send("n", 1)
            connection = await peer.accept()
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) == [1]
            assert len(asked) >= 4
            assert set(asked) == {(b"metrics.example", 7)}
            assert "cannot resolve metrics.example: Name" in owner.said[0]
            assert owner.said[-1] == "connected to metrics.example:7"

    run(main())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("host", ["x" * 70, "\u00fc" * 70, "a..b", "\udcff", "a\0b"])
def test_name_that_no_resolver_takes(run: Run, host: str) -> None:
    """A name that can't be resolved is said, and tried again, whatever is in it."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect((host, 7), ("127.0.0.1", peer.port))
            owner.send("n", 1)
            connection = await peer.accept()
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) == [1]
            assert "cannot resolve" in owner.said[0]

    run(main())


@pytest.mark.usefixtures("hasty")
def test_fail_over_and_back(run: Run) -> None:
    """Of six servers five are dead; when the sixth dies, the first is back by then."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            peers = [await stack.enter_async_context(Peer()) for _ in range(6)]
            peers[5].listen()
            owner, sink = connect(*(("127.0.0.1", peer.port) for peer in peers))
            owner.send("n", 0)
            connection = await peers[5].accept()
            assert (await receive(connection, 9)) == b'{"metric"'
            assert sum("refused" in text for text in owner.said) == 5
            peers[5].listener.close()
            peers[0].listen()
            connection.close()
            connection = await peers[0].accept()
            owner.send("n", 1)
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) in ([1], [0, 1])

    run(main())


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that neither takes a connection nor refuses it: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        clients = [socket.socket() for _ in range(4)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        yield port
        for client in clients:
            client.close()


def test_black_hole(run: Run, black_hole: int) -> None:
    """A server that never answers holds nobody up, and what it missed is counted."""

    async def main() -> None:
        owner, sink = connect(("127.0.0.1", black_hole))
        for n in range(10):
            owner.send("n", n)
        await asyncio.sleep(0.05)
        assert owner.said == []
        assert not owner.held
        assert await sink.close(0.05) == 10

    run(main())


@pytest.mark.usefixtures("hasty")
def test_black_hole_is_given_up(
    run: Run, black_hole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while a server that never answers is left for the next."""
    monkeypatch.setattr(_dial, "_CONNECT_TIMEOUT", 0.02)

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", black_hole), ("127.0.0.1", peer.port))
            owner.send("n", 1)
            connection = await peer.accept()
            assert await sink.close(PATIENCE) == 0
            assert number(await receive_all(connection)) == [1]
            assert "connection timed out" in owner.said[0]

    run(main())


def test_half_dead(run: Run) -> None:
    """A server that takes connections and never reads: bounded, and counted exactly."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=100_000)
            await peer.accept()
            await soon(lambda: sink._unacked.plain)
            line = b"x" * 1000 + b"\n"
            for _ in range(10_000):
                owner.send_lines("logs/stdout", line)
            assert owner.holds == 1
            assert sink._stream._queue.waiting <= 100_000
            # Its patience over, it lets the app go on.
            await soon(lambda: not owner.held)
            for _ in range(1000):
                owner.send_lines("logs/stdout", line)
            assert owner.holds == 1
            # What the peer's kernel has taken may be read yet; all else is counted.
            lost = await sink.close(0.05)
            assert 0 < 11_000 - lost < 1_000

    run(main())


@pytest.mark.usefixtures("hasty")
def test_half_dead_comes_round(run: Run) -> None:
    """A server that reads again, late, is told how many events are missing."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=100_000)
            connection = await peer.accept()
            await soon(lambda: owner.said)
            for n in range(10_000):
                owner.send_lines("logs/stdout", b"%d %s\n" % (n, b"x" * 1000))
            reading = asyncio.create_task(receive_all(connection))
            await soon(lambda: sink._stream.written)
            assert await sink.close(PATIENCE) == 0
            events = await reading
            logs = of(events, "logs/stdout")
            told = sum(e["metric"] for e in of(events, "telemetry/dropped"))
            assert told > 0
            assert len(logs) + told == 10_000
            numbers = [int(event["description"].split()[0]) for event in logs]
            assert numbers == sorted(set(numbers))

    run(main())


def test_linger(run: Run) -> None:
    """`close` waits until the peer's kernel has all, and no longer."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=4 << 20)
            connection = await peer.accept()
            await soon(lambda: owner.said)
            for n in range(300):
                owner.send("n", n, "x" * 1000)
            assert sink._stream.written  # all of it is the kernel's now
            closing = asyncio.create_task(sink.close(3600.0))
            await asyncio.sleep(0.05)
            assert not closing.done()
            assert number(await receive_all(connection)) == list(range(300))
            assert await closing == 0

    run(main())


def test_unacknowledged_is_not_delivered(run: Run) -> None:
    """What the peer's kernel has not taken when the time is up counts as lost."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=4 << 20)
            await peer.accept()
            await soon(lambda: owner.said)
            for n in range(300):
                owner.send("n", n, "x" * 1000)
            assert sink._stream.written
            assert await sink.close(0.05) > 0

    run(main())


@pytest.mark.parametrize("state", ["refused", "buffered", "unacknowledged"])
def test_abandon(run: Run, state: str) -> None:
    """`abandon` makes `close` give up, whatever it waits for."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as peer:
            if state != "refused":
                peer.listen()
            owner, sink = connect(("127.0.0.1", peer.port), limit=4 << 20)
            if state != "refused":
                await peer.accept()
            await soon(lambda: owner.said)
            for n in range(300):
                owner.send("n", n, "x" * (1000 if state != "buffered" else 30_000))
            sink.abandon()  # too early: nothing to give up yet
            closing = asyncio.create_task(sink.close(3600.0))
            await asyncio.sleep(0.02)
            assert not closing.done()
            sink.abandon()
            async with asyncio.timeout(5.0):
                left = await closing
            if state == "refused":
                assert left == 300

    run(main())


def test_reset_before_the_goodbye(run: Run) -> None:
    """A connection that is reset just as the sink closes is no failure of `close`."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            _, sink = connect(("127.0.0.1", peer.port))
            connection = await peer.accept()
            await soon(lambda: sink._link is not None)
            # The loop does not get to see it before it closes the sink.
            reset(connection)
            assert await sink.close(1.0) == 0

    run(main())


def test_app_ends_as_its_server_does(run: Run) -> None:
    """The same in a whole monitor, which must end: the app already has."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            said: list[str] = []

            class Breaks:
                def __init__(self, monitor: forza.Monitor, options: object) -> None:
                    pass

                async def run(self) -> None:
                    pass

                def process_exit(self, exit_status: int, term_signal: int) -> None:
                    reset(peer.connections[0])

            async with forza.Monitor(
                ["sleep", "1000"],
                to=[f"tcp:127.0.0.1:{peer.port}"],
                plugins=[Breaks],
                say=said.append,
            ) as monitor:
                await peer.accept()
                await soon(lambda: said)
                monitor.kill(15)
                async with asyncio.timeout(5.0):
                    await monitor.wait()

    run(main())


def test_exit_is_the_last_word_after_an_outage(run: Run) -> None:
    """What was dropped is announced before the last event, not after it."""

    async def main() -> None:
        async with Peer() as peer:
            owner, sink = connect(("127.0.0.1", peer.port), limit=20_000)
            for _ in range(100):
                owner.send_lines("logs/stdout", b"x" * 1000 + b"\n")
            sink.announce()
            owner.send("health/process/exit", 1.0, "0", lifecycle=True)
            owner.silent = True
            closing = asyncio.create_task(sink.close(PATIENCE))
            peer.listen()
            connection = await peer.accept()
            events = await receive_all(connection)
            assert await closing == 0
            services = [event["service"] for event in events]
            assert services.count("telemetry/dropped") == 1
            assert services[-1] == "health/process/exit"

    run(main())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long sinks would have waited: they don't."""
    pauses: list[float] = []

    async def pause(sink: Client, seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(Client, "_pause", pause)
    return pauses


def test_back_off(run: Run, pauses: list[float]) -> None:
    """The pauses double from 0.1 to 30 s; up to a half is left off at random."""

    async def main() -> None:
        async with Peer() as peer:
            _, sink = connect(*[("127.0.0.1", peer.port)] * 2)
            await soon(lambda: len(pauses) > 30)
            await sink.close(0.0)
            for turn, pause in enumerate(pauses):
                full = min(30.0, 0.1 * 2**turn)
                assert full / 2 <= pause <= full
            assert len(set(pauses[12:])) > 1

    run(main())


def test_back_off_when_connections_do_not_last(run: Run, pauses: list[float]) -> None:
    """A server that closes at once is not connected to ever faster."""

    async def main() -> None:
        async with Peer() as peer:
            peer.listen()
            _, sink = connect(("127.0.0.1", peer.port))
            for _ in range(6):
                (await peer.accept()).close()
            await soon(lambda: len(pauses) >= 6)
            await sink.close(0.0)
            assert pauses[5] > pauses[0] * 4

    run(main())


SELF_CONNECT = """
ip link set lo up || ifconfig lo up || exit 9
echo "$2 $(($2 + 1))" >/proc/sys/net/ipv4/ip_local_port_range || exit 9
exec "$1" -m forza -h "127.0.0.1:$2" --flush-timeout 0.5 -- sleep 0.5
"""


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("unshare"), reason="needs a network of its own"
)
def test_no_connection_with_itself() -> None:
    """Where nobody listens, a connection from the port to itself is not a server."""
    ended = subprocess.run(
        ["unshare", "-n", "sh", "-c", SELF_CONNECT, "sh", sys.executable, "40000"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if ended.returncode == 9:
        pytest.skip("no network of its own to be had")
    assert ended.returncode == 0
    assert "connected to" not in ended.stderr
    assert "were not delivered" in ended.stderr


# Whole monitors.


def test_server_of_testing(run: Run) -> None:
    """All events arrive at a good server, and none is said to be lost."""

    async def main() -> None:
        async with MetricsServer() as server:
            said: list[str] = []
            script = "for i in $(seq 2000); do echo line $i; done"
            ended = await forza.run(
                ["sh", "-c", script], to=[server.url], say=said.append
            )
            assert ended.code == 0
            await server.wait_for("health/process/exit")
            lines = [e["description"] for e in server.of("logs/stdout")]
            assert lines == [f"line {n}\n" for n in range(1, 2001)]
            assert said == [f"connected to 127.0.0.1:{server.port}"]

    run(main())


def test_sinks_do_not_know_of_each_other(run: Run, watched: Watched) -> None:
    """A black hole and a refused port take nothing from a file beside them."""

    async def main() -> None:
        async with Peer(SO_RCVBUF=4096) as half_dead, Peer() as refused:
            half_dead.listen()
            urls = [f"tcp:127.0.0.1:{peer.port}" for peer in (half_dead, refused)]
            ended = await watched.run(
                [sys.executable, "-S", str(CHILDREN / "flood.py"), "100000"],
                to=[*urls, watched.url],
                flush_timeout=0.1,
                buffer=64 * 1024,
            )
            assert ended.code == 0

    run(main())
    lines = [event["description"] for event in watched.of("logs/stdout")]
    assert lines == [f"line {n} of the flood\n" for n in range(100_000)]
    lost = [text for text in watched.said if "were not delivered to tcp:" in text]
    assert len(lost) == 2
    events = watched.events
    told = len(of(events, "telemetry/dropped"))  # by each sink, to all of them
    assert len(events) - told <= int(lost[1].split()[0]) <= len(events)


def test_memory_beside_a_half_dead_server(tmp_path: Path) -> None:
    """A flood to a server that never reads does not make forza any larger."""
    lines = 300_000
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        # The app itself, once it has written it all, asks how large its monitor got.
        script = '"$0" -S "$1" "$2"; grep VmHWM "/proc/$PPID/status" >"$3"'
        flood = (sys.executable, CHILDREN / "flood.py", lines, tmp_path / "peak")
        ended = subprocess.run(
            [
                *(sys.executable, "-m", "forza", "-h", address),
                *("--flush-timeout", "0.1", "--", "sh", "-c", script),
                *map(str, flood),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 0
    assert "were not delivered" in ended.stderr
    peak_kb = int((tmp_path / "peak").read_text().split()[1])
    assert peak_kb < 40_000  # what it wrote makes 50 MB of events


# Files and standard output.


def test_file_is_shared(run: Run, watched: Watched) -> None:
    """Two monitors append to one file, and neither cuts into the other's events."""

    async def main() -> None:
        script = "for i in $(seq 500); do echo $0 $i; done"
        await asyncio.gather(
            watched.run(["sh", "-c", script, "a"]),
            watched.run(["sh", "-c", script, "b"]),
        )

    run(main())
    said = [event["description"].split() for event in watched.of("logs/stdout")]
    for who in "ab":
        assert [n for name, n in said if name == who] == [str(n) for n in range(1, 501)]


@pytest.mark.parametrize("kind", ["folder", "missing", "fifo", "under a file"])
def test_file_that_cannot_be(run: Run, tmp_path: Path, kind: str) -> None:
    """What can't be opened is a SinkError before anything runs; nothing stays open."""
    path = tmp_path / "sink"
    if kind == "folder":
        path.mkdir()
    elif kind == "missing":
        path = path / "sink"
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text("")
        path = path / "sink"

    async def main() -> None:
        good = f"file:{tmp_path}/good"
        with pytest.raises(forza.SinkError) as caught:
            await forza.run(
                ["touch", str(tmp_path / "ran")], to=[good, f"file:{path}", good]
            )
        assert f"cannot write to {path}: " in str(caught.value)
        assert not (tmp_path / "ran").exists()

    run(main())


@pytest.mark.parametrize("url", ["gopher:x", "tcp:127.0.0.1:x", "stdout:x"])
def test_bad_url_after_good_ones(run: Run, tmp_path: Path, url: str) -> None:
    """A bad URL closes again what was opened before it."""

    async def main() -> None:
        async with Peer() as peer:
            good = [f"file:{tmp_path}/good", f"tcp:127.0.0.1:{peer.port}"]
            before = descriptors()
            with pytest.raises(forza.UsageError):
                await forza.run(["true"], to=[*good, url])
            for _ in range(5):
                await asyncio.sleep(0)
            assert descriptors() == before

    run(main())


def test_full_disk(run: Run) -> None:
    """On a disk that is full the app runs on, and the operator hears of the loss."""

    async def main() -> None:
        said: list[str] = []
        ended = await forza.run(
            ["sh", "-c", "echo one; echo two; exit 7"],
            to=["file:/dev/full"],
            say=said.append,
            flush_timeout=0.05,
        )
        assert ended.code == 7
        assert "events were not delivered to file:/dev/full" in said[-1]
        assert int(said[-1].split()[0]) >= 5

    run(main())


def test_full_disk_and_a_flood(run: Run) -> None:
    """A flood onto a full disk neither stops the app nor fills the memory."""

    async def main() -> None:
        said: list[str] = []
        ended = await forza.run(
            [sys.executable, "-S", str(CHILDREN / "flood.py"), "50000"],
            to=["file:/dev/full"],
            plugins=["logs"],
            say=said.append,
            flush_timeout=0.05,
            buffer=64 * 1024,
        )
        assert ended.code == 0
        assert said == [
            "cannot write to file:/dev/full: no space left on device; trying again",
            "50000 events were not delivered to file:/dev/full",
        ]

    run(main())


@pytest.mark.parametrize("pace", ["fast", "slow"])
def test_fifo(run: Run, tmp_path: Path, pace: str) -> None:
    """A named pipe is a file as well, and its reader may go at any time."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    async def main() -> None:
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        owner = Owner()
        sink = open_file(owner, f"file:{path}", Buffer(LIMIT))
        owner.sink = sink
        if pace == "fast":
            owner.send("n", 1)
            assert json.loads(os.read(reader, 4096))["metric"] == 1
            assert await sink.close(PATIENCE) == 0
        else:
            for n in range(3000):
                owner.send("n", n)
            os.close(reader)
            reader = -1
            await soon(lambda: owner.said)
            owner.send("n", 3000)
            owner.send("n", 3001)
            assert "broken pipe; its events are lost" in owner.said[0]
            assert len(owner.said) == 1
            # Nobody will ever read them: there is nothing to wait for.
            async with asyncio.timeout(5.0):
                assert await sink.close(3600.0) >= 2
        if reader >= 0:
            os.close(reader)

    run(main())


def start_forza(*args: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start forza as a program."""
    command = [sys.executable, "-m", "forza", *args]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, **options)


def end(program: subprocess.Popen[bytes]) -> str:
    """Wait for its end; return what it said."""
    try:
        _, said = program.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        program.terminate()
        program.communicate(timeout=PATIENCE)
        raise
    return said.decode()


def test_reader_that_goes_is_not_waited_for() -> None:
    """With nobody to read stdout, forza ends with the app, not after a time-out."""
    read, write = os.pipe()
    program = start_forza(
        *("--flush-timeout", "3600", "--", "sh", "-c", "read x; echo $x; exit 3"),
        stdin=subprocess.PIPE,
        stdout=write,
    )
    os.close(write)
    assert os.read(read, 1) == b"{"
    os.close(read)
    assert program.stdin is not None
    program.stdin.write(b"into the void\n")
    said = end(program)
    assert program.returncode == 3
    assert "cannot write to stdout: broken pipe" in said


def test_stdout_that_nobody_reads(tmp_path: Path) -> None:
    """A full pipe at stdout holds nobody up: the app writes it all, and ends."""
    read, write = os.pipe()
    program = start_forza(
        *("--flush-timeout", "0.1", "--", sys.executable, "-S"),
        *(str(CHILDREN / "flood.py"), "100000"),
        stdin=subprocess.DEVNULL,
        stdout=write,
    )
    os.set_blocking(read, False)
    said = end(program)
    assert program.returncode == 0
    assert "events were not delivered to stdout:" in said
    # The pipe is shared with others: its mode is left as it was.
    assert os.get_blocking(write)
    os.close(write)
    os.set_blocking(read, True)
    with open(read, "rb") as pipe:
        *whole, _ = pipe.read().split(b"\n")
    events = [json.loads(line) for line in whole]
    lost = int(said.rpartition("forza: ")[2].split()[0])
    assert len(events) + lost >= 100_000


def test_stdout_is_a_file(tmp_path: Path) -> None:
    """A file that is shared with others is written on from where they are."""
    path = tmp_path / "out"
    with path.open("wb", buffering=0) as file:
        file.write(b"before\n")
        for _ in range(2):
            program = start_forza("--", "echo", "hi", stdout=file)
            assert end(program) == ""
        file.write(b"after\n")
    first, *events, last = path.read_bytes().splitlines()
    assert (first, last) == (b"before", b"after")
    exits = [e for e in map(json.loads, events) if e["service"].endswith("/exit")]
    assert len(exits) == 2


def test_events_of_the_file_are_whole(run: Run, watched: Watched) -> None:
    """A file gets what a server gets."""

    async def main() -> None:
        async with MetricsServer() as server:
            await watched.run(["echo", "hi"], to=[watched.url, server.url])
            await server.wait_for("health/process/exit")
            assert server.events == watched.events

    run(main())


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_no_word_of_ours_among_the_events(
    tmp_path: Path, closed: tuple[int, ...]
) -> None:
    """Started with stdout or stderr closed, no sink takes their number and words."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    path = tmp_path / "events"
    with AnyServer() as server:
        program = start_forza(
            *("-h", server.address, "--to", "stdout:", "--to", f"file:{path}"),
            *("--", "sh", "-c", "echo out; echo err >&2; exit 5"),
            preexec_fn=close,
        )
        end(program)
        assert program.returncode == 5
        assert server.wait_closed() == read_events(path)
    assert "health/process/exit" in path.read_text()
