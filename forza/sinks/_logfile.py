# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Append to a file that may be moved away or grow full, and lose nothing by it."""

from __future__ import annotations

import os
from errno import EACCES, EINVAL
from stat import S_IMODE, S_ISFIFO, S_ISREG
from time import monotonic

from forza._errors import SinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# So often, while it is written to, a file is looked for by its name.
_LOOK_SECONDS = 1.0
_NEWLINE = 10
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class LogFile:
    """The file of that name, whichever it is at the moment.

    With `most`, it becomes PATH.1 (and PATH.1 becomes PATH.2, up to `keep`) before a
    line that would make it larger than that. If somebody renames or removes it, it is
    made anew within a second of writing. The descriptor's number stays the same. No
    line is divided between two files. `durable` files are synced before they are left.
    A last line that was cut off is ended, by `end` if the caller knows a better one.
    """

    __slots__ = (
        "_durable",
        "_ended",
        "_keep",
        "_looked_at",
        "_most",
        "_owed",
        "_regular",
        "_said",
        "_say",
        "fd",
        "path",
        "turns",
    )

    def __init__(
        self,
        path: str,
        most: int,
        keep: int,
        say: Callable[[str], object],
        *,
        durable: bool = False,
        end: bytes | None = None,
    ) -> None:
        self.path = path
        self.turns = 0
        self._most = most
        self._keep = keep
        self._say = say
        self._said = False
        self._ended = True
        self._durable = durable
        self._looked_at = monotonic()
        self.fd = open_append(path)
        self._regular = S_ISREG(os.fstat(self.fd).st_mode)
        self._owe(_missing_end(path, self.fd) if end is None else end)
        if durable and self._regular:  # its name, too, which may be new
            sync_folder(path)

    def _owe(self, end: bytes) -> None:
        """End a line that was cut off: now, or before anything else is written."""
        self._owed = end
        try:
            self._pay()
        except OSError:  # a full disk
            pass

    def _pay(self) -> None:
        if self._owed:
            self._owed = self._owed[os.write(self.fd, self._owed) :]

    @property
    def regular(self) -> bool:
        """Whether it is a file, and no FIFO or device."""
        return self._regular

    def write(self, fd: int, data: bytes | memoryview) -> int:
        """Write as `os.write` does; less than all only if the disk is full."""
        if not self._regular:
            return os.write(fd, data)
        view, done = memoryview(data), 0
        try:
            while done < len(view):
                piece = self._fitting(view[done:])
                self._pay()
                if self._owed:
                    break
                written = os.write(self.fd, piece)
                done += written
                self._ended = piece[written - 1] == _NEWLINE
                if written < len(piece):
                    break
        except OSError:
            if not done:
                raise
        return done

    def _fitting(self, data: memoryview) -> memoryview:
        """Return what of `data` belongs into the file, and change the file before."""
        if not self._ended:  # of a line that was begun, the rest
            return data[: _line_end(data)]
        now = monotonic()
        if now - self._looked_at > _LOOK_SECONDS:
            self._looked_at = now
            if self._is_moved():
                self.reopen()
        if not self._most:
            return data
        size = os.fstat(self.fd).st_size
        end = _fitting_end(data, self._most - size)
        if not end and size:
            if self._is_moved():
                self.reopen()
            elif not self._rotate():
                return data
            end = _fitting_end(data, self._most)
        return data[: end or _line_end(data)]

    def reopen(self) -> None:
        """Open the file of that name, and leave the one that is open."""
        try:
            fd = open_append(self.path, S_IMODE(os.fstat(self.fd).st_mode))
        except SinkError as error:
            if not self._said:
                self._said = True
                self._say(f"{error}; the one that was moved away is still written to")
            return
        self._said = False
        if self._durable:
            os.fsync(self.fd)
        os.dup2(fd, self.fd, inheritable=False)
        os.close(fd)
        self._owe(_missing_end(self.path, self.fd))
        self.turns += 1
        if self._durable:
            sync_folder(self.path)

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)

    def _is_moved(self) -> bool:
        try:
            named = os.stat(self.path)
        except OSError:
            return True
        return not os.path.samestat(named, os.fstat(self.fd))

    def _rotate(self) -> bool:
        """Rename all of them, the oldest first: at no instant two have one name."""
        try:
            for number in range(self._keep - 1, 0, -1):
                try:
                    os.rename(f"{self.path}.{number}", f"{self.path}.{number + 1}")
                except FileNotFoundError:
                    pass
            os.rename(self.path, f"{self.path}.1")
        except OSError as error:
            if not self._said:
                self._said = True
                reason = os.strerror(error.errno or 0).lower()
                self._say(f"cannot rotate {self.path}: {reason}; it grows on")
            return False
        self.reopen()
        return True


def _fitting_end(data: memoryview, room: int) -> int:
    """Return where the last line ends that fits; 0 if none does."""
    if len(data) <= room:
        return len(data)
    return bytes(data[: max(0, room)]).rfind(b"\n") + 1


def _line_end(data: memoryview) -> int:
    return bytes(data).find(b"\n") + 1 or len(data)


def check_append(path: str) -> None:
    """Raise SinkError if a file can't be opened; leave a FIFO's reader in peace."""
    try:
        if S_ISFIFO(os.stat(path).st_mode):
            return
    except OSError:
        pass
    os.close(open_append(path))


def open_append(path: str, mode: int = 0o644) -> int:
    """Open a file, made if it is not there. Raises SinkError."""
    try:
        return os.open(path, _FLAGS, mode)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SinkError(f"cannot write to {path}: {reason}") from error


def _missing_end(path: str, fd: int) -> bytes:
    """Return the end of the last line that is missing, if its writer was killed."""
    found = os.fstat(fd)
    if not S_ISREG(found.st_mode) or not found.st_size:
        return b""
    try:
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # ours to write, not to read
        return b""
    try:
        last = os.pread(reader, 1, found.st_size - 1)
    finally:
        os.close(reader)
    return b"" if last == b"\n" else b"\n"


def sync_folder(path: str) -> None:
    """Make a file's name as durable as its contents, where that can be had: a folder
    may be not ours to read, and not every file system knows what is asked of it."""
    try:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (EACCES, EINVAL):
            raise
