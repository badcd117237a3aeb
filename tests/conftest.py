# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Offer every test a metrics server of real TCP and the way to the children."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import orjson
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
CHILDREN = ROOT / "tests" / "children"

# Nothing here takes this long: it is how long a test that hangs may hold up a run.
PATIENCE = 60.0

Event = dict[str, Any]

# Started by nohup or in the background of a shell, the suite ignores these, and so
# would every program that a test starts and then interrupts.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


class Connection:
    """What one client has sent, and how it ended."""

    def __init__(self, sock: socket.socket, peer: object) -> None:
        self.sock = sock
        self.peer = peer
        self.data = bytearray()
        self.ended = False
        self.reset = False

    def close(self) -> None:
        """Hang up on the client; it has nothing more to say to us."""
        with contextlib.suppress(OSError):
            # By TLS, too: its own shutdown() would make it read ciphers as data.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class MetricsServer:
    """Listen on a loopback port and keep every event that arrives, in order.

    `parse=False` keeps the bytes alone (`data`), for floods. The server's threads end
    with `close()`.
    """

    def __init__(self, port: int = 0, *, parse: bool = True) -> None:
        self.connections: list[Connection] = []
        self.events: list[Event] = []
        self.invalid: list[bytes] = []
        self._parse = parse
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._start(self._accept)

    @property
    def closed(self) -> bool:
        """Say whether there was a client and all clients have gone."""
        return bool(self.connections) and all(c.ended for c in self.connections)

    @property
    def data(self) -> bytes:
        """Return all bytes received, connection after connection."""
        return b"".join(bytes(c.data) for c in self.connections)

    def of(self, service: str) -> list[Event]:
        """Return the events of one service so far."""
        return [event for event in self.events if event["service"] == service]

    def text(self, service: str) -> str:
        """Return the joined descriptions of one service so far."""
        return "".join(event["description"] for event in self.of(service))

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds; it is asked again whenever anything arrives."""

        def settled() -> object:
            return self.invalid or condition()

        with self._changed:
            if not self._changed.wait_for(settled, PATIENCE):
                pytest.fail(f"no {what}; there came: {self._summary()}")
        assert self.invalid == []

    def wait_for(
        self, service: str, count: int = 1, *, containing: str = ""
    ) -> list[Event]:
        """Wait for `count` events of a service, with a text in their description."""

        def found() -> list[Event]:
            return [
                event
                for event in self.of(service)
                if containing in event.get("description", "")
            ]

        what = f"{count} x {service} {containing!r}".rstrip(" '")
        self.wait_until(lambda: len(found()) >= count, what)
        return found()

    def wait_connected(self, count: int = 1) -> None:
        """Wait until so many connections have been made, ended ones included."""
        self.wait_until(lambda: len(self.connections) >= count, "connection")

    def wait_closed(self) -> list[Event]:
        """Wait until every client has hung up; return all events."""
        self.wait_until(lambda: self.closed, "end of the connection")
        assert not any(c.reset for c in self.connections)
        return self.events

    def stop_listening(self) -> None:
        """Refuse further clients; those that are here may go on."""
        # shutdown() wakes the accepting thread, which close() alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def hang_up(self) -> None:
        """Close every connection and refuse further ones."""
        self.stop_listening()
        for connection in self.connections:
            connection.close()

    def close(self) -> None:
        """End all threads and sockets."""
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)
        for connection in self.connections:
            connection.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock, peer)
            with self._changed:
                self.connections.append(connection)
                self._changed.notify_all()
            self._start(self._receive, connection)

    def _receive(self, connection: Connection) -> None:
        parsed = 0
        while True:
            try:
                data = connection.sock.recv(1 << 18)
            except OSError:
                connection.reset = True
                data = b""
            with self._changed:
                if data:
                    connection.data += data
                    if self._parse:
                        parsed = self._take_lines(connection.data, parsed)
                else:
                    connection.ended = True
                self._changed.notify_all()
            if not data:
                return

    def _take_lines(self, data: bytearray, start: int) -> int:
        """Parse the complete lines from `start`; return where the rest begins."""
        end = data.rfind(b"\n") + 1
        if end <= start:
            return start
        for line in bytes(data[start:end]).split(b"\n")[:-1]:
            try:
                self.events.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                self.invalid.append(line)
        return end

    def _summary(self) -> str:
        if not self.connections:
            return "not even a connection"
        return ", ".join(
            f"{event['service']} {str(event.get('description', ''))[:60]!r}"
            for event in self.events[-20:]
        )


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    """A metrics server that lives as long as the test."""
    with MetricsServer() as server:
        yield server


@pytest.fixture
def children() -> Path:
    """The folder of tiny real programs."""
    return CHILDREN
