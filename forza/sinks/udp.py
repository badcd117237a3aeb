# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send each event as one UDP datagram: cheap, and with no promise at all."""

from __future__ import annotations

import os
from _socket import SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, socket
from errno import ECONNREFUSED, EMSGSIZE, ENOBUFS

from forza._wait import end, settle, wait
from forza.sinks._buffer import Dropped
from forza.sinks._names import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task

    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue

# What fits into a datagram over IPv4; IPv6 takes 20 bytes more. What the path takes
# without cutting it up is less, and IP's own affair.
MOST_BYTES = 65507
TOO_LONG = "too long for a datagram"
_DELAY_FIRST = 0.1
_DELAY_MOST = 30.0
_ANNOUNCE_EVERY = 10.0
# The kernel's queue is full: no descriptor becomes writable that tells when it is not.
_NO_BUFFERS_SECONDS = 0.05


class Udp:
    """Send to one host's first address; after an error look the name up again.

    Nobody says that a datagram has arrived. That nobody listened is told sometimes,
    for an earlier one, and counted as one event lost. An event too long for a datagram
    is not sent, and counted.
    """

    __slots__ = (
        "_announced_at",
        "_at",
        "_batch",
        "_dropped",
        "_flushed",
        "_host",
        "_looking",
        "_loop",
        "_monitor",
        "_port",
        "_said",
        "_socket",
        "_task",
        "_waiting",
        "name",
        "queue",
        "since",
    )

    def __init__(
        self, monitor: Monitor, name: str, host: str, port: int, queue: Queue
    ) -> None:
        self.name = name
        self._monitor = monitor
        self._loop: AbstractEventLoop = monitor.loop
        self._host = host
        self._port = port
        self.queue = queue
        self.since = queue.since
        self._batch = b""
        self._at = 0
        self._dropped: dict[str, Dropped] = {}
        self._announced_at = 0.0
        self._socket: socket | None = None
        self._waiting = False
        self._said = ""
        self._flushed: Future[None] | None = None
        # Set while nobody knows that the address is wrong.
        self._looking: Future[None] = self._loop.create_future()
        self._task: Task[None] = self._loop.create_task(self._run())

    @property
    def connected(self) -> bool:
        """Whether it has an address: that somebody listens there, nobody says."""
        return self._socket is not None

    def write(self, batch: bytes, lifecycle: bool = False) -> None:
        """Send now, if there is an address and room, else later."""
        self.queue.push(batch, lifecycle)
        if self._socket is not None and not self._waiting:
            self._send_all()
        if self._loop.time() - self._announced_at > _ANNOUNCE_EVERY:
            self.announce()

    def announce(self) -> None:
        """Say in-band what was lost so far, as far as that is known."""
        if self._monitor.silent:
            return
        self._announced_at = self._loop.time()
        lost = [*self._dropped.values(), *iter(self.queue.take_dropped, None)]
        self._dropped = {}
        for dropped in lost:
            dropped.announce(self._monitor, self.name)

    async def close(self, within: float) -> int:
        """Send what waits for an address; return how many events were not sent."""
        self._flushed = self._loop.create_future()
        if not self.queue.size:
            settle(self._flushed)
        await wait(self._loop, self._flushed, within)
        await end(self._loop, self._task)
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None
        told = sum(dropped.count for dropped in self._dropped.values())
        unsaid = self.queue.dropped
        return self.queue.close() + told + (unsaid.count if unsaid else 0)

    def abandon(self) -> None:
        """Give up flushing, now."""
        if self._flushed is not None:
            settle(self._flushed)

    async def _run(self) -> None:
        """Look the name up until it has an address, and again after each error."""
        delay = _DELAY_FIRST
        while True:
            begun = self._loop.time()
            if await self._look_up():
                await self._looking
                if self._loop.time() - begun > _DELAY_MOST:
                    delay = _DELAY_FIRST
            await wait(self._loop, self._loop.create_future(), delay)
            delay = min(_DELAY_MOST, delay * 2)

    async def _look_up(self) -> bool:
        try:
            found = await resolve(self._loop, self._host, self._port, SOCK_DGRAM)
            family, address = found[0]
            sock = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
            try:
                sock.connect(address)
            except BaseException:
                sock.close()
                raise
        except (OSError, ValueError, RuntimeError) as error:
            # No such name; no name at all; no thread to be had.
            reason = getattr(error, "strerror", None) or str(error)
            self._say(f"cannot send to {self.name}: {reason.lower()}; trying again")
            return False
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
        self._socket = sock
        self._looking = self._loop.create_future()
        self._waiting = False
        self._send_all()
        return True

    def _send_all(self) -> None:
        """Send what waits, until there is no room."""
        while self._socket is not None:
            if not self._batch:
                item = self.queue.pop()
                if item is None:
                    break
                self._batch = item[0]
            stop = self._batch.find(b"\n", self._at) + 1 or len(self._batch)
            if not self._send(self._socket, self._batch[self._at : stop]):
                return
            self._at = stop
            if stop >= len(self._batch):
                self._batch, self._at = b"", 0
                self.queue.done(1)
        if self._flushed is not None and not self.queue.size:
            settle(self._flushed)

    def _send(self, sock: socket, event: bytes) -> bool:
        """Send one event, or count it as lost; False: there is no room at present."""
        for _ in range(2):
            try:
                if len(event) > MOST_BYTES:
                    raise OSError(EMSGSIZE, "")
                sock.send(event)
                return True
            except (BlockingIOError, InterruptedError):
                self._wait(sock)
                return False
            except OSError as error:
                if error.errno == ENOBUFS:
                    self._waiting = True
                    self._loop.call_later(_NO_BUFFERS_SECONDS, self._go_on, sock)
                    return False
                if error.errno == EMSGSIZE:
                    self._lose(TOO_LONG, event)
                    return True
                self._lose(os.strerror(error.errno or 0).lower(), event)
                settle(self._looking)
                if error.errno != ECONNREFUSED:
                    return True
                # That was an earlier one; this one is still to be sent.
        return True

    def _lose(self, reason: str, event: bytes) -> None:
        dropped = self._dropped.get(reason)
        if dropped is None:
            dropped = self._dropped[reason] = Dropped(reason)
        dropped.count += 1
        dropped.bytes += len(event)
        if reason != TOO_LONG:
            self._say(f"cannot send to {self.name}: {reason}; going on")

    def _wait(self, sock: socket) -> None:
        self._waiting = True
        self._loop.add_writer(sock.fileno(), self._go_on, sock)

    def _go_on(self, sock: socket) -> None:
        if sock is self._socket:
            self._loop.remove_writer(sock.fileno())
            self._waiting = False
            self._send_all()

    def _say(self, text: str) -> None:
        if text != self._said:  # once, not for each datagram
            self._said = text
            self._monitor.say(text)
