# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Encrypt a connection by OpenSSL, at either end of it, without ever waiting."""

from __future__ import annotations

from _socket import SHUT_WR, socket
from errno import ECONNABORTED, EINVAL, EPROTO, ETIMEDOUT
from sys import version_info

from forza._lean import TESTED_PYTHON
from forza._wait import ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl as ssl
    from asyncio import AbstractEventLoop
    from typing import Any

# `ssl` is a layer of Python on top of `_ssl`, and takes 1.8 MB more. What is used of
# the lower one is the same in all versions that the tests have run with; in any other
# it is the upper one.
BARE = version_info[:2] in TESTED_PYTHON
if not TYPE_CHECKING:
    ssl = __import__("_ssl" if BARE else "ssl")

_HANDSHAKE_SECONDS = 10.0
# By TLS 1.3 a client is done before the server has looked at its certificate. Then
# comes a session ticket, a greeting or a refusal; some servers have nothing to say.
_VERDICT_SECONDS = 0.5
# What a record can hold.
_RECORD = 16 * 1024
_TLS_1_2 = 0x303


def make_context(*, server: bool = False) -> ssl.SSLContext:
    """Return what OpenSSL goes by, as yet without certificates.

    A client's makes sure of the server's certificate and name.
    """
    make = getattr(ssl, "_SSLContext" if BARE else "SSLContext")
    protocol = ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT
    context: ssl.SSLContext = make(protocol)
    context.minimum_version = _TLS_1_2  # type: ignore[assignment]
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


class Secured:
    """A connection whose bytes are encrypted on their way to and from its socket.

    It works like a socket that never waits. OpenSSL is not let near the real one: it
    gives up if it is asked for new keys while a record of its is half sent.
    """

    __slots__ = (
        "_early",
        "_end",
        "_ended",
        "_incoming",
        "_left",
        "_outgoing",
        "_peer",
        "_sock",
        "_tls",
        "_unfinished",
        "fileno",
    )

    def __init__(self, context: ssl.SSLContext, sock: socket, peer: str = "") -> None:
        """Be a client of the server that has the name `peer`, or a server.

        Raises OSError for what can be no name.
        """
        name = peer.partition("%")[0].rstrip(".")  # no zone, no root
        self._peer = peer
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        wrap: Any = context._wrap_bio if BARE else context.wrap_bio  # type: ignore[attr-defined]
        try:
            if not name.isascii():
                name = name.encode("idna").decode()
            self._tls = wrap(self._incoming, self._outgoing, not peer, name or None)
        except ValueError:
            raise OSError(EINVAL, f"no certificate is for '{peer}'") from None
        self._end = self._tls.shutdown if BARE else self._tls.unwrap
        self._early = b""
        self._ended = False
        # Of what OpenSSL has made, what the socket has not taken; and how much of a
        # caller's data is in that.
        self._left = b""
        self._unfinished = 0
        self.fileno = sock.fileno

    async def shake_hands(self, loop: AbstractEventLoop) -> None:
        """Wait until each side knows what it wants to know of the other.

        Raises OSError.
        """
        reading = loop.add_reader, loop.remove_reader
        writing = loop.add_writer, loop.remove_writer
        deadline = loop.time() + _HANDSHAKE_SECONDS
        while True:
            is_done, is_sent = self._advance(), self._flush()
            if is_done and is_sent:
                break
            way = reading if is_sent else writing
            if not await ready(loop, self.fileno(), *way, deadline - loop.time()):
                raise OSError(ETIMEDOUT, "no answer to the TLS handshake")
            if is_sent:
                self._take(_RECORD)
            if self._ended:
                raise OSError(ECONNABORTED, "closed by the other side")
        self._early = self._decrypt()

    async def hear_verdict(self, loop: AbstractEventLoop) -> None:
        """Wait until the server has taken to us, or can be taken to have.

        Raises OSError.
        """
        if self._tls.version() == "TLSv1.3" and not self._early:
            reading = loop.add_reader, loop.remove_reader
            await ready(loop, self.fileno(), *reading, _VERDICT_SECONDS)
            try:
                self._early = self.recv(_RECORD)
            except BlockingIOError:  # tickets, or nothing
                pass
        if self._ended:
            raise OSError(ECONNABORTED, "closed by the other side")

    def recv(self, size: int) -> bytes:
        """Receive some of it, however much it may be: what OpenSSL is given at once
        takes memory for good."""
        data, self._early = self._early, b""
        while not data and not self._ended:
            self._take(min(size, _RECORD))
            data = self._decrypt()
            self._flush()  # new keys, if it was asked for them
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Send.

        Of what is not sent it has a part already, so it must be given that again.
        """
        view = memoryview(data)
        done = 0
        try:
            while self._flush():
                done += self._unfinished
                self._unfinished = 0
                if done == len(view):
                    break
                self._unfinished = self._tls.write(view[done : done + _RECORD])
        except ssl.SSLError as error:
            raise self._plain(error) from None
        if not done:
            raise BlockingIOError
        return done

    def goodbye(self) -> None:
        """Say that nothing more will come."""
        try:
            self._end()
        except ssl.SSLError:  # the other side has not said so, and need not
            pass
        self._flush()
        self._sock.shutdown(SHUT_WR)

    def close(self) -> None:
        """Say goodbye and close."""
        try:
            self.goodbye()
        except OSError:
            pass
        self._sock.close()

    def _advance(self) -> bool:
        """Go as far as can be gone with what has come; say whether that is the end."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            try:
                self._flush()  # the other side is told why
            except OSError:
                pass
            raise self._plain(error) from error
        return True

    def _take(self, size: int) -> None:
        """Let OpenSSL have what the socket has: BlockingIOError if that is nothing."""
        if data := self._sock.recv(size):
            self._incoming.write(data)
        else:
            # OpenSSL is not told: if the other side has not said goodbye, it would
            # break off our half as well.
            self._ended = True

    def _decrypt(self) -> bytes:
        pieces = []
        try:
            while piece := self._tls.read(_RECORD):
                pieces.append(piece)
            self._ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._ended = True
        except ssl.SSLError as error:
            raise self._plain(error) from None
        return b"".join(pieces)

    def _flush(self) -> bool:
        """Let the socket have what OpenSSL has made; say whether it took all."""
        try:
            while self._left or self._outgoing.pending:
                self._left = self._left or self._outgoing.read()
                self._left = self._left[self._sock.send(self._left) :]
        except (BlockingIOError, InterruptedError):
            return False
        return True

    def _plain(self, error: ssl.SSLError) -> OSError:
        from forza._refusals import ENDS, reason

        # A connection that breaks off proves nothing about who was there.
        is_end = type(error).__name__ in ENDS
        return OSError(ECONNABORTED if is_end else EPROTO, reason(error, self._peer))
