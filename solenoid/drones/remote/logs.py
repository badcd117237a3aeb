# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Print the last events of an app, as forza has left them in a file, and those to come.

It ends when its input does: a deployer that has gone is not written to for ever.
"""

from __future__ import annotations

import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_FILE = "events.ndjson"
_LOG = b'"service":"logs/'
# How often a file is looked at, in seconds; and how much of it is read at a time.
_LOOK_AGAIN = 0.25
_PIECE = 1 << 18
# forza keeps two older files beside it.
_OLDER = (".1", ".2")


def main(action: str, order: dict[str, object]) -> int:
    """Print the last `lines`; with `follow`, also what comes, until input ends."""
    run_dir = str(order["run_dir"])
    if not os.path.isdir(os.path.join(run_dir, "releases")):
        sys.stderr.write(f"no app in {run_dir}\n")
        return 1
    file = _Followed(run_dir, b"" if order.get("all") else _LOG)
    try:
        _write(file.last(int(str(order["lines"]))))
        while order.get("follow") and not _over():
            _write(file.more())
    except BrokenPipeError:
        # Nobody reads it; nor is anything left to be flushed at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


class _Followed:
    """The events of the current release: written to, renamed, and led to by a link."""

    def __init__(self, run_dir: str, wanted: bytes) -> None:
        self.link = os.path.join(run_dir, "snapshot")
        self.wanted = wanted
        self.fd = -1
        self.rest = b""

    def last(self, count: int) -> list[bytes]:
        """Return the last lines, those of older files too if it takes them."""
        self._open()
        lines = list(self._lines())
        for suffix in _OLDER:
            if len(lines) >= count:
                break
            older = _open(os.path.join(self._folder(), _FILE + suffix))
            if older >= 0:
                with os.fdopen(older, "rb") as file:
                    found = file.read().split(b"\n")
                lines = [line for line in found if line and self.wanted in line] + lines
        return lines[-count:] if count else []

    def more(self) -> list[bytes]:
        """Return the lines that have come since."""
        lines = list(self._lines())
        if not self._is_still():
            lines += self._lines()  # what has come before it was left
            self._open()
            lines += self._lines()
        return lines

    def _folder(self) -> str:
        # This far the way is ours; from here on it is the app's own, and a link there
        # may lead to what we may read, and whoever owns the app may not.
        return os.path.realpath(self.link)

    def _open(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.rest = b""
        self.fd = _open(os.path.join(self._folder(), _FILE))

    def _is_still(self) -> bool:
        if self.fd < 0:
            return False
        try:
            there = os.lstat(os.path.join(self._folder(), _FILE))
        except OSError:  # it is just being made anew
            return True
        return os.path.samestat(os.fstat(self.fd), there)

    def _lines(self) -> Iterator[bytes]:
        while self.fd >= 0 and (data := os.read(self.fd, _PIECE)):
            *lines, self.rest = (self.rest + data).split(b"\n")
            yield from (line for line in lines if self.wanted in line)


def _open(path: str) -> int:
    """Return a descriptor, -1 where there is no file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except OSError:
        return -1


def _write(lines: list[bytes]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    while data:
        data = data[os.write(1, data) :]


def _over() -> bool:
    """Wait for the next look; say whether input has ended."""
    ready, _, _ = select.select([0], [], [], _LOOK_AGAIN)
    return bool(ready) and not os.read(0, 4096)
