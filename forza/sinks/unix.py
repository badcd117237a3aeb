# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events over a unix socket, to a server on this machine."""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from errno import EAGAIN
from select import POLLHUP, poll

from forza._errors import UsageError
from forza.sinks._client import Client, Link
from forza.sinks._dial import SEND_BUFFER
from forza.sinks._unacked import unsent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue
    from forza.sinks._client import Say

LONGEST_PATH = 107
# More than was ever written.
_ALL = 1 << 62


def path_in(url: str) -> str:
    """Return the path in `unix:PATH`; `@NAME` is in the abstract namespace.

    It may begin with `///`. Raises UsageError.
    """
    path = url.partition(":")[2]
    path = path[2:] if path.startswith("///") else path
    if path in ("", "@"):
        raise UsageError(f"'{url}' names no socket")
    if "\0" in path or len(os.fsencode(path)) > LONGEST_PATH:
        raise UsageError(f"'{url}': a socket's path has at most {LONGEST_PATH} bytes")
    return path


def address(path: str) -> bytes:
    """Return what the kernel calls a path, or an abstract name."""
    name = os.fsencode(path)
    return b"\0" + name[1:] if name.startswith(b"@") else name


def open_unix(monitor: Monitor, url: str, queue: Queue) -> Client:
    """Send to the server that listens there."""
    path = path_in(url)

    async def attempt(say: Say) -> Link | None:
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        try:
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
            sock.connect(address(path))
        except OSError as error:
            sock.close()
            reason = os.strerror(error.errno or 0).lower()
            if error.errno == EAGAIN:
                reason = "it has as many connections waiting as it takes"
            say(f"cannot connect to {path}: {reason}; trying again")
            return None
        link = Link(path, sock)
        link.unsent = unread
        return link

    return Client(monitor, url, queue, [attempt])


def unread(fd: int) -> int:
    """Return how many bytes at most the other process has not read.

    Once it is gone nobody can tell: the kernel throws away what it has not read, and
    counts it no longer. So whether it is still there has to be asked afterwards.
    """
    count = unsent(fd)
    poller = poll()
    poller.register(fd, 0)
    gone = any(event & POLLHUP for _, event in poller.poll(0))
    return _ALL if gone else count
