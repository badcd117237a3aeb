# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold a keeper's state file: locked while the keeper lives, readable ever after.

The file is replaced as a whole, so that nobody reads half of it, and the lock moves on
to the new one before that takes the old one's place: whoever gets the lock, and then
finds that the file is still the one it has locked, has no keeper beside it.
"""

from __future__ import annotations

import os
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_MODE = 0o640
# Whoever reads the state holds the lock for an instant, too, to see whether it is free.
_PATIENCE = 1.0
_LOOK_AGAIN = 0.02


class HeldError(Exception):
    """Another keeper holds the file."""


def beside(pidfile: str) -> str:
    """Return where the state of a command with this pidfile is, if nobody says."""
    return pidfile.removesuffix(".pid") + ".state"


def hold(path: str) -> int:
    """Return a descriptor that holds the file. Raises HeldError, or OSError."""
    deadline = monotonic() + _PATIENCE
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)
        try:
            flock(fd, LOCK_EX | LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):
            if monotonic() > deadline:
                os.close(fd)
                raise HeldError(path) from None
            sleep(_LOOK_AGAIN)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def fresh(path: str, mode: int) -> int:
    """Return a descriptor of a new file. Raises OSError.

    Whoever may write to the folder (the app, perhaps) may have put something else
    there, a link to a file of ours.
    """
    remove(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, mode)


def write(path: str, fd: int, data: bytes) -> None:
    """Replace what the file says; `fd` goes on to hold it. Raises OSError."""
    made = f"{path}.{os.getpid()}"
    new = fresh(made, _MODE)
    try:
        flock(new, LOCK_EX | LOCK_NB)
        os.write(new, data)
        os.rename(made, path)
        os.dup2(new, fd, inheritable=False)
    except BaseException:
        remove(made)
        raise
    finally:
        os.close(new)


def read(path: str) -> tuple[bytes, bool]:
    """Return what the file says, and whether a keeper holds it. Raises OSError."""
    while True:
        # It may be anything: a fifo, say, that nobody writes to.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            try:
                flock(fd, LOCK_SH | LOCK_NB)
                held = False
            except BlockingIOError:
                held = True
            data = os.read(fd, 1 << 16)
            if held or os.path.samestat(os.fstat(fd), os.stat(path)):
                return data, held
        finally:
            os.close(fd)


def remove(path: str) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(path)
    except OSError:
        pass


def to_json(values: Mapping[str, object]) -> bytes:
    """Return one line of JSON; `json` itself would be a fifth of what a keeper loads.

    Values are numbers, booleans, None, strings and mappings of these.
    """
    return _text(values).encode() + b"\n"


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        from _json import encode_basestring_ascii

        return encode_basestring_ascii(value)
    assert isinstance(value, dict)
    inner = (f"{_text(name)}: {_text(item)}" for name, item in value.items())
    return "{" + ", ".join(inner) + "}"
