# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Share out a folder, its lanes and its bytes, among the spools that use it."""

from __future__ import annotations

import os
from errno import EACCES, EDQUOT, ENOSPC, ENOTDIR
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from time import monotonic

from forza._errors import SinkError
from forza.spool._lane import LIFE, LOGS, is_in_use, open_lane

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
# So many lanes that were left are open at a time, whatever there is: each takes memory
# and up to three descriptors.
_MOST_LEFT = 32
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
        self.has_more = False  # than could be opened
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
        """Look for what was left: now and then, and when what was found is done."""
        if monotonic() >= self._look_at or (
            self.has_more and not any(spool.left for spool in self._spools)
        ):
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

    def _lanes(self) -> Iterator[Lane]:
        yield from self.found
        for spool in self._spools:
            yield from spool.lanes()

    def _mine(self) -> list[str]:
        return [lane.path for lane in self._lanes()]

    def find(self) -> None:
        """Lock the lanes that are free, or as many as may be open. Raises OSError."""
        mine = set(self._mine())
        room = _MOST_LEFT + len(self._urls) - len(mine)
        self.has_more = False
        for path in lane_paths(self.path):
            if path in mine:
                continue
            if room <= 0:
                self.has_more = True
                return
            try:
                lane = open_lane(path)
            except OSError:  # somebody else's, or removed just now
                continue
            if lane is None:
                continue
            if lane.held:
                self.found.append(lane)
                room -= 1
            else:
                lane.close()

    def _new_lane(self) -> Lane:
        numbers = [int(os.path.basename(path)) for path in lane_paths(self.path)]
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
        for path in lane_paths(self.path):
            used += _BLOCK
            lane = mine.get(path)
            newest = {LOGS: ("", 0), LIFE: ("", 0)}
            for name, size in _files(path):
                used += blocks(size)
                kind = name.partition("-")[0]
                if kind in newest:
                    newest[kind] = max(newest[kind], (name, blocks(size)))
            for kind, most in ((LOGS, self.logs_most), (LIFE, self.life_most)):
                name, size = newest[kind]
                if lane is not None:
                    series = lane.logs if kind == LOGS else lane.life
                    may_grow = series.is_open and series is not besides
                else:
                    may_grow = bool(name) and is_in_use(path)
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


def lane_paths(path: str) -> list[str]:
    """Return the lanes in a folder, by number. Raises OSError."""
    # No link: whoever may write there must not have us write elsewhere.
    with os.scandir(path) as entries:
        names = [
            entry.name
            for entry in entries
            if entry.name.isdecimal() and entry.is_dir(follow_symlinks=False)
        ]
    return [f"{path}/{name}" for name in sorted(names, key=int)]


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
    left: list[tuple[str, int]] = []
    in_use = 0
    try:
        for lane_path in lane_paths(path):
            try:
                lane = open_lane(lane_path)
            except FileNotFoundError:  # removed just now
                continue
            if lane is None:
                in_use += 1
                continue
            if lane.held:
                left.append((lane.to, lane.pending()))
            lane.close()
    except OSError as error:
        raise _unusable(path, error) from error
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
