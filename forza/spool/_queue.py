# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be the queue of a sink, on disk: written first, then handed out."""

from __future__ import annotations

from errno import ENOENT
from time import monotonic

from forza.sinks._buffer import Buffer, Dropped, events_in
from forza.spool import _record
from forza.spool._depot import FULL
from forza.spool._series import SPOOL_FULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator

    from forza._monitor import Monitor
    from forza.sinks._buffer import Item
    from forza.spool._depot import Depot
    from forza.spool._lane import Lane, Mark
    from forza.spool._series import Place, Series

    # A batch in memory that is on disk, too: its series, and where it ends there.
    Fresh = tuple[Item, Series, Place, int]
    # Something handed out: up to where in which lane, or itself, if it has none.
    Out = tuple[Lane, Mark, None] | tuple[None, None, Item]
else:
    from _collections import deque  # without the Python half of `collections`

# What is read back is handed out in pieces of about this size.
_PIECE = 64 * 1024
# A disk that could not be written to is tried again after so long.
_RETRY = 1.0
_DISK_FULL = "disk full"
_DISK_ERROR = "disk error"


class NoRoomError(Exception):
    """All of `--spool-max` is taken by what may not go."""


class Spool:
    """A queue on disk (see `Queue` in `forza.sinks._buffer`).

    While the disk cannot be written to, new batches wait in memory, at most `limit`
    bytes of them, and the operator and the stream are told. Lanes of dead monitors
    that the depot hands to `adopt` are emptied first, then removed.
    """

    __slots__ = (
        "_depot",
        "_failing",
        "_fresh",
        "_fresh_size",
        "_is_fresh",
        "_lane",
        "_limit",
        "_loose",
        "_lost",
        "_memory",
        "_monitor",
        "_out",
        "_retry_at",
        "delivered",
        "kept",
        "left",
        "url",
    )

    def __init__(self, monitor: Monitor, depot: Depot, url: str, limit: int) -> None:
        self.url = url
        self.delivered = 0  # so many events so far
        self.kept = 0  # and so many were not when it was closed
        self._monitor = monitor
        self._depot = depot
        self._limit = limit
        self._lane: Lane | None = None
        self.left: list[Lane] = []  # of dead monitors, not empty yet
        self._out: deque[Out] = deque()
        self._loose = 0
        self._fresh: deque[Fresh] = deque()
        self._fresh_size = 0
        # Whether all of ours that waits is in `_fresh`.
        self._is_fresh = True
        self._memory = Buffer(limit)
        self._failing = ""
        self._retry_at = 0.0
        self._lost: dict[str, Dropped] = {}
        try:
            self._open()
        except OSError as error:
            self._failed(error)
        depot.add(self)

    def lanes(self) -> Iterator[Lane]:
        """Iterate over its lanes: those that were left, then its own."""
        yield from self.left
        if self._lane is not None:
            yield self._lane

    def adopt(self, lane: Lane) -> None:
        """Deliver what is in a lane that somebody has left."""
        self.left.append(lane)

    def drop(self, series: Series) -> int:
        """Drop the oldest file of one of its series; return how large it was."""
        self._forget_fresh()
        return series.drop_oldest()

    # What a queue does.

    @property
    def size(self) -> int:
        """How many bytes are held: those that wait, and those handed out."""
        on_disk = sum(lane.held for lane in self.lanes())
        return on_disk + self._loose + self._memory.size

    @property
    def spooled(self) -> int:
        """How many of these bytes are on disk."""
        return sum(lane.held for lane in self.lanes())

    @property
    def waiting(self) -> int:
        """How many bytes wait to be handed out."""
        return self._unread() + self._memory.waiting

    @property
    def high(self) -> int:
        """With how many bytes waiting the app should rather wait as well."""
        if self._memory.waiting:
            return self._unread() + self._limit // 2
        return self._depot.most // 2

    @property
    def dropped(self) -> Dropped | None:
        """What was dropped, or is damaged, and not taken yet: all reasons together."""
        found = [*self._all_lost(), self._memory.dropped]
        total = Dropped()
        for dropped in found:
            total.count += dropped.count if dropped else 0
            total.bytes += dropped.bytes if dropped else 0
        return total if total.count else None

    def push(self, batch: bytes, lifecycle: bool | Dropped) -> None:
        """Write a batch to disk; if that cannot be, keep it in memory."""
        self._depot.look_again()
        if self._drain() and self._store(batch, lifecycle):
            self._recovered()
        else:
            self._memory.push(batch, lifecycle)

    def pop(self) -> Item | None:
        """Hand out the oldest batch that waits, or several in one."""
        for lane in (*self.left, self._lane) if self.left else (self._lane,):
            if lane is None:
                continue
            item = self._take(lane)
            if item is not None:
                lane.handed += 1
                self._out.append((lane, lane.mark(), None))
                return item
            # Nothing of the rest was intact, or all of it was dropped.
            if not lane.handed and (lane.held or lane is not self._lane):
                self._finish(lane, lane.mark())
        item = self._memory.pop()
        if item is not None:
            self._memory.done(1)
            self._loose += len(item[0])
            self._out.append((None, None, item))
        return item

    def done(self, count: int) -> None:
        """Forget the `count` oldest of those handed out: they are delivered."""
        for left in range(count - 1, -1, -1):
            lane, mark, item = self._out.popleft()
            if item is not None:
                self._loose -= len(item[0])
                self.delivered += item[0].count(b"\n")
            elif lane is not None and mark is not None:
                lane.handed -= 1
                if not left or self._out[0][0] is not lane:
                    self._finish(lane, mark)

    def rewind(self) -> None:
        """Let all that were handed out wait again."""
        loose = [item for _, _, item in self._out if item is not None]
        self._out.clear()
        self._loose = 0
        self._forget_fresh()
        for lane in self.lanes():
            lane.handed = 0
            lane.rewind()
        if loose:
            # With what was written to disk since, their order is not kept.
            while (item := self._memory.pop()) is not None:
                self._memory.done(1)
                loose.append(item)
            for item in loose:
                self._memory.push(*item)

    def take_dropped(self) -> Dropped | None:
        """Return what was dropped, or is damaged, for one reason."""
        for lost in (self._lost, *(lane.lost for lane in self.lanes())):
            if lost:
                return lost.popitem()[1]
        dropped = self._memory.take_dropped()
        if dropped is not None:
            dropped.reason = self._memory_reason()
        return dropped

    def events(self) -> int:
        """Count the events held."""
        loose = sum(events_in(item) for _, _, item in self._out if item is not None)
        on_disk = sum(lane.pending() for lane in self.lanes())
        return on_disk + loose + self._memory.events()

    def since(self) -> float:
        """Return the time of the oldest event held; 0 if there is none."""
        times = [
            kind.since() for lane in self.lanes() for kind in (lane.logs, lane.life)
        ]
        return min(filter(None, (*times, self._memory.since())), default=0.0)

    def close(self) -> int:
        """Leave on disk what was not delivered, and say so; return what is lost."""
        self.rewind()
        self._retry_at = 0.0
        self._drain()
        lost = self._memory.close()
        self.kept = sum(lane.pending() for lane in self.lanes())
        for lane in self.lanes():
            lane.close()
        self.left.clear()
        self._lane = None
        if self.kept:
            path = self._depot.path
            self._monitor.say(f"{self.kept} events for {self.url} wait in {path}")
        return lost

    # On disk.

    def _open(self) -> Lane:
        if self._lane is None:
            self._lane = self._depot.lane_for(self.url)
            self._forget_fresh()
        return self._lane

    def _unread(self) -> int:
        return sum(lane.unread for lane in self.lanes())

    def _forget_fresh(self) -> None:
        self._fresh.clear()
        self._fresh_size = 0
        self._is_fresh = False

    def _take(self, lane: Lane) -> Item | None:
        if lane is self._lane and self._is_fresh:
            if not self._fresh:
                return None
            item, series, place, size = self._fresh.popleft()
            self._fresh_size -= size
            series.skip(place, size)
            return item
        data = lane.take(_PIECE)
        return None if data is None else (data, False)

    def _finish(self, lane: Lane, mark: Mark) -> None:
        before = lane.pending()
        lane.finish(mark)
        self.delivered += before - lane.pending()
        if lane is not self._lane and not lane.held:
            for reason, dropped in lane.lost.items():
                total = self._lost.setdefault(reason, dropped)
                if total is not dropped:
                    total.count += dropped.count
                    total.bytes += dropped.bytes
            self.left.remove(lane)
            lane.close()

    def _store(self, batch: bytes, lifecycle: bool | Dropped) -> bool:
        """Append a batch to our lane; say whether that went well."""
        try:
            lane = self._open()
            series = lane.life if lifecycle else lane.logs
            size = _record.SIZE + len(batch)
            most = self._depot.life_most if lifecycle else self._depot.logs_most
            if series.is_full(size, most):
                if not self._is_fresh:  # nobody knows when it will be delivered
                    series.sync()
                if not self._depot.begin(series, max(size, most)):
                    raise NoRoomError
            if not lane.unread:
                self._is_fresh = True
            place = lane.append(batch, bool(lifecycle))
        except (OSError, NoRoomError) as error:
            self._failed(error)
            return False
        if lifecycle:
            series.sync()
            if isinstance(lifecycle, Dropped):
                for told in self.lanes():
                    if not told.lost:
                        told.tell()
        if self._is_fresh:
            self._fresh.append(((batch, lifecycle), series, place, size))
            self._fresh_size += size
            # As long as the sink keeps up, nothing need be read back.
            if self._fresh_size > self._limit and len(self._fresh) > 1:
                self._forget_fresh()
        return True

    # Not on disk.

    def _drain(self) -> bool:
        """Write what waits in memory to disk; say whether more can be tried."""
        if self._failing and monotonic() < self._retry_at:
            return False
        while (item := self._memory.pop()) is not None:
            if not self._store(*item):
                self._memory.rewind()
                return False
            self._memory.done(1)
        return True

    def _failed(self, error: OSError | NoRoomError) -> None:
        if isinstance(error, BlockingIOError):  # somebody else makes room just now
            return
        self._retry_at = monotonic() + _RETRY
        if isinstance(error, NoRoomError):
            cause, reason = SPOOL_FULL, "no room is left within --spool-max"
        else:
            cause = _DISK_FULL if error.errno in FULL else _DISK_ERROR
            reason = (error.strerror or str(error)).lower()
            if error.errno == ENOENT:
                self._abandon()
        if not self._failing:
            self._monitor.say(
                f"cannot write to the spool {self._depot.path}: {reason};"
                " new events wait in memory"
            )
            self._tell(0, reason)
        self._failing = cause

    def _recovered(self) -> None:
        if self._failing:
            self._failing = ""
            self._monitor.say(
                f"writing to the spool {self._depot.path} again", problem=False
            )
            self._tell(1, None)

    def _memory_reason(self) -> str:
        return self._failing or _DISK_FULL

    def _abandon(self) -> None:
        """Let go of a folder that somebody has removed under us."""
        lane, self._lane = self._lane, None
        self._forget_fresh()
        if lane is not None and lane.pending():
            lost = self._lost.setdefault(_DISK_ERROR, Dropped(_DISK_ERROR))
            lost.count += lane.pending()
            lost.bytes += lane.held
            lane.close()

    def _tell(self, metric: int, reason: str | None) -> None:
        def send() -> None:
            if not self._monitor.silent:
                self._monitor.send(
                    "telemetry/spool",
                    metric,
                    reason,
                    meta={"sink": self.url},
                    lifecycle=True,
                )

        self._monitor.loop.call_soon(send)  # not in the middle of another event

    def _all_lost(self) -> Iterator[Dropped]:
        for lost in (self._lost, *(lane.lost for lane in self.lanes())):
            yield from lost.values()
