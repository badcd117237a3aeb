# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read the files in which the kernel tells what it knows."""

from __future__ import annotations

import os

# What it means that something of a process cannot be read: it has ended; or else it is
# not for us to see. All other errors (EMFILE, say) tell nothing of the process.
GONE = (FileNotFoundError, ProcessLookupError, NotADirectoryError)
CLOSED = (*GONE, PermissionError)


class Kept:
    """A file that is read at every tick, and so kept open: to walk its path costs as
    much as to read it (0.04 ms each after 5 s of sleep)."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> bytes:
        """Return what it says now; nothing if it is not there, or not any more."""
        try:
            return self._read()
        except OSError:
            self.close()
            return b""

    def must_read(self) -> bytes:
        """Return what it says now. Raises OSError if that is nothing."""
        reason = "it is empty"
        try:
            if data := self._read():
                return data
        except OSError as error:
            self.close()
            reason = (error.strerror or "").lower()
        raise OSError(f"cannot read {self._path}: {reason}")

    def _read(self) -> bytes:
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._fd, 8192, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


def read(path: str) -> bytes:
    """Return all of a file, or nothing if it is gone, or the process that it is of.

    Raises OSError, with the path as its `filename`, if it cannot be looked at.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except GONE:
        return b""
    try:
        data = chunk = os.read(fd, 4096)
        while chunk:  # /proc gives whole lines only, so a short read is not the end
            chunk = os.read(fd, 4096)
            data += chunk
    except GONE:
        return b""
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(fd)
    return data


def attempt(path: str) -> bytes:
    """Return all of a file, or nothing, whatever the reason."""
    try:
        return read(path)
    except OSError:
        return b""


def number(data: bytes, name: bytes) -> int:
    """Return the number on the line that begins with `name`, or -1."""
    at = (b"\n" + data).find(b"\n" + name)
    words = data[at + len(name) : at + len(name) + 40].split(None, 1) if at >= 0 else ()
    return int(words[0]) if words else -1
