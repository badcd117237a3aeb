# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Leave out what a line has written over: of a progress bar, all but its last state."""

from __future__ import annotations

from forza._event import split_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._lines import Out


class LastState:
    """Pass on what a terminal would still show of each line.

    `meta.overwritten` says how many bytes of the line were left out.
    """

    __slots__ = ("_out",)

    def __init__(self, out: Out) -> None:
        self._out = out

    def lines(self, data: bytes) -> None:
        """Pass on lines that nothing was written over as they are, in one batch."""
        if data.count(b"\r") == data.count(b"\r\n"):
            self._out.lines(data)
            return
        kept = bytearray()
        for line in split_lines(data):
            if left_out(line):
                if kept:
                    self._out.lines(bytes(kept))
                    kept.clear()
                self.text(line, {})
            else:
                kept += line
        if kept:
            self._out.lines(bytes(kept))

    def text(self, data: bytes, meta: Mapping[str, object]) -> None:
        """Pass on the last state of one line, or of a piece of one."""
        over = left_out(data)
        if over:
            meta = {**meta, "overwritten": over}
        self._out.text(data[over:], meta)

    def flush(self) -> None:
        """Nothing is kept back here."""
        self._out.flush()


def left_out(line: bytes) -> int:
    """Return how many of the line's bytes a carriage return has written over."""
    end = len(line.rstrip(b"\r\n"))
    return line.rfind(b"\r", 0, end) + 1
