# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Events over a unix socket, whose kernel forgets what nobody has read."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING

import pytest

from forza import _errors, sinks
from forza.sinks import _client
from forza.sinks._buffer import Buffer
from forza.sinks._client import Client
from forza.sinks.unix import LONGEST_PATH, open_unix, unread
from tests.forza.conftest import PATIENCE, Owner, Run
from tests.forza.test_sinks import number, receive, receive_all, soon

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again without waiting long."""
    monkeypatch.setattr(_client, "_DELAY_FIRST", 0.002)
    monkeypatch.setattr(_client, "_DELAY_MOST", 0.01)


class Peer:
    """The other end, which does just what a test tells it."""

    def __init__(self, path: Path | str, backlog: int = 8) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path).replace("@", "\0", 1))
        self.listener.setblocking(False)
        self.listener.listen(backlog)

    async def accept(self) -> socket.socket:
        """Take the next connection."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            connection, _ = await loop.sock_accept(self.listener)
        connection.setblocking(False)
        return connection


def connect(path: Path | str, limit: int = 64 << 20) -> tuple[Owner, Client]:
    """Open a sink, and what owns it."""
    owner = Owner()
    owner.sink = sink = open_unix(owner, f"unix:{path}", Buffer(limit))
    return owner, sink


@pytest.mark.parametrize("url", ["unix:/a", "unix:a/b", "unix:///a", "unix:@a"])
def test_good_url(url: str) -> None:
    """These can be opened, perhaps, and have a spool."""
    sinks.check(url)
    assert sinks.is_spooled(url)


@pytest.mark.parametrize("url", ["unix:", "unix:@", "unix:/\0", "unix:" + "x" * 108])
def test_bad_url(url: str) -> None:
    """These never."""
    with pytest.raises(_errors.UsageError) as caught:
        sinks.check(url)
    assert url in str(caught.value)


@pytest.mark.parametrize("name", ["socket", "@", "long"])
def test_delivery(run: Run, tmp_path: Path, name: str) -> None:
    """What was sent before and after the connection arrives, in order, and an end."""
    path = str(tmp_path / "socket")
    if name == "@":
        path = f"@{tmp_path}"
    if name == "long":
        path = f"{tmp_path}/".ljust(LONGEST_PATH, "x")

    async def main() -> None:
        peer = Peer(path)
        owner, sink = connect(path)
        owner.send("n", 0)
        connection = await peer.accept()
        first = await receive(connection, 10)
        owner.send("n", 1)
        closing = asyncio.create_task(sink.close(PATIENCE))
        rest = await receive(connection, 1 << 20)
        assert await closing == 0
        events = [json.loads(line) for line in (first + rest).splitlines()]
        assert number(events) == [0, 1]
        assert owner.said == [f"connected to {path}"]
        connection.close()
        peer.listener.close()

    run(main())


def test_not_there_yet(run: Run, tmp_path: Path) -> None:
    """No file, a file that nobody listens on, a full queue: each is said, once, and
    tried again."""
    path = tmp_path / "socket"

    async def main() -> None:
        owner, sink = connect(path)
        owner.send("n", 1)
        await soon(lambda: owner.said)
        assert "no such file or directory; trying again" in owner.said[0]
        dead = socket.socket(socket.AF_UNIX)
        dead.bind(str(path))
        await soon(lambda: len(owner.said) > 1)
        assert "connection refused; trying again" in owner.said[1]
        dead.close()
        path.unlink()
        # A bound socket that does not listen refuses: so it is filled in one go.
        peer = Peer(tmp_path / "other", backlog=0)
        filler = socket.socket(socket.AF_UNIX)
        filler.connect(str(tmp_path / "other"))
        (tmp_path / "other").rename(path)
        await soon(lambda: "as many connections" in owner.said[-1])
        (await peer.accept()).close()
        connection = await peer.accept()
        closing = asyncio.create_task(sink.close(PATIENCE))
        assert number(await receive_all(connection)) == [1]
        assert await closing == 0
        for sock in (filler, connection, peer.listener):
            sock.close()

    run(main())


def test_what_nobody_has_read_is_sent_again(run: Run, tmp_path: Path) -> None:
    """A server that dies takes what it has not read with it, and the kernel tells
    nobody how much that was: the next one gets it."""
    path = tmp_path / "socket"

    async def main() -> None:
        peer = Peer(path)
        owner, sink = connect(path)
        connection = await peer.accept()
        await soon(lambda: sink._unacked.plain)
        for n in range(3000):
            owner.send("n", n, "x" * 100)
        part = await receive(connection, 100_000)
        connection.close()
        connection = await peer.accept()
        closing = asyncio.create_task(sink.close(PATIENCE))
        events = await receive_all(connection)
        assert await closing == 0
        heard = number([json.loads(line) for line in part.split(b"\n")[:-1]])
        again = number(events)
        assert again == list(range(again[0], 3000))
        assert again[0] <= len(heard)
        connection.close()
        peer.listener.close()

    run(main())


def test_closed_in_order(run: Run, tmp_path: Path) -> None:
    """A server that has read everything and closes while we are leaving has it."""
    path = tmp_path / "socket"

    async def main() -> None:
        peer = Peer(path)
        owner, sink = connect(path)
        connection = await peer.accept()
        await soon(lambda: sink._unacked.plain)
        owner.send("n", 1)
        await receive(connection, 10)
        closing = asyncio.create_task(sink.close(PATIENCE))
        await receive(connection, 1 << 20)
        connection.close()
        assert await closing == 0
        peer.listener.close()

    run(main())


def test_not_read_is_not_delivered(run: Run, tmp_path: Path) -> None:
    """What waits in the kernel when the time is up counts as lost, whether the server
    is still there or has just gone."""
    path = tmp_path / "socket"

    async def main() -> None:
        for goes in (False, True):
            peer = Peer(path)
            owner, sink = connect(path)
            connection = await peer.accept()
            await soon(lambda: sink._unacked.plain)  # noqa: B023
            for n in range(10):
                owner.send("n", n)
            assert sink._stream.written
            if goes:
                peer.listener.close()
                connection.close()
            assert await sink.close(0.05) == 10
            connection.close()
            peer.listener.close()
            path.unlink()

    run(main())


def test_unread() -> None:
    """The kernel counts what was not read, and we do not believe it once the other end
    is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours:
        assert unread(ours.fileno()) == 0
        ours.send(b"x" * 10_000)
        assert unread(ours.fileno()) >= 10_000
        theirs.recv(10_000)
        assert unread(ours.fileno()) == 0
        ours.send(b"x" * 10_000)
        theirs.shutdown(socket.SHUT_WR)  # it still reads
        assert 10_000 <= unread(ours.fileno()) < 1_000_000
        theirs.close()
        assert unread(ours.fileno()) > 1 << 40
