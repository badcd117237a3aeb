# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what the child writes, as it comes, in pieces of a sensible size."""

from __future__ import annotations

import os
from fcntl import ioctl
from sys import byteorder

from forza._process import PIPE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

# A read is at most so large, and no larger than what makes so many bytes of events:
# the shorter the lines, the more an event's own _EVENT_BYTES count.
_READ_MOST = 64 * 1024
_READ_LEAST = 1024
_READ_FIRST = 1024
_EVENTS_MOST = 256 * 1024
_EVENT_BYTES = 256
# To count the newlines of a large read takes half as long as to encode it. What a
# sixteenth of it has, in short samples, is close enough: short lines go unseen for
# 2.3 KiB at most. The samples are not evenly spaced, lest the length of a record hide
# its newlines or multiply them.
_SAMPLE = 128
_CELL = 16 * _SAMPLE
_SAMPLES = tuple(n * _CELL + n * 5 % 8 * 64 for n in range(_READ_MOST // _CELL))
# A read of less than _TRICKLE bytes costs more to wake up for than to carry. After
# one the pipe rests, twice as long each time, so that lines come in batches.
_TRICKLE = 8 * 1024
_REST_MOST = 0.016
_FIONREAD = 0x541B


class Pipe:
    """The monitor's end of one of the child's pipes, read as it fills (`uv_pipe_t`).

    `read_cb` gets each read's bytes; `close_cb` is called once, at end of file.
    """

    __slots__ = (
        "_close_cb",
        "_fd",
        "_loop",
        "_more",
        "_pending",
        "_piece",
        "_read_bytes",
        "_read_cb",
        "_rest",
        "_stopped",
        "_timer",
        "bytes_read",
    )

    def __init__(
        self,
        loop: AbstractEventLoop,
        fd: int,
        read_cb: Callable[[bytes], object],
        close_cb: Callable[[], object],
    ) -> None:
        self.bytes_read = 0
        self._loop = loop
        self._fd = fd
        self._read_cb = read_cb
        self._close_cb = close_cb
        self._read_bytes = _READ_FIRST
        self._more = False
        self._pending = b""  # read, and not yet handed on
        self._piece = _READ_MOST
        self._rest = 0.0
        self._stopped = True
        self._timer: TimerHandle | None = None

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def read_start(self) -> None:
        """Begin to read, or go on."""
        if self._stopped and self._fd >= 0:
            self._stopped = False
            if self._pending:
                self._loop.call_soon(self._hand_on)
            if self._timer is None:
                self._loop.add_reader(self._fd, self._readable)

    def read_stop(self) -> None:
        """Leave what comes in the pipe; once it is full, the child waits."""
        if not self._stopped:
            self._stopped = True
            if self._timer is None:
                self._loop.remove_reader(self._fd)

    def drain(self) -> None:
        """Read all that is there now: at most what fits in the pipe."""
        self._hand_on(all_of_it=True)
        left = PIPE_BYTES
        while self._fd >= 0 and left > 0 and (size := self._read()) > 0:
            self._hand_on(all_of_it=True)
            left -= size

    def unread(self) -> int:
        """Return how many bytes are in the pipe (FIONREAD)."""
        if self._fd < 0:
            return 0
        count = bytearray(4)
        ioctl(self._fd, _FIONREAD, count)
        return int.from_bytes(count, byteorder)

    def close(self) -> None:
        """Stop for good; `close_cb` is called if it was not yet."""
        if self._fd < 0:
            return
        self._hand_on(all_of_it=True)
        self.read_stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        fd, self._fd = self._fd, -1
        os.close(fd)
        self._close_cb()

    def _hand_on(self, *, all_of_it: bool = False) -> None:
        """Hand on what was read, piece by piece, until somebody says stop."""
        while self._pending and (all_of_it or not self._stopped):
            size = self._piece
            # Short lines may all be in one place.
            while size > _READ_LEAST and (
                size + _EVENT_BYTES * self._pending.count(b"\n", 0, size)
                > 2 * _EVENTS_MOST
            ):
                size //= 2
            piece, self._pending = self._pending[:size], self._pending[size:]
            self._read_cb(piece)

    def _read(self) -> int:
        self._hand_on()
        if self._pending:
            return -1
        asked = self._read_bytes
        try:
            data = os.read(self._fd, asked)
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError:  # a socket whose other end died with our words unread
            data = b""
        if not data:
            self.close()
            return 0
        size = len(data)
        self.bytes_read += size
        expansion = 1 + _EVENT_BYTES * _newlines(data) / size
        fitting = max(_READ_LEAST, int(_EVENTS_MOST / expansion))
        self._read_bytes = min(_READ_MOST, fitting)
        self._more = size == asked
        if size <= 2 * fitting:
            self._read_cb(data)
        else:  # much shorter lines than the last time
            self._pending, self._piece = data, fitting
            self._hand_on()
        return size

    def _readable(self) -> None:
        if self._is_trickle(self._read()) and not self._stopped:
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(self._rest, self._rested)

    def _rested(self) -> None:
        self._timer = None
        if self._stopped:
            return
        if self._is_trickle(self._read()) and not self._stopped:
            self._timer = self._loop.call_later(self._rest, self._rested)
        elif not self._stopped:
            self._loop.add_reader(self._fd, self._readable)

    def _is_trickle(self, size: int) -> bool:
        if 0 < size < _TRICKLE and not self._more:
            self._rest = min(_REST_MOST, self._rest * 2 or 0.001)
            return True
        self._rest = self._rest / 2 if size > 0 else 0.0
        return False


def _newlines(data: bytes) -> float:
    """Return about how many lines there are."""
    if len(data) <= _CELL:
        return data.count(b"\n")
    samples = _SAMPLES[: len(data) // _CELL]
    count = data.count(b"\n", -_SAMPLE)
    for start in samples:
        count += data.count(b"\n", start, start + _SAMPLE)
    return count * len(data) / (_SAMPLE * (len(samples) + 1))
