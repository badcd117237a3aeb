# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events over TCP: to one server at a time, to the next when that one fails."""

from __future__ import annotations

import os
from _socket import (
    AF_INET,
    AF_INET6,
    IPPROTO_TCP,
    SHUT_WR,
    SO_ERROR,
    SO_KEEPALIVE,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    getaddrinfo,
    inet_pton,
    socket,
)
from _thread import start_new_thread
from errno import ECONNREFUSED, EINPROGRESS, EINVAL, ETIMEDOUT
from fcntl import ioctl

from forza._wait import end, settle, wait
from forza.sinks._stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task
    from typing import Any

    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue

    # A family, and what connect() takes for it.
    Address = tuple[int, tuple[object, ...]]

_CONNECT_TIMEOUT = 10.0
_DELAY_FIRST = 0.1
_DELAY_MOST = 30.0
# A connection that lasted this long earns the first delay again.
_STABLE = 5.0
_KEEPALIVE_IDLE = 60
_UNACKED_MS = 120_000
_SIOCOUTQ = 0x5411
_DEAF_SECONDS = 0.1


class Tcp:
    """Connect, write, reconnect; the events wait in the queue meanwhile.

    Addresses are looked up again for every attempt, and all of them are tried. The
    pause after a failed round doubles from 0.1 to 30 s, less up to half at random.
    """

    __slots__ = (
        "_abandoned",
        "_flushed",
        "_loop",
        "_lost",
        "_monitor",
        "_said",
        "_servers",
        "_socket",
        "_stream",
        "_task",
        "_wake",
        "announce",
        "name",
        "queue",
        "write",
    )

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        servers: list[tuple[str, int]],
        queue: Queue,
    ) -> None:
        self.name = name
        self.queue = queue
        self._monitor = monitor
        self._loop: AbstractEventLoop = monitor.loop
        self._servers = servers
        self._stream = Stream(monitor, name, queue, self._failed)
        self.write = self._stream.write
        self.announce = self._stream.announce
        self._socket: socket | None = None
        self._lost: Future[str] | None = None
        self._wake: Future[None] | None = None
        self._flushed: Future[None] | None = None
        self._abandoned = False
        self._said: set[str] = set()
        self._task: Task[None] = self._loop.create_task(self._run())

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._socket is not None

    async def _run(self) -> None:
        delay = _DELAY_FIRST
        turn = 0
        while True:
            connected_at = None
            for _ in self._servers:
                host, port = self._servers[turn % len(self._servers)]
                turn += 1
                if await self._connect_any(host, port):
                    connected_at = self._loop.time()
                    await self._serve(host, port)
                    break
            if self._flushed is not None and self._stream.empty:
                return  # all is said
            if connected_at is not None and self._loop.time() - connected_at > _STABLE:
                delay = _DELAY_FIRST
                continue
            await self._pause(delay * (0.5 + 0.5 * _random()))
            delay = min(_DELAY_MOST, delay * 2)

    async def _connect_any(self, host: str, port: int) -> bool:
        """Try every address of one server, beginning anywhere."""
        try:
            addresses = await _resolve(self._loop, host, port)
        except (OSError, ValueError, RuntimeError) as error:
            # No such name; no name at all; no thread to be had.
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"cannot resolve {host}: {reason}; trying again")
            return False
        first = int(_random() * len(addresses))
        for family, address in addresses[first:] + addresses[:first]:
            failure = await self._connect(family, address)
            if not failure:
                return True
            reason = os.strerror(failure).lower()
            self._say(f"cannot connect to {_join(host, port)}: {reason}; trying again")
        return False

    async def _connect(self, family: int, address: tuple[object, ...]) -> int:
        """Connect to one address; return 0, or the errno of the failure."""
        sock = None
        try:
            sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
            failure = sock.connect_ex(address)
            if failure == EINPROGRESS:
                failure = await self._connected(sock)
            if not failure and sock.getsockname() == sock.getpeername():
                # Nobody listens, and the port that the kernel chose for us is the
                # one we asked for: we have met ourselves.
                failure = ECONNREFUSED
            if failure:
                return failure
            # Each batch is one write: do not wait for company.
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
            sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, _KEEPALIVE_IDLE)
            sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, _UNACKED_MS)
            self._socket, sock = sock, None
        except OSError as error:
            return error.errno or EINVAL
        finally:
            if sock is not None:
                sock.close()
        return 0

    async def _connected(self, sock: socket) -> int:
        """Wait until a connection is made, or has failed."""
        fd = sock.fileno()
        ready: Future[None] = self._loop.create_future()
        self._loop.add_writer(fd, settle, ready)
        try:
            if not await wait(self._loop, ready, _CONNECT_TIMEOUT):
                return ETIMEDOUT
        finally:
            self._loop.remove_writer(fd)
        return sock.getsockopt(SOL_SOCKET, SO_ERROR)

    async def _serve(self, host: str, port: int) -> None:
        """Feed one connection until it is lost."""
        assert self._socket is not None
        fd = self._socket.fileno()
        self._say(f"connected to {_join(host, port)}", problem=False)
        self._lost = self._loop.create_future()
        self._loop.add_reader(fd, self._readable)
        try:
            self._stream.attach(fd)
            reason = await self._lost
            if self._flushed is None:
                self._say(f"lost the connection to {_join(host, port)}: {reason}")
        finally:
            self._loop.remove_reader(fd)
            self._stream.detach()
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        # Nobody is expected to answer. What comes is read all the same: closing a
        # socket with unread input resets it, and the reset destroys our last words.
        assert self._socket is not None
        try:
            if self._socket.recv(65536):
                # A peer that talks without end gets no more of our time than this.
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_DEAF_SECONDS, self._listen, self._socket)
                return
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(error)
            return
        self._loop.remove_reader(self._socket.fileno())
        if self._lost is not None:
            settle(self._lost, "closed by the server")

    def _listen(self, sock: socket) -> None:
        if sock is self._socket:
            self._loop.add_reader(sock.fileno(), self._readable)

    def _failed(self, error: OSError) -> None:
        if self._lost is not None:
            self._stream.detach()
            settle(self._lost, os.strerror(error.errno or 0).lower())

    async def _pause(self, seconds: float) -> None:
        # Leaving is bounded, and no time to be modest.
        self._wake = self._loop.create_future()
        await wait(self._loop, self._wake, _DELAY_FIRST if self._flushed else seconds)
        self._wake = None

    async def close(self, within: float) -> int:
        """Flush and disconnect; return how many events were not delivered: at least."""
        deadline = self._loop.time() + within
        self._flushed = flushed = self._loop.create_future()
        if self._wake is not None:
            settle(self._wake)
        self._stream.when_empty(lambda: settle(flushed))
        await wait(self._loop, flushed, within)
        acknowledged = await self._linger(deadline)
        unsure = self._stream.empty and not acknowledged
        await end(self._loop, self._task)
        return self._stream.close() or int(unsure)

    def abandon(self) -> None:
        """Give up flushing, now."""
        if self._flushed is not None:
            self._abandoned = True
            settle(self._flushed)

    async def _linger(self, deadline: float) -> bool:
        """Wait until the peer's kernel has acknowledged all that ours was given, and
        say whether it has."""
        pause = 0.001
        while self._socket is not None and self._stream.empty:
            try:
                if pause == 0.001:
                    self._socket.shutdown(SHUT_WR)
                unsent = bytearray(4)
                ioctl(self._socket.fileno(), _SIOCOUTQ, unsent)
            except OSError:  # reset by the peer: what it has got, nobody can tell
                return True
            if not any(unsent):
                return True
            if self._abandoned or self._loop.time() >= deadline:
                return False
            await wait(self._loop, self._loop.create_future(), pause)
            pause = min(0.05, pause * 2)
        return self._stream.empty

    def _say(self, text: str, *, problem: bool = True) -> None:
        if not problem:
            self._said.clear()
        if text not in self._said:  # an outage is said once, not once per attempt
            self._said.add(text)
            self._monitor.say(text, problem=problem)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _random() -> float:
    """Return a number from 0 to 1; the `random` module would cost 3 MB."""
    return int.from_bytes(os.urandom(2)) / 65536


async def _resolve(loop: AbstractEventLoop, host: str, port: int) -> list[Address]:
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    # As bytes: a str makes the resolver load the codec of international names.
    name = host.encode() if host.isascii() else host.encode("idna")
    found = await _look_up(loop, name, port)
    return [(family, address) for family, _, _, _, address in found]


async def _look_up(loop: AbstractEventLoop, name: bytes, port: int) -> list[Any]:
    """Ask the resolver, which may take its time, in a thread of its own.

    Not by the loop: libuv would start four threads for it, and abort if it can't.
    """
    answer: Future[list[Any] | Exception] = loop.create_future()

    def ask() -> None:
        found: list[Any] | Exception
        try:
            found = getaddrinfo(name, port, 0, SOCK_STREAM)
        except Exception as error:
            found = error
        try:
            loop.call_soon_threadsafe(settle, answer, found)
        except RuntimeError:  # the loop was closed meanwhile
            pass

    start_new_thread(ask, ())
    found = await answer
    if isinstance(found, Exception):
        raise found
    return found
