# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Share out a folder, its lanes and its bytes, among the spools that use it."""

from __future__ import annotations

import os
from errno import EACCES, EDQUOT, ENOSPC, ENOTDIR
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import monotonic

from forza._errors import SinkError
from forza.spool._lane import LIFE, LOGS, open_lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forza.spool._lane import Lane
    from forza.spool._queue import Spool
    from forza.spool._series import Series

FULL = (ENOSPC, EDQUOT)
_LOCK = "lock"
# One file of logs is so large a part of the whole, within these bounds; one of
# lifecycle events a quarter of that.
_PARTS = 32
_FILE_LEAST = 32 * 1024
_FILE_MOST = 2 * 1024 * 1024
# Another monitor of the same folder may have died: look so often.
_LOOK_EVERY = 60.0
# What a file or folder takes on disk, whatever is in it.
_BLOCK = 4096


class Depot:
    """A folder with at most `most` bytes in numbered lanes.

    A lane that nobody has locked was left by a dead monitor: it goes to the spool of
    the same URL, or, if there is none such any more, to the first. `urls` are those of
    all spools that there will be.
    """

    def __init__(self, path: str, most: int, urls: Sequence[str]) -> None:
        self.path = path
        self.most = most
        self._urls = tuple(urls)
        self._spools: list[Spool] = []
        self.found: list[Lane] = []
        self._lock = -1
        self._look_at = 0.0
        self.logs_most = max(_FILE_LEAST, min(_FILE_MOST, most // _PARTS))
        self.life_most = self.logs_most // 4

    def add(self, spool: Spool) -> None:
        """Take note of a spool; when all are there, they get what is left over."""
        self._spools.append(spool)
        if len(self._spools) == len(self._urls):
            self.look()

    def lane_for(self, url: str) -> Lane:
        """Return a lane to append to: one that was left, or a new one.

        Raises OSError.
        """
        self._prepare()
        self.find()
        fitting = [lane for lane in self.found if lane.to == url]
        fitting += [lane for lane in self.found if lane.to not in self._urls]
        if fitting:
            lane = fitting[0]
            self.found.remove(lane)
        else:
            lane = self._new_lane()
        try:
            lane.send_to(url)
        except OSError:  # a full disk, which will be tried again and again
            lane.close()
            raise
        return lane

    def look_again(self) -> None:
        """Look for what was left, unless that was just done."""
        if monotonic() >= self._look_at:
            self.look()

    def look(self) -> None:
        """Hand out the lanes that dead monitors have left."""
        self._look_at = monotonic() + _LOOK_EVERY
        try:
            self._prepare()
            self.find()
        except OSError:  # there will be another time
            return
        for lane in self.found:
            fitting = [spool for spool in self._spools if spool.url == lane.to]
            (fitting or self._spools)[0].adopt(lane)
        self.found.clear()

    def begin(self, series: Series, need: int) -> bool:
        """Begin a new file of `need` bytes, if there is room, or can be made.

        Raises OSError: BlockingIOError if another process is doing the same.
        """
        self._prepare()
        flock(self._lock, LOCK_EX | LOCK_NB)
        try:
            self.look()
            too_much = blocks(need) + self._used(besides=series) - self.most
            while too_much > 0:
                room = self._drop_oldest()
                if not room:
                    return False
                too_much -= room
            series.begin()
            return True
        finally:
            flock(self._lock, LOCK_UN)

    def in_use(self) -> int:
        """Count the lanes that other processes have."""
        mine = set(self._mine())
        return sum(path not in mine for path in self._paths())

    def close(self) -> None:
        """Let go of the folder."""
        for lane in self.found:
            lane.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _prepare(self) -> None:
        os.makedirs(self.path, 0o700, exist_ok=True)
        if self._lock < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._lock = os.open(f"{self.path}/{_LOCK}", flags, 0o600)

    def _paths(self) -> list[str]:
        # No link: whoever may write here must not have us write elsewhere.
        with os.scandir(self.path) as entries:
            names = [
                entry.name
                for entry in entries
                if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False)
            ]
        return [f"{self.path}/{name}" for name in sorted(names, key=int)]

    def _lanes(self) -> Iterator[Lane]:
        yield from self.found
        for spool in self._spools:
            yield from spool.lanes()

    def _mine(self) -> list[str]:
        return [lane.path for lane in self._lanes()]

    def find(self, *, strict: bool = False) -> None:
        """Lock every lane that is free. Raises OSError: if strict, for any of them."""
        mine = set(self._mine())
        for path in self._paths():
            if path in mine:
                continue
            try:
                lane = open_lane(path)
            except FileNotFoundError:  # removed just now
                continue
            except OSError:
                if strict:
                    raise
                continue
            if lane is None:
                continue
            if lane.held:
                self.found.append(lane)
            else:
                lane.close()

    def _new_lane(self) -> Lane:
        numbers = [int(os.path.basename(path)) for path in self._paths()]
        number = max(numbers, default=0)
        while True:
            number += 1
            path = f"{self.path}/{number}"
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            try:
                lane = open_lane(path)
            except OSError:
                os.rmdir(path)
                raise
            if lane is not None:  # else somebody took it for one that was left
                return lane

    def _used(self, besides: Series) -> int:
        """Return how much is taken, and how much open files may still take.

        All of them but `besides`, which is about to be ended. How far those of other
        processes may grow is not known: as far as ours, then.
        """
        mine = {lane.path: lane for lane in self._lanes()}
        used = _BLOCK
        for path in self._paths():
            used += _BLOCK
            lane = mine.get(path)
            newest = {LOGS: ("", 0), LIFE: ("", 0)}
            for name, size in _files(path):
                used += blocks(size)
                kind = name.partition("-")[0]
                if kind in newest:
                    newest[kind] = max(newest[kind], (name, blocks(size)))
            for kind, most in ((LOGS, self.logs_most), (LIFE, self.life_most)):
                may_grow = True
                if lane is not None:
                    series = lane.logs if kind == LOGS else lane.life
                    may_grow = series.is_open and series is not besides
                name, size = newest[kind]
                if name and may_grow:
                    used += max(0, most - size)
        return used

    def _drop_oldest(self) -> int:
        """Drop the oldest file of logs there is, else of lifecycle events.

        Returns how much room that makes: 0 if nothing is left to be dropped.
        """
        for kind in (LOGS, LIFE):
            found = [
                (at, spool, lane)
                for spool in self._spools
                for lane in spool.lanes()
                if (at := (lane.logs if kind == LOGS else lane.life).oldest())
                is not None
            ]
            if found:
                _, spool, lane = min(found, key=lambda entry: entry[0])
                return blocks(spool.drop(lane.logs if kind == LOGS else lane.life))
        return 0


def blocks(size: int) -> int:
    """Return what a file of `size` bytes takes on disk."""
    return -(-size // _BLOCK) * _BLOCK


def _files(path: str) -> Iterator[tuple[str, int]]:
    """List what is in a folder, and how large, as far as it is not just going."""
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat().st_size
                except OSError:
                    pass
    except OSError:
        pass


def survey(path: str) -> tuple[list[tuple[str, int]], int]:
    """Return what is left: URLs, each with a count of events. And how many lanes
    running monitors have.

    Raises SinkError if the folder cannot be used.
    """
    depot = Depot(path, 0, ())
    try:
        depot.find(strict=True)
    except OSError as error:
        raise _unusable(path, error) from error
    left = [(lane.to, lane.pending()) for lane in depot.found]
    in_use = depot.in_use()
    depot.close()
    return left, in_use


def check_folder(path: str) -> None:
    """Raise SinkError if a spool cannot be kept there; make the folder (0700)."""
    try:
        if os.path.exists(path) and not os.path.isdir(path):
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR))
        os.makedirs(path, 0o700, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK | os.R_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        if error.errno in FULL:  # that may pass, and the app shall run
            return
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError) -> SinkError:
    reason = (error.strerror or str(error)).lower()
    return SinkError(f"cannot use the spool {path}: {reason}")
