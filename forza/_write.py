# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write to a descriptor that others share, and whose mode is not ours to change."""

from __future__ import annotations

import os
from select import POLLERR, POLLHUP, POLLOUT, poll

# Poll says that a pipe is writable if so much fits: PIPE_BUF.
_MOST = 4096


def write_now(fd: int, data: bytes | memoryview) -> int:
    """Write what fits without waiting, 4096 bytes at most; return how many.

    Raises BlockingIOError if nothing does, and what `os.write` raises.
    """
    poller = poll()
    poller.register(fd, POLLOUT)
    if not any(event & (POLLOUT | POLLERR | POLLHUP) for _, event in poller.poll(0)):
        raise BlockingIOError
    return os.write(fd, data[:_MOST])
