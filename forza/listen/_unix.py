# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Listen on a unix socket, whose file tells who may connect."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socket
from errno import EADDRINUSE, EAGAIN, ECONNREFUSED
from fcntl import LOCK_EX, LOCK_NB, flock
from stat import S_ISSOCK

from forza._errors import SinkError
from forza.sinks.unix import address


class UnixListener(socket):
    """A socket bound to a path, or to `@NAME` in the abstract namespace.

    `close` removes the file again, if it is still this one's.
    """

    def __init__(self, path: str, mode: int, backlog: int) -> None:
        """Listen. Raises SinkError, also if somebody else listens there."""
        super().__init__(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        self.path = path
        self._file: os.stat_result | None = None
        try:
            if path.startswith("@"):
                self.bind(address(path))
            else:
                self._bind(mode)
            self.listen(backlog)
        except OSError as error:
            self.close()
            reason = os.strerror(error.errno or 0).lower()
            raise SinkError(f"cannot listen on unix:{path}: {reason}") from error

    def _bind(self, mode: int) -> None:
        # Two that come at once must not take each other's new socket for a dead one's.
        folder = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            flock(folder, LOCK_EX | LOCK_NB)
            _remove_dead(self.path)
            before = os.umask(0o777 & ~mode)
            try:
                self.bind(address(self.path))
            finally:
                os.umask(before)
            self._file = os.lstat(self.path)
            # Until it listens, it looks dead.
            self.listen(1)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Close it, and remove the file."""
        super().close()
        mine, self._file = self._file, None
        if mine is None:
            return
        try:
            if os.path.samestat(mine, os.lstat(self.path)):
                os.unlink(self.path)
        except OSError:
            pass


def _remove_dead(path: str) -> None:
    """Remove the socket that somebody has left there. Raises OSError if he lives."""
    try:
        if not S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(EADDRINUSE, "")
    except FileNotFoundError:
        return
    kind = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC
    probe = socket(AF_UNIX, kind)
    failure = probe.connect_ex(address(path))
    probe.close()
    if failure == ECONNREFUSED:
        os.unlink(path)
    elif failure in (0, EAGAIN):
        raise OSError(EADDRINUSE, "")
    elif failure:
        raise OSError(failure, "")
