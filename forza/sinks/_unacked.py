# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep account of what was written to a connection and may not have arrived."""

from __future__ import annotations

from fcntl import ioctl
from sys import byteorder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections import deque
    from collections.abc import Callable

    from forza._monitor import Monitor
    from forza.sinks._stream import Stream
else:
    from _collections import deque

# A receiver that acknowledges by itself says so when it accepts. Until so many seconds
# after the connection nothing counts as delivered: it might. One that has done so
# before is given longer.
_GREETING = 0.25
_GREETING_OF_A_FRIEND = 5.0
# So much may be on its way to a receiver that acknowledges, or perhaps will.
_WINDOW = 512 * 1024
# What a kernel has acknowledged its process may not have read, and never will if it
# is killed. So the newest of it, up to so many seconds or bytes, stays in doubt, and
# is sent again if the connection breaks.
_DOUBT_SECONDS = 1.0
_DOUBT_BYTES = 64 * 1024
_LOOK_EVERY = 64 * 1024
_SIOCOUTQ = 0x5411
_NOTHING = -1, 0
# In a description it would have its quotes escaped. An app may have the like in a
# `meta` of its own, and confuse the account of its own events: nobody else's.
_IDENTITY = b'"meta":{"boot":"'


def unsent(fd: int) -> int:
    """Return how many bytes of what was written the peer's kernel has not taken.

    It is exact, even when the connection has been reset (SIOCOUTQ).
    """
    count = bytearray(4)
    ioctl(fd, _SIOCOUTQ, count)
    return int.from_bytes(count, byteorder)


class Unacked:
    """The batches on their way over one connection after the other.

    A plain receiver never answers: its batches are delivered when its kernel has
    acknowledged them, less the doubt. If it `greets`, only its own word counts.
    """

    __slots__ = (
        "_batches",
        "_bytes",
        "_decision",
        "_fd",
        "_look_at",
        "_loop",
        "_partly",
        "_settled",
        "_settled_at",
        "_timer",
        "_unsent",
        "acking",
        "plain",
        "stream",
    )

    def __init__(self, monitor: Monitor) -> None:
        self.stream: Stream
        self.acking = self.plain = False
        self._loop = monitor.loop
        self._fd = -1
        self._unsent: Callable[[int], int] = unsent
        self._batches: deque[bytes] = deque()
        self._bytes = self._look_at = 0
        # Where in the oldest, and how many events of the batch there, are acknowledged.
        self._partly = _NOTHING
        # So many of the bytes were acknowledged at that time.
        self._settled = 0
        self._settled_at = 0.0
        self._decision: TimerHandle | None = None
        self._timer: TimerHandle | None = None

    def open(self, fd: int, unsent: Callable[[int], int], *, friend: bool) -> None:
        """Begin with a new connection, to one who may have greeted before."""
        self._fd = fd
        self._unsent = unsent
        self.acking = self.plain = False
        self._look_at = _LOOK_EVERY
        self._settled_at = self._loop.time()
        patience = _GREETING_OF_A_FRIEND if friend else _GREETING
        self._decision = self._loop.call_later(patience, self.is_plain)

    def close(self) -> None:
        """Forget the connection: whatever it still had will be sent again."""
        self._decide()
        self.acking = self.plain = False
        self._batches.clear()
        self._bytes = self._settled = 0
        self._partly = _NOTHING

    @property
    def full(self) -> bool:
        """Say whether the receiver has to acknowledge something first."""
        return self._bytes >= _WINDOW and not self.plain

    def add(self, batch: bytes) -> None:
        """Note that a batch was written."""
        self._batches.append(batch)
        self._bytes += len(batch)
        if self.plain:
            waited = self._loop.time() - self._settled_at
            if self._bytes >= self._look_at or waited >= _DOUBT_SECONDS:
                self.look()
            self._look_later()

    @property
    def all_arrived(self) -> bool:
        """Say whether a plain receiver's kernel has all that was written."""
        return self.plain and not self._unsent(self._fd)

    def look(self, doubt: int = _DOUBT_BYTES) -> None:
        """Ask the kernel what was acknowledged, and be done with what is certain."""
        acked = max(0, self._bytes - self._unsent(self._fd))
        now = self._loop.time()
        is_old = now - self._settled_at >= _DOUBT_SECONDS
        gone = self._done(max(self._settled if is_old else 0, acked - doubt))
        if is_old:
            self._settled = max(0, acked - gone)
            self._settled_at = now
        self._look_at = self._bytes + _LOOK_EVERY

    def all_done(self) -> None:
        """Be done with all that was written: the receiver has read it."""
        self._done(self._bytes)

    def _look_later(self) -> None:
        """See to it that a burst's memory is given back, although none follows.

        Less than that stays until the next batch is written: an idle monitor is not
        woken for it.
        """
        if self._timer is None and self._bytes > _DOUBT_BYTES:
            self._timer = self._loop.call_later(_DOUBT_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        if self.plain:
            self.look()
            self._look_later()

    def greets(self) -> None:
        """The receiver acknowledges: what is on its way is subject to that."""
        self._decide()
        self.acking, self.plain = True, False

    def is_plain(self) -> None:
        """The receiver does not acknowledge by itself, as far as is known."""
        self._decide()
        self.plain = True
        self.look()
        self._look_later()
        self.stream.resume()

    def acked(self, boot: str, seq: int, events: int) -> bool:
        """The receiver has so many events of a batch, and all that came before.

        Return whether that was news.
        """
        needle = b'%s%s","seq":%d' % (_IDENTITY, boot.encode(), seq)
        size = 0
        for item in self._batches:
            # A spool hands out several batches as one.
            last = max(item.rfind(needle + b","), item.rfind(needle + b"}"))
            if last >= 0:
                break
            size += len(item)
        else:
            return False
        is_last = item.find(b"\n", last) + 1 == len(item)
        after = last + len(needle)
        if is_last and events >= item.count(item[last : after + 1]):
            size += len(item)
        gone = self._done(size)
        if gone:
            self._partly = _NOTHING
            self.stream.resume()
        elif (last, events) <= self._partly:
            return False
        if not size:
            self._partly = last, events
        return True

    def _done(self, size: int) -> int:
        """Be done with the batches within the first `size` bytes; return their size."""
        left = size
        count = 0
        while self._batches and len(self._batches[0]) <= left:
            left -= len(self._batches.popleft())
            count += 1
        gone = size - left
        self._bytes -= gone
        self._settled = max(0, self._settled - gone)
        if count:
            self.stream.done(count)
        return gone

    def _decide(self) -> None:
        if self._decision is not None:
            self._decision.cancel()
            self._decision = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
