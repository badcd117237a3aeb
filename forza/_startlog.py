# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write the start log: it is empty, or has the start event as its one line."""

from __future__ import annotations

import os
from errno import EACCES, EBUSY, EEXIST, EPERM, EROFS
from stat import S_ISREG

from forza._errors import SinkError

_MODE = 0o644
# The folder is not ours to write to, or the file alone is mounted here, or somebody has
# put something where the new file is to be made.
_NO_REPLACING = (EACCES, EPERM, EROFS, EBUSY, EEXIST)


def prepare(path: str) -> None:
    """Make the start log, or empty it. Raises SinkError."""
    try:
        os.close(_open(path, os.O_TRUNC))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SinkError(f"cannot write the start log {path}: {reason}") from error


def write(path: str, line: bytes) -> None:
    """Put the line there at once: whoever reads meanwhile sees all of it, or nothing.

    Where the file cannot be replaced (it is a pipe or a terminal, or its folder is
    closed to us) the line is appended. Raises OSError.
    """
    real = os.path.realpath(path)
    if os.path.exists(real) and not S_ISREG(os.stat(real).st_mode):
        return _append(path, line)
    made = f"{real}.{os.getpid()}"
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except OSError as error:
        if error.errno not in _NO_REPLACING:
            raise
        return _append(path, line)
    try:
        _write_all(fd, line)
        os.rename(made, real)
    except OSError as error:
        os.unlink(made)
        if error.errno not in _NO_REPLACING:
            raise
        _append(path, line)
    finally:
        os.close(fd)


def _append(path: str, line: bytes) -> None:
    fd = _open(path, os.O_APPEND)
    try:
        _write_all(fd, line)
    finally:
        os.close(fd)


def _write_all(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


def _open(path: str, flags: int) -> int:
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, _MODE)
