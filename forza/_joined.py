# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Join lines that belong together, a stack trace's, into one event."""

from __future__ import annotations

from forza._event import split_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Mapping

    from forza._lines import Out

# A line is kept for so long after the newest, in case it goes on, but no longer than
# so many times that long after its first.
_QUIET = 0.2
_LOOKS = 5


class Joined:
    """Append each line for which `goes_on` is true to the event of the line before.

    An event has at most `longest` bytes of text; what would be more begins another, a
    piece as a long line's: `meta.part` and `meta.more`.
    """

    __slots__ = (
        "_goes_on",
        "_held",
        "_longest",
        "_looks",
        "_loop",
        "_out",
        "_part",
        "_size",
        "_timer",
        "_touched",
    )

    def __init__(
        self,
        loop: AbstractEventLoop,
        out: Out,
        goes_on: Callable[[bytes], object],
        longest: int,
    ) -> None:
        self._loop = loop
        self._out = out
        self._goes_on = goes_on
        self._longest = longest
        self._held: list[bytes] = []
        self._size = 0
        self._part = 0  # how many pieces of what is held have been sent
        self._touched = False
        self._looks = 0
        self._timer: TimerHandle | None = None

    def lines(self, data: bytes) -> None:
        """Send what is known to be complete, and keep the rest for a while."""
        single = bytearray()  # lines that turned out to be alone
        for line in split_lines(data):
            if self._held and self._goes_on(line):
                if self._size + len(line) > self._longest:
                    self._send_single(single)
                    self._send_held(more=True)
                self._hold(line)
                continue
            if len(self._held) == 1 and not self._part:
                single += self._held[0]
                self._let_go()
            elif self._held:
                self._send_single(single)
                self._send_held(more=False)
            self._looks = 0
            self._hold(line)
        self._send_single(single)
        self._touched = True
        if self._held and self._timer is None:
            self._timer = self._loop.call_later(_QUIET, self._look)

    def text(self, data: bytes, meta: Mapping[str, object]) -> None:
        """Pass on what is no whole line: it is not joined."""
        self._send_held(more=False)
        self._out.text(data, meta)

    def flush(self) -> None:
        """Send what is held."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send_held(more=False)
        self._out.flush()

    def _hold(self, line: bytes) -> None:
        self._held.append(line)
        self._size += len(line)

    def _let_go(self) -> None:
        self._held.clear()
        self._size = 0

    def _send_single(self, single: bytearray) -> None:
        if single:
            self._out.lines(bytes(single))
            single.clear()

    def _send_held(self, *, more: bool) -> None:
        if not self._held:
            return
        data = b"".join(self._held)
        meta: dict[str, object] = {}
        if self._part or more:
            self._part += 1
            meta["part"] = self._part
        if more:
            meta["more"] = True
        else:
            self._part = 0
        self._let_go()
        self._out.text(data, meta)

    def _look(self) -> None:
        self._timer = None
        self._looks += 1
        if not self._touched or self._looks >= _LOOKS:
            self._send_held(more=False)
        self._touched = False
        if self._held:
            self._timer = self._loop.call_later(_QUIET, self._look)
