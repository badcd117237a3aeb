# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep one sink's batches in a folder that one process at a time may touch."""

from __future__ import annotations

import os
from binascii import crc32
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock

from forza.spool._series import Series

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct

    from forza.sinks._buffer import Dropped
    from forza.spool._series import Place

    # Where each of the two kinds is.
    Mark = tuple[Place, Place]
else:
    from _struct import Struct

# The lock, how far things are delivered, and to where.
STATE = "state"
LOGS, LIFE = "logs", "life"
_CURSOR = Struct("<QQQQQQQQ")
_CHECKSUM = Struct("<I")
_TO_AT = _CURSOR.size + _CHECKSUM.size
# A single write never tears a page, and a cursor that is torn by a power cut is told
# by its checksum: what it said is then delivered once more.
_TO_MOST = 4096 - _TO_AT


class Lane:
    """A folder of a spool: two series of batches, and how far they were delivered.

    Logs and readings are apart from lifecycle events, so that the oldest of the first
    can go, whole files of them, while the second stay. An ordinal puts the two back
    in order.
    """

    __slots__ = ("_state", "handed", "life", "logs", "lost", "ordinal", "path", "to")

    def __init__(self, path: str, state: int) -> None:
        self.path = path
        self._state = state
        self.handed = 0  # so many pieces are under way
        names = os.listdir(path)
        data = os.pread(state, 4096, 0)
        self.to = data[_TO_AT:].decode(errors="replace")
        logs, life = _cursor(data) or (None, None)
        # What was dropped or is damaged, by reason, until somebody tells of it.
        self.lost: dict[str, Dropped] = {}
        self.logs = Series(path, LOGS, self.lost)
        self.life = Series(path, LIFE, self.lost)
        self.logs.load(names, logs)
        self.life.load(names, life)
        self.ordinal = max(self.logs.ordinal, self.life.ordinal)
        if not data:  # so that what is dropped before anything is done will be missed
            self.finish(self.mark())

    @property
    def held(self) -> int:
        """How many bytes are there that are not done."""
        return self.logs.held + self.life.held

    @property
    def unread(self) -> int:
        """How many bytes wait to be read."""
        return self.logs.unread + self.life.unread

    def pending(self) -> int:
        """Count the events that are not done."""
        return self.logs.pending() + self.life.pending()

    def send_to(self, url: str) -> None:
        """Remember where this is meant to go."""
        if self.to != url:
            self.to = url
            os.ftruncate(self._state, _TO_AT)
            os.pwrite(self._state, url.encode(errors="replace")[:_TO_MOST], _TO_AT)

    def append(self, batch: bytes, lifecycle: bool) -> Place:
        """Write a batch, and return where it ends. Raises OSError."""
        series = self.life if lifecycle else self.logs
        place = series.append(batch, self.ordinal + 1)
        self.ordinal += 1
        return place

    def take(self, most: int) -> bytes | None:
        """Return what is next: as many batches as fit in `most`, at least one."""
        found: list[bytes] = []
        size = 0
        # The last look is for what is damaged: it ends where the next batch begins.
        while (series := self._next()) is not None:
            record = series.peek()
            assert record is not None
            if found and size + len(record[3]) > most:
                break
            found.append(series.take())
            size += len(found[-1])
        return b"".join(found) if found else None

    def _next(self) -> Series | None:
        """Return the series that has the older batch."""
        log, event = self.logs.peek(), self.life.peek()
        if log is None:
            return None if event is None else self.life
        return self.logs if event is None or log[0] < event[0] else self.life

    def mark(self) -> Mark:
        """Return where reading is."""
        return self.logs.place(), self.life.place()

    def finish(self, mark: Mark) -> None:
        """Take note that all up to `mark` is done: on disk first, then files go."""
        self.logs.done, self.life.done = mark
        self._write_cursor()
        self.logs.clean()
        self.life.clean()

    def tell(self) -> None:
        """Take note that all that is known to be missing was told of."""
        self.logs.tell()
        self.life.tell()
        self._write_cursor()

    def _write_cursor(self) -> None:
        fields = _CURSOR.pack(*self.logs.cursor(), *self.life.cursor())
        try:
            os.pwrite(self._state, fields + _CHECKSUM.pack(crc32(fields)), 0)
        except OSError:  # after a crash it would be delivered, or told, once more
            pass

    def rewind(self) -> None:
        """Read again from what is not done."""
        self.logs.rewind()
        self.life.rewind()

    def close(self) -> None:
        """Let go of it: for another process, if anything is held, else for good."""
        if not self.held:
            self.logs.close()
            self.life.close()
            self._remove()
        else:
            # Whoever leaves something may do so because the machine goes down.
            written = self.logs.is_open or self.life.is_open
            for series in (self.logs, self.life):
                series.sync_now()
                series.close()
            try:
                if written:
                    os.fsync(self._state)
            except OSError:
                pass
        state, self._state = self._state, -1
        os.close(state)

    def _remove(self) -> None:
        try:
            # The lock goes last: who comes by meanwhile finds the folder in use.
            for name in sorted(os.listdir(self.path), key=STATE.__eq__):
                kind, _, number = name.partition("-")
                if name == STATE or (kind in (LOGS, LIFE) and number.isdecimal()):
                    os.unlink(f"{self.path}/{name}")
            os.rmdir(self.path)
        except OSError:  # not ours alone, then
            pass


def open_lane(path: str) -> Lane | None:
    """Open a lane, unless another process has it. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    state = os.open(f"{path}/{STATE}", flags, 0o600)
    try:
        flock(state, LOCK_EX | LOCK_NB)
        # Its owner may have removed it between the two.
        if not os.fstat(state).st_nlink:
            raise BlockingIOError
        return Lane(path, state)
    except BlockingIOError:
        os.close(state)
        return None
    except BaseException:
        os.close(state)
        raise


def is_in_use(path: str) -> bool:
    """Say whether another process has this lane."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        state = os.open(f"{path}/{STATE}", flags)
    except FileNotFoundError:
        return False
    except OSError:  # somebody else's
        return True
    try:
        flock(state, LOCK_SH | LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(state)
    return False


def _cursor(data: bytes) -> Mark | None:
    """Return how far the two series are delivered, if that is known."""
    fields = data[: _CURSOR.size]
    if len(data) < _TO_AT or data[_CURSOR.size : _TO_AT] != _CHECKSUM.pack(
        crc32(fields)
    ):
        return None
    a, b, c, d, e, f, g, h = _CURSOR.unpack(fields)
    return (a, b, c, d), (e, f, g, h)
