# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Encrypt a connection, and make sure who is at its other end."""

from __future__ import annotations

import os
from _socket import SHUT_WR, socket
from errno import EPROTO, ETIMEDOUT
from sys import version_info

from forza._lean import TESTED_PYTHON
from forza._pem import load_authorities, load_chain
from forza.sinks._client import Link
from forza.sinks._dial import ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping
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
# What a record can hold. OpenSSL has to be given once more just what it has not
# finished, so it is given one at a time.
_RECORD = 16 * 1024
_TLS_1_2 = 0x303


class Credentials:
    """Whom to trust, and what to show: read anew for each connection, so that files
    may be replaced at any time."""

    __slots__ = ("_folder", "_options")

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        # The system's authorities as one file take 0.9 MB. From a folder OpenSSL reads
        # the one that it needs. Not every system has such a folder, or has all in it.
        self._folder = None if "ca" in options else _folder()

    def context(self) -> ssl.SSLContext:
        """Return what OpenSSL goes by.

        Raises OSError whose `strerror` names the file, and what is wrong with it.
        """
        make = getattr(ssl, "_SSLContext" if BARE else "SSLContext")
        # That is: verify certificate and name.
        context: ssl.SSLContext = make(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = _TLS_1_2  # type: ignore[assignment]
        context.options |= ssl.OP_NO_RENEGOTIATION
        options = self._options
        if "ca" in options:
            load_authorities(context, options["ca"])
        elif self._folder is not None:
            context.load_verify_locations(None, self._folder)
        else:
            context.set_default_verify_paths()
        if "cert" in options:
            load_chain(context, options["cert"], options.get("key", options["cert"]))
        return context

    async def secure(
        self, loop: AbstractEventLoop, sock: socket, name: str, server: str
    ) -> Link | None:
        """Secure a connection to `server`; if that fails, close it.

        Return None if another attempt, at once, may fare better. Raises OSError.
        """
        try:
            secured = _Secured(self.context(), sock, server)
        except BaseException:
            sock.close()
            raise
        link = Link(name, sock)
        link.recv, link.write = secured.recv, secured.write
        link.goodbye, link.lingers = secured.goodbye, True
        try:
            await secured.shake_hands(loop)
        except BaseException as error:
            link.close()
            if not isinstance(error, ssl.SSLError):
                raise
            from forza.sinks._refusals import is_unknown, reason

            if self._folder is not None and is_unknown(error):
                self._folder = None
                return None
            raise OSError(EPROTO, reason(error, server)) from None
        return link


class _Secured:
    """What works a connection in the place of its socket's own methods.

    OpenSSL is not let near the socket: it gives up if it is asked for new keys while it
    waits for the rest of a record to be taken. Here it never waits.
    """

    __slots__ = (
        "_early",
        "_end",
        "_ended",
        "_incoming",
        "_left",
        "_outgoing",
        "_server",
        "_sock",
        "_tls",
        "_unfinished",
    )

    def __init__(self, context: ssl.SSLContext, sock: socket, server: str) -> None:
        name = server.partition("%")[0].rstrip(".")  # no zone, no root
        if not name.isascii():
            name = name.encode("idna").decode()
        self._server = server
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        wrap: Any = context._wrap_bio if BARE else context.wrap_bio  # type: ignore[attr-defined]
        self._tls = wrap(self._incoming, self._outgoing, False, name)
        self._end = self._tls.shutdown if BARE else self._tls.unwrap
        self._early = b""
        self._ended = False
        # Of what OpenSSL has made, what the socket has not taken; and how much of a
        # caller's data is in that.
        self._left = b""
        self._unfinished = 0

    async def shake_hands(self, loop: AbstractEventLoop) -> None:
        """Wait until each side knows as much of the other as it wants to.

        Raises OSError.
        """
        fd = self._sock.fileno()
        reading = loop.add_reader, loop.remove_reader
        writing = loop.add_writer, loop.remove_writer
        deadline = loop.time() + _HANDSHAKE_SECONDS
        while not (self._advance() and self._flush()):
            is_sent = self._flush()
            way = reading if is_sent else writing
            if not await ready(loop, fd, *way, deadline - loop.time()):
                raise OSError(ETIMEDOUT, "no answer to the TLS handshake")
            if is_sent:
                self._take(_RECORD)
        self._early = self._decrypt()
        is_accepted = self._early or self._tls.version() != "TLSv1.3"
        if not is_accepted and await ready(loop, fd, *reading, _VERDICT_SECONDS):
            try:
                self._early = self.recv(_RECORD)
            except BlockingIOError:  # only tickets
                pass
        if self._ended:
            raise OSError(EPROTO, "closed by the server")

    def _advance(self) -> bool:
        """Go as far as can be gone with what has come; say whether that is the end."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            try:
                self._flush()  # the server is told why
            except OSError:
                pass
            raise
        return True

    def recv(self, size: int) -> bytes:
        """Receive as a socket does, and all that came in these bytes."""
        data, self._early = self._early, b""
        while not data and not self._ended:
            self._take(size)
            data = self._decrypt()
            self._flush()  # new keys, if it was asked for them
        return data

    def write(self, _: int, data: bytes | memoryview) -> int:
        """Write as `os.write` does.

        Of what is not written it has a part already, so it must be given that again.
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
        return done

    def goodbye(self) -> None:
        """Say that nothing more will come."""
        try:
            self._end()
        except ssl.SSLError:  # the server has not said so, and need not
            pass
        self._flush()
        self._sock.shutdown(SHUT_WR)

    def _take(self, size: int) -> None:
        """Let OpenSSL have what the socket has: BlockingIOError if that is nothing."""
        if data := self._sock.recv(size):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

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
        from forza.sinks._refusals import reason

        return OSError(EPROTO, reason(error, self._server))


def _folder() -> str | None:
    """Return the folder of the system's authorities, if OpenSSL can look them up there,
    and the user has not said where they are."""
    if not BARE:
        return None
    file_variable, _, folder_variable, folder = ssl.get_default_verify_paths()  # type: ignore[misc]
    if file_variable in os.environ or folder_variable in os.environ:
        return None
    try:
        is_indexed = any(name.endswith(".0") for name in os.listdir(folder))
    except OSError:
        return None
    return folder if is_indexed else None
