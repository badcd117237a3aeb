# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Stand between a sender and a receiver, and do what networks do to connections."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 1 << 16
_TICK = 0.01


class Proxy:
    """A TCP proxy on loopback whose every fault is switched on and off by a test.

    With `path` it listens on a unix socket. `seen` counts the bytes that have come from
    clients, `made` the connections.
    """

    def __init__(self, upstream: int, path: Path | None = None) -> None:
        self.upstream = upstream
        self._path = path
        self.seen = 0
        self.made = 0
        self._changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._fillers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._stalled = False
        self._pause = 0.0
        self._cuts: list[int] = []
        self._how = ""
        self._closed = False
        self.port = 0
        self._listener = self._listen(128)
        self.port = 0 if path else self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    # Faults.

    def refuse(self) -> None:
        """Break off all connections; refuse further ones."""
        self._stop_listening()
        self.reset()

    def swallow(self) -> None:
        """Break off all connections; leave further attempts without any answer.

        The queue of a listener that never accepts is filled: Linux then drops SYNs.
        """
        self._stop_listening()
        self.reset()
        self._listener = self._listen(0)
        for _ in range(4):
            filler = socket.socket(self._listener.family)
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)

    def come_back(self) -> None:
        """End every fault."""
        with self._changed:
            self._stalled = False
            self._pause = 0.0
            self._cuts = []
            self._changed.notify_all()
        if self._fillers or self._listener.fileno() < 0:
            self._stop_listening()
            for filler in self._fillers:
                filler.close()
            self._fillers = []
            self._listener = self._listen(128)
            self._start(self._accept, self._listener)

    def stall(self) -> None:
        """Keep connections, and carry nothing more in either direction."""
        self._stalled = True

    def trickle(self, pause: float) -> None:
        """Carry one byte at a time, with a pause after it."""
        self._pause = pause

    def cut(self, how: str, *after: int) -> None:
        """Cut this connection and the next ones, each after so many more bytes.

        `how` is `reset` (RST to both), `close` (in order), `half` (to the client alone:
        what it still sends is carried on), or `deaf` (to the receiver alone).
        """
        with self._changed:
            self._how = how
            self._cuts = list(after)

    @property
    def cuts_left(self) -> int:
        """How many cuts are still to come."""
        return len(self._cuts)

    def reset(self) -> None:
        """Break off all connections by RST."""
        for pair in tuple(self._pairs):
            self._end(pair, "reset")

    def close(self) -> None:
        """End all of it."""
        self._closed = True
        self.come_back()
        self._stop_listening()
        self.reset()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # The carrying.

    def _listen(self, backlog: int) -> socket.socket:
        if self._path:
            listener = socket.socket(socket.AF_UNIX)
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        return listener

    def _stop_listening(self) -> None:
        # shutdown() wakes the accepting thread, which close() alone would not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream), 10)
            except OSError:  # the receiver is away: so are we
                client.close()
                continue
            server.settimeout(None)
            pair = client, server
            self._pairs.append(pair)
            self.made += 1
            self._start(self._carry, pair, client, server, True)
            self._start(self._carry, pair, server, client, False)

    def _carry(
        self,
        pair: tuple[socket.socket, socket.socket],
        source: socket.socket,
        target: socket.socket,
        up: bool,
    ) -> None:
        try:
            while data := self._receive(source):
                self._wait()
                while data:
                    piece = data[:1] if self._pause else data
                    cut = self._due(len(piece)) if up else None
                    target.sendall(piece if cut is None else piece[:cut])
                    if cut is not None:
                        self._end(pair, self._how)
                        if self._how != "half":
                            return
                        target.sendall(piece[cut:])
                    data = data[len(piece) :]
                    if self._pause:
                        time.sleep(self._pause)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self._end(pair, "reset")

    def _receive(self, source: socket.socket) -> bytes:
        self._wait()
        data = source.recv(1 if self._pause else _PIECE)
        self.seen += len(data)
        return data

    def _wait(self) -> None:
        with self._changed:
            while self._stalled and not self._closed:
                self._changed.wait(_TICK)

    def _due(self, size: int) -> int | None:
        """Return after how many of these bytes to cut, if that is now."""
        with self._changed:
            if not self._cuts:
                return None
            self._cuts[0] -= size
            if self._cuts[0] > 0:
                return None
            return size + min(0, self._cuts.pop(0))

    def _end(self, pair: tuple[socket.socket, socket.socket], how: str) -> None:
        client, server = pair
        with contextlib.suppress(OSError):
            if how == "half":
                client.shutdown(socket.SHUT_WR)
                return
            if how == "deaf":
                server.shutdown(socket.SHUT_WR)
                return
        for sock in pair:
            with contextlib.suppress(OSError):
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    sock.shutdown(socket.SHUT_RDWR)
            # A thread that is in recv() holds the socket open: shut it down first.
            with contextlib.suppress(OSError):
                if how == "reset":
                    sock.shutdown(socket.SHUT_RD)
            sock.close()
        if pair in self._pairs:
            self._pairs.remove(pair)
