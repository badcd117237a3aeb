# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events over a connection: to one server at a time, or to whoever stands in."""

from __future__ import annotations

import os
from _socket import SHUT_WR

from forza._wait import end, settle, wait
from forza.sinks._dial import first, random
from forza.sinks._stream import Stream
from forza.sinks._unacked import Unacked, unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from asyncio import AbstractEventLoop, Future, Task
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any

    from forza._monitor import Monitor
    from forza.sinks._answers import Answers
    from forza.sinks._buffer import Queue
    from forza.sinks._stream import Write

    Say = Callable[[str], object]
    # Makes a connection, or says why it can't.
    Attempt = Callable[[Say], Coroutine[Any, Any, "Link | None"]]

_DELAY_FIRST = 0.1
_DELAY_MOST = 30.0
# A server that has not answered by then has its stand-in tried as well.
_STAGGER = 1.0
# A connection that lasted this long earns the first delay again.
_STABLE = 5.0
_DEAF_SECONDS = 0.1
_READS_AT_ONCE = 8
_LOOK_FIRST = 0.001
_LOOK_MOST = 0.05
_PARTING_SECONDS = 1.0


class Link:
    """One connection, and what works it: its socket, unless somebody else does."""

    __slots__ = (
        "goodbye",
        "lingers",
        "name",
        "number",
        "recv",
        "sock",
        "unsent",
        "write",
    )

    def __init__(self, name: str, sock: socket) -> None:
        self.name = name
        self.number = 0
        self.sock = sock
        self.recv: Callable[[int], bytes] = sock.recv
        self.write: Write = os.write
        self.unsent: Callable[[int], int] = unsent
        self.goodbye: Callable[[], object] = lambda: sock.shutdown(SHUT_WR)
        # Whether the server has something to say of its own accord, perhaps late.
        self.lingers = False

    def close(self) -> None:
        """Say goodbye and close."""
        try:
            self.goodbye()
        except OSError:
            pass
        self.sock.close()


class Client:
    """Connect, write, reconnect; the events wait in the queue meanwhile.

    Each server is one of the `attempts`, made in turn and beginning with the next
    after the one that was lost. The pause after a failed round doubles from 0.1 to
    30 s, less up to half at random.
    """

    __slots__ = (
        "_answers",
        "_attempts",
        "_flushed",
        "_friends",
        "_link",
        "_loop",
        "_lost",
        "_monitor",
        "_said",
        "_stream",
        "_task",
        "_turn",
        "_unacked",
        "_wake",
        "announce",
        "name",
        "queue",
        "write",
    )

    def __init__(
        self, monitor: Monitor, name: str, queue: Queue, attempts: Sequence[Attempt]
    ) -> None:
        self.name = name
        self._monitor = monitor
        self._loop: AbstractEventLoop = monitor.loop
        self._attempts = attempts
        self._turn = 0
        self.queue = queue
        self._unacked = Unacked(monitor)
        self._stream = Stream(monitor, name, queue, self._failed, self._unacked)
        self._unacked.stream = self._stream
        self.write = self._stream.write
        self.announce = self._stream.announce
        self._link: Link | None = None
        self._answers: Answers | None = None
        self._friends: set[str] = set()
        self._lost: Future[str] | None = None
        self._wake: Future[None] | None = None
        self._flushed: Future[None] | None = None
        self._said: set[str] = set()
        self._task: Task[None] = self._loop.create_task(self._run())

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    def since(self) -> float:
        """Return the time of the oldest event that has not arrived; 0 if all have.

        Those in doubt have: they are kept for the case that the receiver dies.
        """
        arrived = self._link is not None and self._unacked.all_arrived
        return 0.0 if arrived and self._stream.written else self.queue.since()

    async def _run(self) -> None:
        delay = _DELAY_FIRST
        while True:
            connected_at = None
            link = await self._dial()
            if link is not None:
                connected_at = self._loop.time()
                await self._serve(link)
            if self._flushed is not None and self._stream.empty:
                return  # all is said
            if connected_at is not None and self._loop.time() - connected_at > _STABLE:
                delay = _DELAY_FIRST
                continue
            self._stream.expect_nothing()
            await self._pause(delay * (0.5 + 0.5 * random()))
            delay = min(_DELAY_MOST, delay * 2)

    async def _dial(self) -> Link | None:
        """Try all servers, and keep the first that answers."""
        count = len(self._attempts)

        async def attempt(number: int) -> Link | None:
            link = await self._attempts[number](self._say)
            if link is not None:
                link.number = number
            return link

        turns = [(self._turn + turn) % count for turn in range(count)]
        link = await first(self._loop, attempt, turns, _STAGGER)
        if link is not None:
            self._turn = (link.number + 1) % count
        return link

    async def _serve(self, link: Link) -> None:
        """Feed one connection until it is lost."""
        fd = link.sock.fileno()
        self._say(f"connected to {link.name}", problem=False)
        self._link = link
        self._lost = self._loop.create_future()
        try:
            self._unacked.open(fd, link.unsent, friend=link.name in self._friends)
            self._loop.add_reader(fd, self._readable)
            self._stream.attach(fd, link.write)
            if link is self._link:
                self._readable()  # what has come with a handshake
            reason = await self._lost
            if self._flushed is None:
                self._say(f"lost the connection to {link.name}: {reason}")
        finally:
            self._let_go(link)
            link.close()
            self._answers = None

    def _let_go(self, link: Link) -> None:
        """Write and read no more; what has not arrived for certain waits again."""
        if link is not self._link:
            return
        self._link = None
        self._loop.remove_reader(link.sock.fileno())
        if self._unacked.plain:
            self._unacked.look()
        elif self._unacked.acking:
            self._friends.add(link.name)
        self._unacked.close()
        self._stream.detach()

    def _readable(self) -> None:
        # Whether or not anybody is expected to answer, what comes is read: closing a
        # socket with unread input resets it, and the reset destroys our last words.
        # All of it, and at once: libuv watches a socket in error no longer once it has
        # said so, and what came before the error would hide it.
        link = self._link
        assert link is not None
        for _ in range(_READS_AT_ONCE):
            if link is not self._link:
                return
            try:
                data = link.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
                return
            if not data:
                self._closed(link)
            elif not self._useful(data) and link is self._link:
                # A peer that talks without end gets no more of our time than this.
                self._loop.remove_reader(link.sock.fileno())
                self._loop.call_later(_DEAF_SECONDS, self._listen, link)
                return
        self._loop.remove_reader(link.sock.fileno())  # the others' turn
        self._loop.call_soon(self._listen, link)

    def _useful(self, data: bytes) -> bool:
        if self._answers is None:
            from forza.sinks._answers import Answers

            self._answers = Answers(self._unacked)
        return self._answers.data(data)

    def _listen(self, link: Link) -> None:
        if link is self._link:
            self._loop.add_reader(link.sock.fileno(), self._readable)
            self._readable()  # what is deciphered already no descriptor tells of

    def _closed(self, link: Link) -> None:
        closing = self._flushed is not None and not self._unacked.acking
        if closing and self._stream.written and not unsent(link.sock.fileno()):
            # It closes in order: had it left anything unread, that were a reset.
            self._unacked.all_done()
        self._lose("closed by the server")

    def _failed(self, error: OSError) -> None:
        self._lose((error.strerror or str(error)).lower())

    def _lose(self, reason: str) -> None:
        if self._link is not None and self._lost is not None:
            self._let_go(self._link)
            settle(self._lost, reason)

    async def _pause(self, seconds: float) -> None:
        # Leaving is bounded, and no time to be modest.
        self._wake = self._loop.create_future()
        await wait(self._loop, self._wake, _DELAY_FIRST if self._flushed else seconds)
        self._wake = None

    async def close(self, within: float) -> int:
        """Flush and disconnect; return how many events were not delivered: at most."""
        self._flushed = flushed = self._loop.create_future()
        if self._wake is not None:
            settle(self._wake)
        self._stream.when_empty(lambda: settle(flushed))
        self._look(_LOOK_FIRST)
        await wait(self._loop, flushed, within)
        self._look(0.0)
        await self._part(min(_PARTING_SECONDS, within))
        await end(self._loop, self._task)
        return self._stream.close()

    async def _part(self, within: float) -> None:
        """Hear the server out, for a while, where closing could come before its words.

        They would meet a closed socket, whose answer, a reset, makes a server give up
        the connection before it has read all.
        """
        link = self._link
        if link is None or not link.lingers or not self._stream.empty:
            return
        assert self._lost is not None
        if not self._unacked.acking:
            try:
                link.goodbye()
            except OSError:
                return
            await wait(self._loop, self._lost, within)

    def abandon(self) -> None:
        """Give up flushing, now."""
        if self._flushed is not None:
            settle(self._flushed)

    def _look(self, pause: float) -> None:
        """Look whether all has arrived: the kernel tells nobody when it has."""
        assert self._flushed is not None
        now = not pause or (self._unacked.plain and self._stream.written)
        if now and self._link is not None and not self._unacked.acking:
            self._unacked.look(0)
        if pause and not self._flushed.done():
            self._loop.call_later(pause, self._look, min(_LOOK_MOST, pause * 2))

    def _say(self, text: str, *, problem: bool = True) -> None:
        if not problem:
            self._said.clear()
        if text not in self._said:  # an outage is said once, not once per attempt
            self._said.add(text)
            self._monitor.say(text, problem=problem)
