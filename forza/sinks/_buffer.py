# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold what a sink has not taken yet, within a bound."""

from __future__ import annotations

from time import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque

    # A batch, and whether it is a lifecycle event: what it announces, if it does.
    Item = tuple[bytes, "bool | Dropped"]
else:
    from _collections import deque  # without the Python half of `collections`

# What Python needs to hold one batch, besides its bytes.
_OVERHEAD = 128


class Dropped:
    """What had to be dropped: how many events, their bytes, and since when."""

    __slots__ = ("bytes", "count", "since")

    def __init__(self) -> None:
        self.count = 0
        self.bytes = 0
        self.since = round(time(), 3)


def events_in(item: Item) -> int:
    """Count the events of a batch, each of them a line, or those that it announces."""
    batch, lifecycle = item
    return lifecycle.count if isinstance(lifecycle, Dropped) else batch.count(b"\n")


class Buffer:
    """A queue of batches of at most `limit` bytes: when it is full, the oldest go.

    Lifecycle events (spawn, start, exit, …) go only when nothing else is left, and
    the newest batch never, even if it alone is larger.
    """

    __slots__ = ("_kept", "_limit", "_queue", "dropped", "size")

    def __init__(self, limit: int) -> None:
        self.size = 0
        self.dropped: Dropped | None = None
        self._limit = limit
        # Lifecycle events that the dropping has passed by: older than the queue.
        self._kept: deque[Item] = deque()
        self._queue: deque[Item] = deque()

    def push(self, batch: bytes, lifecycle: bool | Dropped) -> None:
        """Append a batch, and drop the oldest ones if it no longer fits."""
        self._queue.append((batch, lifecycle))
        self.size += len(batch) + _OVERHEAD
        while self.size > self._limit and len(self._kept) + len(self._queue) > 1:
            if len(self._queue) > 1:
                oldest = self._queue.popleft()
                if oldest[1]:
                    self._kept.append(oldest)
                    continue
            else:
                oldest = self._kept.popleft()
            self._drop(*oldest)

    def push_back(self, item: Item) -> None:
        """Put a batch that was popped back in front, to be sent again whole."""
        self._kept.appendleft(item)
        self.size += len(item[0]) + _OVERHEAD

    def pop(self) -> Item | None:
        """Take out the oldest batch."""
        queue = self._kept or self._queue
        if not queue:
            return None
        item = queue.popleft()
        self.size -= len(item[0]) + _OVERHEAD
        return item

    def take_dropped(self) -> Dropped | None:
        """Return what was dropped since the last time, if anything."""
        dropped, self.dropped = self.dropped, None
        return dropped

    def events(self) -> int:
        """Count the events held, and those that they announce as dropped."""
        return sum(map(events_in, (*self._kept, *self._queue)))

    def _drop(self, batch: bytes, lifecycle: bool | Dropped) -> None:
        self.size -= len(batch) + _OVERHEAD
        if self.dropped is None:
            self.dropped = Dropped()
        self.dropped.count += batch.count(b"\n")
        self.dropped.bytes += len(batch)
        if isinstance(lifecycle, Dropped):  # news that nobody has heard is no news
            self.dropped.count += lifecycle.count
            self.dropped.bytes += lifecycle.bytes
            self.dropped.since = lifecycle.since
