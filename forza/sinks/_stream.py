# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write batches to a descriptor as fast as it takes them, and no faster."""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable

    from forza._monitor import Monitor
    from forza.sinks._buffer import Dropped, Queue

# A sink that makes room in a full buffer within _KEEPS_UP is keeping up: the app's
# pipes are left alone meanwhile, so a burst arrives whole, and an app that writes
# without end is held to the sink's pace. How long an app may be held up by a sink that
# is not: once _CREDIT seconds, and _SHARE of its time in the long run. After that the
# sink counts as slow, and drops its oldest batches until it has caught up.
_KEEPS_UP = 0.2
_CREDIT = 0.5
_SHARE = 0.03
_DISK_RETRY = 1.0
# A sink that is slow for good is told so often what it has missed.
_ANNOUNCE_EVERY = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Stream:
    """The writing half of a sink: a queue, and the descriptor that empties it.

    `lost_cb(error)` is called when the descriptor fails; what was not written whole
    stays, and is written again, whole, to the next descriptor.
    """

    __slots__ = (
        "_announced_at",
        "_announcing",
        "_credit",
        "_credit_time",
        "_current",
        "_disk_timer",
        "_empty_cb",
        "_fd",
        "_full",
        "_held_since",
        "_lost_cb",
        "_monitor",
        "_name",
        "_offset",
        "_os_write",
        "_patience",
        "_queue",
        "_slow",
    )

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        queue: Queue,
        lost_cb: Callable[[OSError], object],
        write: Callable[[int, bytes | memoryview], int] = os.write,
    ) -> None:
        self._monitor = monitor
        self._name = name
        self._lost_cb = lost_cb
        self._os_write = write
        self._queue = queue
        self._fd = -1
        self._current: bytes | None = None
        self._announcing: Dropped | None = None
        self._announced_at = 0.0
        self._offset = 0
        self._empty_cb: Callable[[], object] | None = None
        self._disk_timer: TimerHandle | None = None
        self._patience: TimerHandle | None = None
        self._held_since = 0.0
        self._slow = False
        self._full = False
        self._credit = _CREDIT
        self._credit_time = monitor.loop.time()

    @property
    def empty(self) -> bool:
        return not self._queue.size

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
        idle = self._current is None and not self._queue.waiting
        self._queue.push(batch, self._announcing or lifecycle)
        if self._fd < 0:
            return
        if idle:
            # A spool may have found more than this batch.
            while self._fd >= 0 and self._next():
                if not self._push_on():
                    self._wait()
                    break
        elif self._queue.waiting > self._queue.high:
            self._hold()
            if self._monitor.loop.time() - self._announced_at > _ANNOUNCE_EVERY:
                self.announce()

    def attach(self, fd: int) -> None:
        """Write to `fd` from now on: first of all what has been kept."""
        self._fd = fd
        self._offset = 0
        self.announce()
        self._more()

    def detach(self) -> None:
        """Forget the descriptor, keep what it has not taken."""
        if self._fd < 0:
            return
        self._stop_waiting()
        self._release()
        self._fd = -1
        self._current = None
        self._queue.rewind()

    def when_empty(self, callback: Callable[[], object]) -> None:
        """Call back as soon as all is written: perhaps now."""
        self._empty_cb = callback
        if self.empty:
            callback()

    def _next(self) -> bool:
        """Take the oldest batch that waits in hand, if there is one."""
        item = self._queue.pop()
        self._current = None if item is None else item[0]
        return item is not None

    def _push_on(self) -> bool:
        """Write what is in hand; say whether the descriptor took all of it."""
        batch = self._current
        assert batch is not None
        try:
            written = self._os_write(
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
        self._queue.done(1)
        return True

    def _more(self) -> None:
        self._disk_timer = None
        while self._fd >= 0:
            if self._current is None and not self._next():
                break
            if not self._push_on():
                self._wait()
                if self._queue.waiting < self._queue.high // 2:
                    self._release()
                    self.announce()
                return
        if self._fd < 0:
            return
        self._stop_waiting()
        self._release()
        self._slow = False
        self.announce()
        if self._empty_cb is not None and self.empty:
            self._empty_cb()

    def _wait(self) -> None:
        if self._disk_timer is not None:
            return
        try:
            self._monitor.loop.add_writer(self._fd, self._more)
        except PermissionError:  # a regular file, on a disk that is full
            self._disk_timer = self._monitor.loop.call_later(_DISK_RETRY, self._more)

    def _stop_waiting(self) -> None:
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
            self._monitor.send(
                "telemetry/dropped",
                dropped.count,
                meta={
                    "bytes": dropped.bytes,
                    "since": dropped.since,
                    "reason": dropped.reason,
                    "sink": self._name,
                },
                lifecycle=True,
            )
            self._announcing = None

    def _hold(self) -> None:
        """Let the app's output wait in its pipes, if there is patience left."""
        if self._slow or self._patience is not None or self._disk_timer is not None:
            return
        loop = self._monitor.loop
        now = loop.time()
        earned = _SHARE * (now - self._credit_time)
        self._credit = min(_CREDIT, self._credit + earned)
        self._credit_time = self._held_since = now
        if self._credit <= 0:
            self._slow = True
            return
        self._monitor.hold(self)
        self._patience = loop.call_later(_KEEPS_UP + self._credit, self._give_up)

    def _release(self) -> None:
        if self._patience is None:
            return
        self._patience.cancel()
        self._patience = None
        held = self._monitor.loop.time() - self._held_since
        self._credit -= max(0.0, held - _KEEPS_UP)
        self._monitor.release(self)

    def _give_up(self) -> None:
        if self._monitor.ended:
            # The app is gone and waits for nobody; the flush time-out is the bound.
            self._patience = self._monitor.loop.call_later(_CREDIT, self._give_up)
            return
        self._slow = True
        self._release()
