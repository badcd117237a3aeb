# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Receivers that mean ill: the app runs, forza leaves in time, and nothing that was not
taken for certain passes for delivered."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.conftest import Forza

GREETING = b'{"forza":"listen","version":1}\n'
LINES = 5000


class Peer:
    """A server that does the same to every connection, in a thread for each."""

    def __init__(
        self, act: Callable[[socket.socket], object], path: Path | None
    ) -> None:
        self._act = act
        self._socks: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        if path:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(path))
            self._listener.listen(8)
            self.url = f"unix:{path}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp:127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def _start(self, target: Callable[..., object], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._act(sock)

    def close(self) -> None:
        """End all of it."""
        for sock in (self._listener, *self._socks):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(PATIENCE)


def takes_nothing(sock: socket.socket) -> None:
    """Greet, and never read."""
    sock.sendall(GREETING)


def never_acknowledges(sock: socket.socket) -> None:
    """Greet and read."""
    sock.sendall(GREETING)
    while sock.recv(65536):
        pass


def lies(sock: socket.socket) -> None:
    """Acknowledge without end what nobody has sent."""
    sock.sendall(GREETING)
    reader = threading.Thread(target=_read_all, args=(sock,), daemon=True)
    reader.start()
    number = 0
    while True:
        number += 1
        ack = b'{"ack":{"boot":"%016x","seq":%d,"events":%d}}\n'
        sock.sendall(ack % (number, number, number) * 200)


def _read_all(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


def hangs_up(sock: socket.socket) -> None:
    """Greet, and close."""
    sock.sendall(GREETING)
    sock.close()


def resets(sock: socket.socket) -> None:
    """Read something, and break off."""
    sock.sendall(GREETING)
    sock.recv(10_000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


ACTS = (takes_nothing, never_acknowledges, lies, hangs_up, resets)


@pytest.fixture
def peers() -> Iterator[Callable[..., Peer]]:
    """Servers that are closed after the test."""
    made: list[Peer] = []

    def make(act: Callable[[socket.socket], object], path: Path | None) -> Peer:
        made.append(Peer(act, path))
        return made[-1]

    yield make
    for peer in made:
        peer.close()


@pytest.mark.parametrize("way", ["tcp", "unix"])
@pytest.mark.parametrize("held", ["memory", "spool"])
@pytest.mark.parametrize("act", ACTS)
def test_hostile_receiver(
    lean_forza: Forza,
    tmp_path: Path,
    peers: Callable[..., Peer],
    act: Callable[[socket.socket], object],
    held: str,
    way: str,
) -> None:
    """None of the events is delivered, and each is counted."""
    peer = peers(act, tmp_path / "socket" if way == "unix" else None)
    spool = ("--spool", tmp_path / "spool") if held == "spool" else ()
    ended = lean_forza.run(
        *("--to", peer.url, *spool, "--buffer", "64M", "--flush-timeout", 0.3),
        *("--plugin", "logs", "--plugin", "process", "--"),
        *("python3", CHILDREN / "flood.py", LINES),
    )
    assert ended.status == 0
    said = ended.stderr.splitlines()[-1]
    form = "wait in" if spool else "were not delivered"
    found = re.search(rf"(\d+) events (for \S+ )?{form}", said)
    assert found, ended.stderr
    # spawn and exit, and perhaps what forza says of itself.
    assert LINES + 2 <= int(found[1]) <= LINES + 4
