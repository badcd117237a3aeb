# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold what a sink has not taken yet, within a bound."""

from __future__ import annotations

from time import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Protocol

    from forza._monitor import Monitor

    # A batch, and whether it is a lifecycle event: what it announces, if it does.
    Item = tuple[bytes, "bool | Dropped"]

    class Queue(Protocol):
        """What a stream needs of that which holds its batches until they are done.

        A batch waits, is handed out, and is done: only then is it forgotten. After a
        broken connection those handed out wait again, in their old order.
        """

        @property
        def dropped(self) -> Dropped | None:
            """Return what was dropped, and not taken yet; all reasons together."""

        @property
        def size(self) -> int:
            """Say how many bytes are held: those that wait and those handed out."""

        @property
        def spooled(self) -> int:
            """Say how many of these bytes are on disk."""

        @property
        def waiting(self) -> int:
            """Say how many bytes wait to be handed out; 0 only if no batch does."""

        @property
        def high(self) -> int:
            """Say with how many bytes waiting the app should rather wait as well."""

        def push(self, batch: bytes, lifecycle: bool | Dropped) -> None:
            """Append a batch; if there is no room, drop others and count them."""

        def pop(self) -> Item | None:
            """Hand out the oldest batch that waits, and keep it until it is done."""

        def done(self, count: int) -> None:
            """Forget the `count` oldest of those handed out: they are delivered."""

        def rewind(self) -> None:
            """Let all that were handed out and are not done wait again."""

        def take_dropped(self) -> Dropped | None:
            """Return what was dropped since the last time, if anything."""

        def events(self) -> int:
            """Count the events held, and those that they announce as dropped."""

        def since(self) -> float:
            """Return the time of the oldest event held; 0 if there is none."""

        def close(self) -> int:
            """Keep on disk what is meant to stay there; count the events lost."""
else:
    from _collections import deque  # without the Python half of `collections`

# What Python needs to hold one batch, besides its bytes.
_OVERHEAD = 128
# `metric` comes before it, a number.
_TIME_WITHIN = 80
BUFFER_FULL = "buffer full"


class Dropped:
    """What had to be dropped: how many events, their bytes, since when, and why."""

    __slots__ = ("bytes", "count", "reason", "since")

    def __init__(self, reason: str = BUFFER_FULL) -> None:
        self.reason = reason
        self.count = 0
        self.bytes = 0
        self.since = round(time(), 3)

    def announce(self, monitor: Monitor, sink: str) -> None:
        """Say it in-band, in the name of a sink."""
        monitor.send(
            "telemetry/dropped",
            self.count,
            meta={
                "bytes": self.bytes,
                "since": self.since,
                "reason": self.reason,
                "sink": sink,
            },
            lifecycle=True,
        )


def events_in(item: Item) -> int:
    """Count the events of a batch, each of them a line, or those that it announces."""
    batch, lifecycle = item
    return lifecycle.count if isinstance(lifecycle, Dropped) else batch.count(b"\n")


def time_of(batch: bytes) -> float:
    """Return the time that the first event of a batch has; 0 if it has none."""
    text = batch[:_TIME_WITHIN].partition(b'"time":')[2].partition(b",")[0]
    try:
        return float(text)
    except ValueError:
        return 0.0


class Buffer:
    """A queue in memory. At most `limit` bytes wait: beyond that, the oldest go.

    Lifecycle events (spawn, start, exit, …) go only when nothing else is left, and
    the newest batch never, even if it alone is larger; nor does what is handed out,
    whose bound is what the descriptor takes.
    """

    spooled = 0

    __slots__ = (
        "_kept",
        "_limit",
        "_out",
        "_queue",
        "dropped",
        "high",
        "size",
        "waiting",
    )

    def __init__(self, limit: int) -> None:
        self.size = self.waiting = 0
        self.high = limit // 2
        self.dropped: Dropped | None = None
        self._limit = limit
        # From the oldest to the newest: what was handed out, lifecycle events that
        # the dropping has passed by, all others.
        self._out: deque[Item] = deque()
        self._kept: deque[Item] = deque()
        self._queue: deque[Item] = deque()

    def push(self, batch: bytes, lifecycle: bool | Dropped) -> None:
        """Append a batch, and drop the oldest ones if it no longer fits."""
        self._queue.append((batch, lifecycle))
        self.size += len(batch) + _OVERHEAD
        self.waiting += len(batch) + _OVERHEAD
        while self.waiting > self._limit and len(self._kept) + len(self._queue) > 1:
            if len(self._queue) > 1:
                oldest = self._queue.popleft()
                if oldest[1]:
                    self._kept.append(oldest)
                    continue
            else:
                oldest = self._kept.popleft()
            self._drop(*oldest)

    def pop(self) -> Item | None:
        """Hand out the oldest batch that waits, and keep it."""
        queue = self._kept or self._queue
        if not queue:
            return None
        item = queue.popleft()
        self._out.append(item)
        self.waiting -= len(item[0]) + _OVERHEAD
        return item

    def done(self, count: int) -> None:
        """Forget the `count` oldest of those handed out."""
        for _ in range(count):
            self.size -= len(self._out.popleft()[0]) + _OVERHEAD

    def rewind(self) -> None:
        """Let all that were handed out wait again."""
        for older in (self._kept, self._out):
            self._queue.extendleft(reversed(older))
            older.clear()
        self.waiting = self.size

    def take_dropped(self) -> Dropped | None:
        """Return what was dropped since the last time, if anything."""
        dropped, self.dropped = self.dropped, None
        return dropped

    def events(self) -> int:
        """Count the events held, and those that they announce as dropped."""
        return sum(map(events_in, (*self._out, *self._kept, *self._queue)))

    def since(self) -> float:
        """Return the time of the oldest event held; 0 if there is none."""
        for part in (self._out, self._kept, self._queue):
            if part:
                return time_of(part[0][0])
        return 0.0

    def close(self) -> int:
        """Free what it holds, and count the events that are lost by that."""
        lost = self.events()
        for part in (self._out, self._kept, self._queue):
            part.clear()
        self.size = self.waiting = 0
        return lost

    def _drop(self, batch: bytes, lifecycle: bool | Dropped) -> None:
        self.size -= len(batch) + _OVERHEAD
        self.waiting -= len(batch) + _OVERHEAD
        if self.dropped is None:
            self.dropped = Dropped()
        self.dropped.count += batch.count(b"\n")
        self.dropped.bytes += len(batch)
        if isinstance(lifecycle, Dropped):  # news that nobody has heard is no news
            self.dropped.count += lifecycle.count
            self.dropped.bytes += lifecycle.bytes
            self.dropped.since = lifecycle.since
