# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Encrypted connections, by the lower half of Python's `ssl` and by the whole of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import ssl
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import forza
from forza import _pem, _secured, sinks
from forza._secured import Secured, make_context
from forza.sinks import _client, _credentials, tls
from forza.sinks._buffer import Buffer
from tests.certificates import Certificates, TlsServer
from tests.forza.conftest import PATIENCE, Owner, Run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forza.sinks._client import Client


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of every kind."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["bare", "whole"], autouse=True)
def half(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of this version of Python, or not."""
    monkeypatch.setattr(_client, "_DELAY_FIRST", 0.002)
    if request.param == "whole":
        for module in _secured, _credentials:
            monkeypatch.setattr(module, "BARE", False)
            monkeypatch.setattr(module, "ssl", ssl)


# URLs.


@pytest.mark.parametrize(
    ("url", "servers", "options"),
    [
        ("tls:a", [("a", 1337)], {}),
        ("tls://a:1,[::1]:2", [("a", 1), ("::1", 2)], {}),
        ("tls:a?ca=/x/y.pem&name=b", [("a", 1337)], {"ca": "/x/y.pem", "name": "b"}),
        ("tls:a?cert=c&key=k=1", [("a", 1337)], {"cert": "c", "key": "k=1"}),
    ],
)
def test_url(url: str, servers: list[tuple[str, int]], options: dict[str, str]) -> None:
    """Servers are named as for TCP, options as for files."""
    assert tls.parse(url) == (servers, options)
    sinks.check(url)
    assert sinks.is_spooled(url)


@pytest.mark.parametrize(
    "query", ["", "x", "ca", "ca=", "verify=no", "ca=a&ca=b", "key=k", "name=.x"]
)
def test_bad_url(query: str) -> None:
    """A slip is found before anything runs, and named."""
    with pytest.raises(forza.UsageError) as caught:
        sinks.check(f"tls:a?{query}")
    assert f"'tls:a?{query}'" in str(caught.value)


def test_bad_port() -> None:
    """A port that is none is told from other slips."""
    with pytest.raises(forza.PortError):
        sinks.check("tls:a:x?ca=b")


# The sink.


def connect(*ports: int, more: str) -> tuple[Owner, Client]:
    """Open a sink, and what owns it."""
    owner = Owner()
    url = f"tls:{','.join(f'127.0.0.1:{port}' for port in ports)}?{more}"
    owner.sink = sink = tls.open_tls(owner, url, Buffer(64 << 20))
    return owner, sink


def test_delivery(run: Run, certificates: Certificates) -> None:
    """What is sent before and after the connection arrives, in order, and an end."""

    async def main() -> None:
        with TlsServer(certificates.server_context()) as server:
            owner, sink = connect(server.port, more=f"ca={certificates.ca}")
            owner.send("n", 0)
            await asyncio.to_thread(server.wait_for, "n")
            owner.send("n", 1)
            owner.send_lines("logs/stdout", b"x" * 50_000 + b"\n" + b"y\n" * 20_000)
            assert await sink.close(PATIENCE) == 0
            assert owner.said == [f"connected to 127.0.0.1:{server.port}"]
            events = server.wait_closed()
            assert [e["metric"] for e in events[:2]] == [0, 1]
            assert len(server.of("logs/stdout")) == 20_001

    run(main())


def test_all_at_once_when_the_store_is_too_small(
    run: Run,
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder of authorities that lacks one is no reason to refuse: a file may have
    it. Nothing is said of that, and it is not tried again."""
    folder = str(tmp_path_factory.mktemp("store"))
    monkeypatch.setattr(_credentials, "_folder", lambda: folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    monkeypatch.setenv("SSL_CERT_DIR", folder)

    async def main() -> None:
        with TlsServer(certificates.server_context()) as server:
            owner = Owner()
            url = f"tls:localhost:{server.port}"
            owner.sink = sink = tls.open_tls(owner, url, Buffer(1 << 20))
            owner.send("n", 0)
            await asyncio.to_thread(server.wait_for, "n")
            assert await sink.close(PATIENCE) == 0
            assert owner.said == [f"connected to localhost:{server.port}"]
            server.wait_until(lambda: server.closed, "end")
            assert len(server.failed) == 1

    run(main())


def test_a_name_that_is_none(run: Run, certificates: Certificates) -> None:
    """What no certificate can be for is one more reason to try again."""

    async def main() -> None:
        with TlsServer(certificates.server_context()) as server:
            long = "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 80
            owner, sink = connect(server.port, more=f"ca={certificates.ca}&name={long}")
            await soon(lambda: owner.said)
            assert owner.said == [
                f"cannot connect to 127.0.0.1:{server.port}: no certificate is for "
                f"'{long}'; trying again"
            ]
            assert await sink.close(0.0) == 0
            server.wait_until(lambda: server.closed, "end")

    run(main())


def test_reset_in_the_handshake(run: Run, certificates: Certificates) -> None:
    """Why there is no connection is said as for TCP."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            owner, sink = connect(port, more=f"ca={certificates.ca}")
            connection, _ = await asyncio.to_thread(listener.accept)
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
            await soon(lambda: owner.said)
            assert owner.said == [
                f"cannot connect to 127.0.0.1:{port}: connection reset by peer; "
                "trying again"
            ]
            assert await sink.close(0.0) == 0

    run(main())


def test_leaving_in_the_handshake(run: Run, certificates: Certificates) -> None:
    """A sink that is closed while a server is silent leaves nothing behind."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            owner, sink = connect(port, more=f"ca={certificates.ca}")
            owner.send("n", 0)
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                assert await asyncio.to_thread(connection.recv, 1) == b"\x16"
                assert await sink.close(0.05) == 1

    run(main())


def test_silence_is_given_up(
    run: Run, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handshake has a time-out as a whole: dripping does not prolong it."""
    monkeypatch.setattr(_secured, "_HANDSHAKE_SECONDS", 0.2)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            owner, sink = connect(port, more=f"ca={certificates.ca}")
            connection, _ = await asyncio.to_thread(silent.accept)
            with connection:
                connection.setblocking(False)
                # The header of a record of 16 KiB, and then very little of it.
                drips = iter(b"\x16\x03\x03\x40\x00" + bytes(1000))
                async with asyncio.timeout(PATIENCE):
                    while not owner.said:
                        connection.send(bytes([next(drips)]))
                        await asyncio.sleep(0.02)
                assert owner.said == [
                    f"cannot connect to 127.0.0.1:{port}: no answer to the TLS "
                    "handshake; trying again"
                ]
                assert await sink.close(0.0) == 0

    run(main())


def test_a_file_that_goes_bad(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    """Files are read for each connection; a bad one is a reason to try again."""
    ca = tmp_path / "ca.pem"

    async def main() -> None:
        with TlsServer(certificates.server_context()) as server:
            shutil.copy(certificates.ca, ca)
            owner, sink = connect(server.port, more=f"ca={ca}")
            os.truncate(ca, 0)
            owner.send("n", 0)
            await soon(lambda: owner.said)
            shutil.copy(certificates.ca, ca)
            await asyncio.to_thread(server.wait_for, "n")
            assert await sink.close(PATIENCE) == 0
            place = f"127.0.0.1:{server.port}"
            assert owner.said == [
                f"cannot connect to {place}: cannot use {ca}: it has no certificate in "
                "PEM form; trying again",
                f"connected to {place}",
            ]
            server.wait_closed()

    run(main())


async def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


# The connection itself.


async def pair(certificates: Certificates) -> tuple[Secured, Secured]:
    """Return both ends of a connection."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    client_context, server_context = make_context(), make_context(server=True)
    _pem.load_authorities(client_context, str(certificates.ca))
    _pem.load_chain(server_context, *[str(certificates.good)] * 2)
    ends = []
    for context, sock, peer in (
        (client_context, ours, "localhost"),
        (server_context, theirs, ""),
    ):
        sock.setblocking(False)
        ends.append(Secured(context, sock, peer))
    client, server = ends
    await asyncio.gather(client.shake_hands(loop), server.shake_hands(loop))
    return client, server


def test_both_ways_at_once(run: Run, certificates: Certificates) -> None:
    """Much more than fits in any buffer, in pieces of odd sizes, both ways."""
    sent = os.urandom(3_000_000)

    async def main() -> None:
        client, server = await pair(certificates)
        left = {client: sent, server: sent[::-1]}
        got = {client: bytearray(), server: bytearray()}
        sizes = itertools.cycle([1, 16_383, 16_384, 16_385, 100_000, 7])
        pieces = {client: b"", server: b""}
        while any(left.values()) or any(len(data) < len(sent) for data in got.values()):
            for end in client, server:
                # What it has begun it must be given again.
                pieces[end] = pieces[end] or left[end][: next(sizes)]
                with suppress(BlockingIOError):
                    size = end.send(pieces[end]) if pieces[end] else 0
                    pieces[end] = pieces[end][size:]
                    left[end] = left[end][size:]
                with suppress(BlockingIOError):
                    got[end] += end.recv(65536)
        assert got[server] == sent
        assert got[client] == sent[::-1]
        client.close()
        assert server.recv(1) == b""
        server.close()

    run(main())


def test_half_closed(run: Run, certificates: Certificates) -> None:
    """Who has said goodbye still hears; so does who was only cut off from one side."""

    async def main() -> None:
        client, server = await pair(certificates)
        client.send(b"last")
        client.goodbye()
        assert server.recv(100) == b"last"
        assert server.recv(100) == b""
        assert server.recv(100) == b""
        server.send(b"answer")
        assert client.recv(100) == b"answer"
        server.close()
        client.close()
        assert client.fileno() == -1

    run(main())


def test_nonsense_in_the_stream(run: Run, certificates: Certificates) -> None:
    """What no key has made ends the connection, with a reason in plain words."""

    async def main() -> None:
        client, server = await pair(certificates)
        client._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(OSError, match="bad record mac"):
            server.recv(100)
        client.close()
        server.close()

    run(main())
