# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Append batches of one kind to a row of files, and read them in order."""

from __future__ import annotations

import os
from _thread import start_new_thread
from errno import ENOSPC
from stat import S_ISREG

from forza.sinks._buffer import Dropped, time_of
from forza.spool import _record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    # A file, an offset in it, the events before that, and those of them found missing.
    Place = tuple[int, int, int, int]
    # The ordinal of a batch, its events and those before it, itself, where it ends.
    Record = tuple[int, int, int, bytes, int]

SPOOL_FULL = "spool full"
CORRUPT = "corrupt"
# So much is read at once, whatever there is.
_CHUNK = 128 * 1024
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
# A disk that takes its time gets no more threads to wait for it.
_SYNCS_MOST = 2
_LOOK_BYTES = 128


class Series:
    """The batches of one kind in one folder: files `NAME-N`, oldest first.

    N counts the events of this kind before the file, and every record says how many
    came before it, too: so what is missing is known to the event, whether a file was
    dropped or a record is damaged. `lost` is where that is added up, by reason.
    """

    __slots__ = (
        "_chunk",
        "_chunk_at",
        "_file",
        "_in",
        "_known_missing",
        "_lost",
        "_missing",
        "_next",
        "_offset",
        "_out",
        "_passed",
        "_path",
        "_syncs",
        "_told",
        "done",
        "events",
        "files",
        "ordinal",
        "total",
        "unread",
    )

    def __init__(self, path: str, name: str, lost: dict[str, Dropped]) -> None:
        self._path = f"{path}/{name}-"
        self._lost = lost
        # From a file's N to its size; the newest file is the last.
        self.files: dict[int, int] = {}
        self.events = 0
        self.ordinal = 0
        self.total = 0
        self.done: Place = (0, 0, 0, 0)
        self._out = -1
        self._syncs: list[None] = []
        # Where reading is: the events passed by so far, and those of them missing.
        self.unread = 0
        self._file = 0
        self._offset = 0
        self._passed = 0
        self._missing = self._known_missing = self._told = 0
        self._next: Record | None = None
        self._in = -1
        self._chunk = b""
        self._chunk_at = 0

    # What is there.

    def load(self, names: Iterable[str], done: Place | None) -> None:
        """Take over what somebody has left.

        `done` says how far it was delivered, and how many events after that were
        missing and told of.
        """
        prefix = os.path.basename(self._path)
        numbers = (name[len(prefix) :] for name in names if name.startswith(prefix))
        for first in sorted(int(number) for number in numbers if number.isdecimal()):
            path = self._name(first)
            found = os.lstat(path)
            if not S_ISREG(found.st_mode):  # a stranger's
                continue
            size = found.st_size
            if not size or (done is not None and first < done[0]):
                os.unlink(path)
                continue
            self.files[first] = size
            self.total += size
        if done is None:  # what is missing before the oldest file, nobody knows
            first = next(iter(self.files), 0)
            done = first, 0, first, 0
        self.events = done[2]
        self._known_missing = self._told = done[3]
        if self.files:
            self._find_end(next(reversed(self.files)))
        if done[1] > self.files.get(done[0], 0):
            done = done[0], 0, *done[2:]
        self.done = (*done[:3], 0)
        self.rewind()

    def _find_end(self, last: int) -> None:
        """Learn from the newest file where the next batch will stand."""
        self._file, self._offset, self._passed = last, 0, last
        self.unread = self.files[last]
        while self.unread:
            found = _record.parse(self._read(_record.SIZE), 0)
            if found is None:
                # At least one event is missing here; reading will find that out.
                self._passed += 1
                self._forward(self._damaged())
                continue
            length, events, self.ordinal, before, _ = found
            self._passed = before + events
            self._forward(min(self.unread, _record.SIZE + length))
        self.events = max(self.events, self._passed)
        self._close_reader()

    def _name(self, first: int) -> str:
        return f"{self._path}{first:016d}"

    @property
    def held(self) -> int:
        """How many bytes are there that are not done."""
        file, offset, _, _ = self.done
        return self.total - (offset if file in self.files else 0)

    def pending(self) -> int:
        """Count the events that are not done and not known to be missing."""
        return self.events - self.done[2] - (self._known_missing - self.done[3])

    def tell(self) -> None:
        """Take note that all that is known to be missing was told of."""
        self._told = self._known_missing

    def cursor(self) -> Place:
        """Return what `load` wants to know."""
        return *self.done[:3], max(0, self._told - self.done[3])

    # Writing.

    def is_full(self, size: int, most: int) -> bool:
        """Say whether a record of `size` needs a new file, if one holds `most`."""
        if self._out < 0:
            return True
        written = self.files[next(reversed(self.files))]
        return written > 0 and written + size > most

    def begin(self) -> None:
        """Begin a new file. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        out = os.open(self._name(self.events), flags, 0o600)
        self.end()
        self._out = out
        self.files[self.events] = 0

    def append(self, batch: bytes, ordinal: int) -> Place:
        """Write a batch, and return where it ends.

        Raises OSError, and leaves nothing half written.
        """
        file = next(reversed(self.files))
        start = self.files[file]
        events = batch.count(b"\n") or 1
        head = _record.header(batch, events, ordinal, self.events)
        size = len(head) + len(batch)
        if os.pwritev(self._out, (head, batch), start) < size:
            os.ftruncate(self._out, start)
            raise OSError(ENOSPC, os.strerror(ENOSPC))
        self.files[file] = start + size
        self.events += events
        self.ordinal = ordinal
        self.total += size
        self.unread += size
        return file, start + size, self.events, 0

    @property
    def is_open(self) -> bool:
        """Whether the newest file may grow."""
        return self._out >= 0

    def end(self) -> None:
        """Append no more to the newest file."""
        if self._out >= 0:
            os.close(self._out)
            self._out = -1

    def sync(self) -> None:
        """Ask the disk to take what is written, and do not wait for that."""
        if self._out < 0 or len(self._syncs) >= _SYNCS_MOST:
            return
        self._syncs.append(None)
        try:
            start_new_thread(self._sync, (self._name(next(reversed(self.files))),))
        except RuntimeError:  # no thread to be had
            self._syncs.pop()

    def sync_now(self) -> None:
        """Wait until the disk has taken what is written."""
        if self._out >= 0:
            try:
                os.fsync(self._out)
            except OSError:
                pass

    def _sync(self, name: str) -> None:
        try:
            # Its own descriptor: ours may be closed meanwhile.
            fd = os.open(name, _READ)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            pass
        self._syncs.pop()

    def since(self) -> float:
        """Return the time of the oldest event that is not done; 0 if there is none."""
        if not self.held:
            return 0.0
        file, offset = self.done[:2]
        if offset >= self.files.get(file, 0):
            file, offset = self._newer(file), 0
        try:
            fd = os.open(self._name(file), _READ)
        except OSError:
            return 0.0
        try:
            return time_of(os.pread(fd, _LOOK_BYTES, offset + _record.SIZE))
        finally:
            os.close(fd)

    # Reading.

    def peek(self) -> Record | None:
        """Return the next batch with its ordinal, but leave it."""
        if self._next is None and self.unread:
            self._next = self._find()
        return self._next

    def take(self) -> bytes:
        """Return the batch that `peek` has found, and go on to the next."""
        assert self._next is not None
        _, before, events, batch, end = self._next
        self._forward(end - self._offset)
        self._passed = before + events
        return batch

    def place(self) -> Place:
        """Return where reading is."""
        return self._file, self._offset, self._passed, self._missing

    def skip(self, place: Place, size: int) -> None:
        """Take note that `size` bytes up to `place` were read by other means."""
        self._next = None
        if place[0] != self._file:
            self._close_reader()
        self._file, self._offset, self._passed, _ = place
        self.unread -= size

    def rewind(self) -> None:
        """Read again from what is not done."""
        self._close_reader()
        self._file, self._offset, self._passed, self._missing = self.done
        self.unread = self.held
        if self._file not in self.files:
            self._file, self._offset = self._newer(self._file), 0
            self._miss(self._file - self._passed, 0, SPOOL_FULL)
            self._passed = self._file

    def _forward(self, size: int) -> None:
        self._offset += size
        self.unread -= size
        self._next = None

    def _newer(self, file: int) -> int:
        """Return the oldest file that is newer, or what it will be called."""
        return next((first for first in self.files if first > file), self.events)

    def _find(self) -> Record | None:
        """Find the next intact batch; pass by what is not."""
        while True:
            if self._offset >= self.files.get(self._file, 0):
                newer = self._newer(self._file)
                if newer not in self.files or newer == self._file:
                    self._miss(self.events - self._passed, 0, CORRUPT)
                    self._passed = self.events
                    return None
                self._close_reader()
                self._file, self._offset = newer, 0
                continue
            header = self._header()
            if header is None:
                self._forward(self._damaged())
                continue
            length, events, ordinal, before, checksum = header
            end = self._offset + _record.SIZE + length
            batch = self._read(length, _record.SIZE)
            if len(batch) != length or not _record.is_intact(batch, checksum):
                self._forward(end - self._offset)
                continue
            self._miss(before - self._passed, 0, CORRUPT)
            self._passed = before
            return ordinal, before, events, batch, end

    def _header(self) -> _record.Header | None:
        """Return the header of the record that begins here, if one does."""
        left = self.files[self._file] - self._offset
        found = _record.parse(self._read(_record.SIZE), 0)
        if found is not None and _record.SIZE + found[0] <= left:
            return found
        return None

    def _damaged(self) -> int:
        """Return how far it is to what looks like a record again, or to the end."""
        size = self.files[self._file]
        start = self._offset + 1
        self._chunk = b""
        while start < size and (data := self._pread(start, _CHUNK)):
            found = data.find(_record.MAGIC)
            if found >= 0:
                return start + found - self._offset
            start += max(1, len(data) - len(_record.MAGIC) + 1)
        return size - self._offset

    def _read(self, size: int, ahead: int = 0) -> bytes:
        """Return `size` bytes from so far ahead, or fewer if the file has no more."""
        start = self._offset + ahead - self._chunk_at
        if start < 0 or start + size > len(self._chunk):
            self._chunk_at = self._offset + ahead
            self._chunk = self._pread(self._chunk_at, max(size, _CHUNK))
            start = 0
        return self._chunk[start : start + size]

    def _pread(self, offset: int, size: int) -> bytes:
        """Read from the present file: never what is beyond its known end."""
        size = min(size, self.files[self._file] - offset)
        try:
            if self._in < 0:
                name = self._name(self._file)
                self._in = os.open(name, _READ)
            return os.pread(self._in, size, offset)
        except OSError:  # a disk that cannot read it: as good as damaged
            return b""

    def _close_reader(self) -> None:
        self._next = None
        self._chunk = b""
        self._chunk_at = 0
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    # What goes.

    def clean(self) -> None:
        """Remove the files of which all is done."""
        for first in tuple(self.files):
            if first >= self.done[0]:
                break
            self._remove(first)

    def drop_oldest(self) -> int:
        """Remove the oldest file, and count what was not read of it as lost.

        Returns how large it was.
        """
        first = next(iter(self.files))
        size = self.files[first]
        reading = self._file == first
        unread = size - self._offset if reading else 0
        if first == next(reversed(self.files)):
            self.end()
        self._remove(first)
        if reading:
            self._close_reader()
            self.unread -= unread
            self._file, self._offset = self._newer(first), 0
            self._miss(self._file - self._passed, unread, SPOOL_FULL)
            self._passed = self._file
        return size

    def oldest(self) -> float | None:
        """Return when the oldest file was last written, unless it still may be."""
        first = next(iter(self.files), None)
        if first is None or (self._out >= 0 and len(self.files) == 1):
            return None
        try:
            return os.stat(self._name(first)).st_mtime
        except OSError:
            return 0.0

    def close(self) -> None:
        """Close what is open."""
        self.end()
        self._close_reader()

    def _remove(self, first: int) -> None:
        self.total -= self.files.pop(first)
        try:
            os.unlink(self._name(first))
        except OSError:  # somebody was faster
            pass

    def _miss(self, events: int, size: int, reason: str) -> None:
        """Tell of missing events, unless they were missing the last time, too."""
        if events <= 0:
            return
        self._missing += events
        if self._missing > self._known_missing:
            lost = self._lost.setdefault(reason, Dropped(reason))
            lost.count += self._missing - self._known_missing
            lost.bytes += size
            self._known_missing = self._missing
