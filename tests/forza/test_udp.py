# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Datagrams: one event each, losses counted as far as they can be known."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

import forza
from forza import sinks
from forza.sinks import udp
from forza.sinks._buffer import Buffer
from forza.sinks.udp import Udp
from tests.forza.conftest import PATIENCE, Owner, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Event

LIMIT = 1 << 20


class Peer:
    """A receiver of datagrams."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]

    async def receive(self) -> Event:
        """Wait for one datagram: one event."""
        async with asyncio.timeout(PATIENCE):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 1 << 16)
        assert data.endswith(b"\n")
        event: Event = json.loads(data)
        return event

    def close(self) -> None:
        """Listen no more: datagrams are refused from now on."""
        self.sock.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A receiver that lives as long as the test."""
    peer = Peer()
    yield peer
    peer.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without waiting long."""
    monkeypatch.setattr(udp, "_DELAY_FIRST", 0.002)
    monkeypatch.setattr(udp, "_DELAY_MOST", 0.01)


def connect(host: str, port: int, limit: int = LIMIT) -> tuple[Owner, Udp]:
    """Open a sink, and what owns it."""
    owner = Owner()
    sink = Udp(owner, f"udp:{host}:{port}", host, port, Buffer(limit))
    owner.sink = sink
    return owner, sink


async def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def test_url() -> None:
    """One host; several could not stand in for each other."""
    sinks.check("udp:localhost:1")
    sinks.check("udp:[::1]:1")
    with pytest.raises(forza.UsageError, match="fail-over"):
        sinks.check("udp:a:1,b:2")
    with pytest.raises(forza.PortError):
        sinks.check("udp:a:x")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_one_event_a_datagram(run: Run, host: str) -> None:
    """Each line of a batch is a datagram, also those from before the address."""

    async def main() -> None:
        peer = Peer("::1" if host == "::1" else "127.0.0.1")
        owner, sink = connect("127.0.0.1" if host == "localhost" else host, peer.port)
        owner.send("n", 1)
        owner.send_lines("logs/stdout", b"a\nb\nc\n")
        assert (await peer.receive())["service"] == "n"
        texts = [(await peer.receive())["description"] for _ in range(3)]
        assert texts == ["a\n", "b\n", "c\n"]
        owner.send("n", 2)
        assert (await peer.receive())["metric"] == 2
        assert await sink.close(PATIENCE) == 0
        peer.close()

    run(main())


def test_too_long(run: Run, peer: Peer) -> None:
    """What fits in no datagram is refused, counted and announced; all else arrives."""

    async def main() -> None:
        owner, sink = connect("127.0.0.1", peer.port)
        owner.send("n", 1)
        await peer.receive()
        owner.send("n", 2, "x" * 70_000)
        owner.send("n", 3, "x" * 60_000)
        assert (await peer.receive())["metric"] == 3
        sink.announce()
        dropped = await peer.receive()
        assert dropped["service"] == "telemetry/dropped"
        assert dropped["metric"] == 1
        assert dropped["meta"]["bytes"] > 70_000
        assert dropped["meta"]["reason"] == "too long for a datagram"
        assert dropped["meta"]["sink"] == f"udp:127.0.0.1:{peer.port}"
        assert await sink.close(PATIENCE) == 0

    run(main())


@pytest.mark.usefixtures("hasty")
def test_refused(run: Run) -> None:
    """That nobody listens is counted, said once, and ends nothing."""

    async def main() -> None:
        peer = Peer()
        peer.close()
        owner, sink = connect("127.0.0.1", peer.port)
        await soon(lambda: sink._socket)

        def refused() -> bool:
            owner.send("n", 0)
            return bool(sink._dropped)

        await soon(refused)
        assert [*sink._dropped] == ["connection refused"]
        back = Peer(port=peer.port)
        # An error is told for an earlier datagram: the next one is sent all the same.
        await soon(lambda: sink._socket and not sink._looking.done())
        sink.announce()
        while (event := await back.receive())["service"] != "telemetry/dropped":
            pass
        assert event["meta"]["reason"] == "connection refused"
        assert event["metric"] >= 1
        assert len([text for text in owner.said if "refused" in text]) == 1
        await sink.close(PATIENCE)
        back.close()

    run(main())


@pytest.mark.usefixtures("hasty")
def test_name_is_looked_up_again(
    run: Run, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without an address is asked for until it has one, and after an error."""
    gone = Peer()
    gone.close()
    asked: list[bytes] = []

    def getaddrinfo(host: bytes, port: int, family: int, kind: int) -> list[Any]:
        asked.append(host)
        assert kind == socket.SOCK_DGRAM
        if len(asked) < 3:
            raise socket.gaierror(-2, "Name or service not known")
        port = gone.port if len(asked) == 3 else peer.port
        return [(socket.AF_INET, kind, 17, "", ("127.0.0.1", port))]

    monkeypatch.setattr("forza.sinks._names.getaddrinfo", getaddrinfo)

    async def main() -> None:
        owner, sink = connect("metrics.example", 7)
        owner.send("n", 1)
        await soon(lambda: len(asked) >= 3)

        def again() -> bool:
            owner.send("n", 2)
            return len(asked) >= 4

        await soon(again)
        # Asked for is not yet found: until then all goes where it went before.
        await soon(lambda: not sink._looking.done())
        owner.send("n", 3)
        while (await peer.receive())["metric"] != 3:
            pass
        assert set(asked) == {b"metrics.example"}
        assert any("name or service not known" in text for text in owner.said)
        await sink.close(PATIENCE)

    run(main())


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("host", ["x" * 70, "\u00fc" * 70, "a..b", "\udcff", "a\0b"])
def test_name_that_no_resolver_takes(run: Run, host: str) -> None:
    """Events wait within the bound, the oldest are dropped, and leaving tells."""

    async def main() -> None:
        owner, sink = connect(host, 7, limit=64 << 10)
        for number in range(1000):
            owner.send("n", number)
        await soon(lambda: owner.said)
        assert await sink.close(0.01) == 1000

    run(main())


def test_flood(run: Run, peer: Peer) -> None:
    """A flood blocks nobody: what is not sent waits, or is dropped and counted."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)

    async def main() -> None:
        owner, sink = connect("127.0.0.1", peer.port)
        await soon(lambda: sink._socket)
        assert sink._socket is not None
        sink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        for number in range(2000):
            owner.send("n", number)
        assert await sink.close(PATIENCE) == 0
        numbers = []
        while True:
            try:
                numbers.append(json.loads(peer.sock.recv(1 << 16))["metric"])
            except BlockingIOError:
                break
        assert numbers == sorted(numbers)
        assert len(numbers) > 100

    run(main())
