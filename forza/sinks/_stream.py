# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write batches to a descriptor as fast as it takes them, and no faster."""

from __future__ import annotations

import errno
import os

from forza.sinks._patience import Patience

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable
    from typing import Protocol

    from forza._monitor import Monitor
    from forza.sinks._buffer import Dropped, Queue

    Write = Callable[[int, bytes | memoryview], int]

    class Ledger(Protocol):
        """What keeps account of the batches that are written but not delivered."""

        @property
        def full(self) -> bool:
            """Say that no further batch may be begun for now."""

        def add(self, batch: bytes) -> None:
            """Note that a batch has been written whole."""


_DISK_RETRY = 1.0
# A sink that is slow for good is told so often what it has missed.
_ANNOUNCE_EVERY = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stream:
    """The writing half of a sink: a queue, and the descriptor that empties it.

    `lost_cb(error)` is called when the descriptor fails. A batch is done when it was
    written or, if there is a `ledger`, when that says so by `done`; what is not done
    when the descriptor goes is written again, whole, to the next one.
    """

    __slots__ = (
        "_announced_at",
        "_announcing",
        "_backlog",
        "_blocked",
        "_current",
        "_disk_timer",
        "_empty_cb",
        "_fd",
        "_full",
        "_ledger",
        "_lost_cb",
        "_monitor",
        "_name",
        "_offset",
        "_patience",
        "_queue",
        "_write",
    )

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        queue: Queue,
        lost_cb: Callable[[OSError], object],
        ledger: Ledger | None = None,
    ) -> None:
        self._monitor = monitor
        self._name = name
        self._queue = queue
        self._lost_cb = lost_cb
        self._ledger = ledger
        self._write: Write = os.write
        self._fd = -1
        self._current: bytes | None = None
        self._offset = 0
        self._announcing: Dropped | None = None
        self._announced_at = 0.0
        self._empty_cb: Callable[[], object] | None = None
        self._disk_timer: TimerHandle | None = None
        self._patience = Patience(monitor)
        self._backlog = False
        self._full = False
        # Whether there is a batch in hand that the descriptor has no room for.
        self._blocked = False

    @property
    def empty(self) -> bool:
        """Say whether all is delivered."""
        return not self._queue.size

    @property
    def written(self) -> bool:
        """Say whether nothing waits to be written."""
        return self._current is None and not self._queue.waiting

    def events(self) -> int:
        """Count the events not delivered, and those dropped but not announced."""
        dropped = self._queue.dropped
        return self._queue.events() + (dropped.count if dropped else 0)

    def close(self) -> int:
        """Close the queue; count the events that are lost by that, and those dropped
        but not announced."""
        dropped = self._queue.dropped
        return self._queue.close() + (dropped.count if dropped else 0)

    def write(self, batch: bytes, lifecycle: bool = False) -> None:
        """Write now if the descriptor takes it, else later."""
        self._queue.push(batch, self._announcing or lifecycle)
        if not self._blocked:
            # A spool may have found more than this batch, or may have before.
            while self._fd >= 0 and self._next():
                if not self._push_on():
                    self._wait()
                    break
        if self._queue.waiting > self._queue.high:
            self._backlog = True
            if self._fd < 0:
                self._patience.hold_at_first()
                return
            if self._disk_timer is None:
                self._patience.hold()
            if self._monitor.loop.time() - self._announced_at > _ANNOUNCE_EVERY:
                self.announce()

    def attach(self, fd: int, write: Write = os.write) -> None:
        """Write to `fd` from now on: first of all what has been kept."""
        self._fd = fd
        self._write = write
        self._offset = 0
        self._patience.slow = False
        self.announce()
        self.resume()

    def detach(self) -> None:
        """Forget the descriptor, keep what is not done."""
        if self._fd < 0:
            return
        self._stop_waiting()
        self.expect_nothing()
        self._fd = -1
        self._current = None
        self._queue.rewind()

    def expect_nothing(self) -> None:
        """Do not hold the app up for a descriptor that may or may not come."""
        self._patience.release()
        self._patience.slow = True

    def done(self, count: int) -> None:
        """Forget the oldest batches that were written: they are delivered."""
        self._queue.done(count)
        if self._empty_cb is not None and self.empty:
            self._empty_cb()

    def when_empty(self, callback: Callable[[], object]) -> None:
        """Call back as soon as all is delivered: perhaps now."""
        self._empty_cb = callback
        if self.empty:
            callback()

    def resume(self) -> None:
        """Write what the descriptor takes."""
        self._disk_timer = None
        self._blocked = False
        while self._fd >= 0:
            if self._current is None and not self._next():
                break
            if not self._push_on():
                self._wait()
                self._relax()
                return
        if self._fd < 0:
            return
        self._stop_waiting()
        if self._queue.waiting:  # what was written has to be acknowledged first
            self._relax()
            return
        self._patience.release()
        self._patience.slow = False
        self.announce()
        if self._backlog:
            self._backlog = False
            self._monitor.backlogs += 1

    def _next(self) -> bool:
        """Take the oldest batch that waits in hand, if there is one."""
        if self._ledger is not None and self._ledger.full:
            return False
        item = self._queue.pop()
        self._current = None if item is None else item[0]
        return item is not None

    def _push_on(self) -> bool:
        """Write what is in hand; say whether the descriptor took all of it."""
        batch = self._current
        assert batch is not None
        try:
            written = self._write(
                self._fd,
                memoryview(batch)[self._offset :] if self._offset else batch,
            )
        except (BlockingIOError, InterruptedError):
            written = 0
        except OSError as error:
            if error.errno not in _FULL:
                self._lost_cb(error)
                return True
            self._say_full(error)
            written = 0
        self._offset += written
        if self._offset < len(batch):
            return False
        self._current = None
        self._offset = 0
        if self._ledger is None:
            self.done(1)
        else:
            self._ledger.add(batch)
        return True

    def _relax(self) -> None:
        """Let the app go on if there is room enough again."""
        if self._queue.waiting < self._queue.high // 2:
            self._patience.release()
            self.announce()

    def _wait(self) -> None:
        self._blocked = True
        if self._disk_timer is not None:
            return
        try:
            self._monitor.loop.add_writer(self._fd, self.resume)
        except PermissionError:  # a regular file, on a disk that is full
            self._disk_timer = self._monitor.loop.call_later(_DISK_RETRY, self.resume)

    def _stop_waiting(self) -> None:
        self._blocked = False
        if self._disk_timer is not None:
            self._disk_timer.cancel()
            self._disk_timer = None
        self._monitor.loop.remove_writer(self._fd)

    def _say_full(self, error: OSError) -> None:
        if not self._full:
            self._full = True
            reason = os.strerror(error.errno or 0).lower()
            self._monitor.say(f"cannot write to {self._name}: {reason}; trying again")

    def announce(self) -> None:
        """Say in-band what was dropped so far; after the exit event, never more."""
        if self._monitor.silent:
            return
        self._announced_at = self._monitor.loop.time()
        # What sending them may drop is for the next time.
        for dropped in tuple(iter(self._queue.take_dropped, None)):
            self._announcing = dropped
            dropped.announce(self._monitor, self._name)
            self._announcing = None
