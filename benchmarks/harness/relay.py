# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Stand between senders and a receiver: count lines, break connections, decrypt."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["Relay", "SecureRelay"]

RESET = struct.pack("ii", 1, 0)


class Relay:
    """A TCP proxy on loopback; whoever it cannot connect further is turned away."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.lines = 0
        """How many line ends have come from senders."""
        self.connections = 0
        self.pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.reset()

    def reset(self) -> int:
        """Break off all connections by RST; return how many there were."""
        pairs = tuple(self.pairs)
        for pair in pairs:
            self.end(pair)
        return len(pairs)

    def accept(self) -> None:
        """Take clients until the listener is closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.upstream))
            except OSError:
                client.close()
                continue
            self.connections += 1
            pair = self.welcome(client), server
            self.pairs.add(pair)
            for up in (True, False):
                threading.Thread(
                    target=self.carry, args=(pair, up), daemon=True
                ).start()

    def welcome(self, client: socket.socket) -> socket.socket:
        """Return what to hear the client by."""
        return client

    def carry(self, pair: tuple[socket.socket, socket.socket], up: bool) -> None:
        """Hand on what one side sends, until it ends or fails."""
        source, target = pair if up else pair[::-1]
        try:
            while data := source.recv(1 << 16):
                target.sendall(data)
                if up:
                    self.lines += data.count(b"\n")
            target.shutdown(socket.SHUT_WR)
        except OSError:
            self.end(pair)

    def end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """Break off one connection on both sides."""
        self.pairs.discard(pair)
        for sock in pair:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # A thread that is in recv() would hold the socket open.
                sock.shutdown(socket.SHUT_RD)
            sock.close()


class SecureRelay(Relay):
    """The same for clients that speak TLS; `certificate` is a file, with its key."""

    def __init__(self, upstream: int, certificate: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        super().__init__(upstream)

    def welcome(self, client: socket.socket) -> socket.socket:
        # The handshake is made when the first thread reads.
        return self.context.wrap_socket(
            client, server_side=True, do_handshake_on_connect=False
        )
