# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events to a file, or to standard output: a pipe, a terminal or a file."""

from __future__ import annotations

import os
from stat import S_ISREG

from forza._wait import settle, wait
from forza.sinks import file_options
from forza.sinks._logfile import LogFile
from forza.sinks._stream import Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable

    from forza._monitor import Monitor

    Render = Callable[[bytes], bytes]
    Write = Callable[[int, bytes | memoryview], int]
    from forza.sinks._buffer import Queue

_STDOUT = 1


class Descriptor:
    """Write batches to one descriptor; when it fails for good, drop them, counted."""

    __slots__ = (
        "_fd",
        "_flushed",
        "_gone",
        "_monitor",
        "_render",
        "_stream",
        "announce",
        "name",
        "queue",
        "since",
        "write",
    )

    def __init__(
        self,
        monitor: Monitor,
        name: str,
        fd: int,
        queue: Queue,
        render: Render | None = None,
        write: Write = os.write,
    ) -> None:
        self.name = name
        self.queue = queue
        self.since = queue.since
        self._monitor = monitor
        self._fd = fd
        self._render = render
        self._flushed: Future[None] | None = None
        self._gone = False
        self._stream = Stream(monitor, name, queue, self._failed)
        self.write = self._stream.write if render is None else self._write_rendered
        self.announce = self._stream.announce
        self._stream.attach(fd, write)

    @property
    def connected(self) -> bool:
        """Whether it can be written to."""
        return not self._gone

    def _write_rendered(self, batch: bytes, lifecycle: bool = False) -> None:
        assert self._render is not None
        self._stream.write(self._render(batch), lifecycle)

    def _failed(self, error: OSError) -> None:
        reason = os.strerror(error.errno or 0).lower()
        name = self.name.rstrip(":")
        self._monitor.say(f"cannot write to {name}: {reason}; its events are lost")
        self._gone = True
        self._stream.detach()
        self.abandon()

    def abandon(self) -> None:
        """Give up flushing, now."""
        if self._flushed is not None:
            settle(self._flushed)

    async def close(self, within: float) -> int:
        """Flush and close; return how many events could not be written."""
        loop = self._monitor.loop
        self._flushed = flushed = loop.create_future()
        self._stream.when_empty(lambda: settle(flushed))
        await wait(loop, flushed, 0.0 if self._gone else within)
        self._stream.detach()
        if self._fd != _STDOUT:
            os.close(self._fd)
        return self._stream.close()


def open_file(monitor: Monitor, url: str, queue: Queue) -> Descriptor:
    """Append to a file."""
    file = LogFile(*file_options(url), monitor.say)
    return Descriptor(monitor, url, file.fd, queue, None, file.write)


def open_stdout(monitor: Monitor, queue: Queue) -> Descriptor:
    """Write events to standard output: readable on a terminal, else as they are."""
    fd, render, write = stdout()
    return Descriptor(monitor, "stdout:", fd, queue, render, write)


def stdout() -> tuple[int, Render | None, Write]:
    """Return how to write to standard output without waiting, and without disturbing
    those who share it: a descriptor, what makes events readable, and what writes."""
    render = None
    if os.isatty(_STDOUT):
        from forza._readable import Renderer

        render = Renderer(colour=not os.environ.get("NO_COLOR")).render
    fd = _reopened()
    if fd is not None:
        return fd, render, os.write
    from forza._write import write_now

    return _STDOUT, render, write_now


def _reopened() -> int | None:
    """Return a non-blocking descriptor for standard output, if that can be had.

    O_NONBLOCK is a property of what is open, which the shell and others share: so
    the pipe or terminal is opened anew. A socket cannot be, nor another user's pipe.
    A file stays as it is: its offset is shared too, and it never blocks.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        if S_ISREG(os.fstat(_STDOUT).st_mode):
            return _STDOUT
        return os.open("/proc/self/fd/1", flags)
    except OSError:
        return None
