# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Cut one stream of the app's output into lines, and what is too long into pieces."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Mapping
    from typing import Protocol

    from forza._monitor import Monitor

    class Out(Protocol):
        """Where lines go: `lines` has one event for each, `text` is one event, with
        `meta`, whatever it has in it; `flush` sends what was kept back so far."""

        def lines(self, data: bytes) -> None: ...
        def text(self, data: bytes, meta: Mapping[str, object]) -> None: ...
        def flush(self) -> None: ...


LONGEST = 64 * 1024
# An unfinished line, a prompt perhaps, is sent after this time without more of it; one
# that is written over and over, a progress bar, after so many such times.
_QUIET = 0.2
_LOOKS = 5


class Lines:
    """Send whole lines as they come, and keep the unfinished one, for a while.

    A line of more than `longest` bytes, or one that stays unfinished for 0.2 s, comes
    in pieces. They count themselves in `meta.part`, from 1, and all but the last say
    `meta.more`.
    """

    __slots__ = (
        "_fresh",
        "_longest",
        "_looks",
        "_monitor",
        "_out",
        "_part",
        "_tail",
        "_timer",
    )

    def __init__(self, monitor: Monitor, out: Out, longest: int) -> None:
        self._monitor = monitor
        self._out = out
        self._longest = longest
        self._tail = b""
        self._part = 0  # how many pieces of the unfinished line have been sent
        self._fresh = False  # there was data since the last look
        self._looks = 0
        self._timer: TimerHandle | None = None

    def data(self, data: bytes) -> None:
        """Send all whole lines, keep the tail."""
        self._fresh = True
        if self._tail:
            data = self._tail + data
        end = data.rfind(b"\n") + 1
        if end:
            self._looks = 0
        if self._part or len(data) > self._longest:
            end = self._cut(data)
        elif end:
            self._out.lines(data[:end])
        self._tail = data[end:]
        if self._tail and self._timer is None:
            self._watch_tail()

    def flush(self) -> None:
        """Send an unfinished line as it is: there is no more of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._tail and self._part:
            self._send_piece(self._tail, more=False)
        elif self._tail:
            self._out.lines(self._tail)
        self._tail = b""
        self._out.flush()

    def _cut(self, data: bytes) -> int:
        """Send what is whole, and long lines in pieces; return where the tail begins.

        From `start` on nothing was sent; up to `at` there are only whole lines.
        """
        longest = self._longest
        start = at = 0
        while True:
            fits = len(data) - at <= longest
            if self._part:
                newline = data.find(b"\n", at, at + longest) + 1
                if fits and not newline:
                    return at
                cut = newline or whole(data, at + longest)
                self._send_piece(data[at:cut], more=not newline)
                start = at = cut
            elif fits:
                end = max(at, data.rfind(b"\n", at) + 1)
                if end > start:
                    self._out.lines(data[start:end])
                return end
            elif newline := data.rfind(b"\n", at, at + longest) + 1:
                at = newline
            else:
                if at > start:
                    self._out.lines(data[start:at])
                cut = whole(data, at + longest)
                self._send_piece(data[at:cut], more=True)
                start = at = cut

    def _send_piece(self, piece: bytes, *, more: bool) -> None:
        self._part += 1
        meta: dict[str, object] = {"part": self._part}
        if more:
            meta["more"] = True
        else:
            self._part = 0
        self._out.text(piece, meta)

    def _watch_tail(self) -> None:
        self._fresh = False
        self._timer = self._monitor.loop.call_later(_QUIET, self._check_tail)

    def _check_tail(self) -> None:
        self._timer = None
        self._looks += 1
        if self._monitor.held:
            pass  # the rest of the line may be in the pipe
        elif not self._fresh:
            self._send_tail(len(self._tail))
        elif self._looks >= _LOOKS and (newest := self._tail.rfind(b"\r")) > 0:
            self._send_tail(newest)  # and keep the state that is just being written
        if self._tail:
            self._watch_tail()

    def _send_tail(self, end: int) -> None:
        """Send the unfinished line as far as `end`: more of it may come."""
        self._looks = 0
        piece, self._tail = self._tail[:end], self._tail[end:]
        if piece:
            self._send_piece(piece, more=True)


class Chunks:
    """Send what was read as it was read, as forza 0.2 did."""

    __slots__ = ("_monitor", "_service", "_tail")

    def __init__(self, monitor: Monitor, service: str) -> None:
        self._monitor = monitor
        self._service = service
        self._tail = b""

    def data(self, data: bytes) -> None:
        """Send it, but for a character that has only begun."""
        data = self._tail + data
        end = whole(data, len(data))
        self._tail = data[end:]
        self._send(data[:end])

    def flush(self) -> None:
        """Send a character that was never finished."""
        self._send(self._tail)
        self._tail = b""

    def _send(self, data: bytes) -> None:
        if data:
            text = data.decode(errors="replace")
            self._monitor.send(self._service, 1.0, text)


class Straight:
    """The last stage: hand lines to the monitor."""

    __slots__ = ("_monitor", "_service")

    def __init__(self, monitor: Monitor, service: str) -> None:
        self._monitor = monitor
        self._service = service

    def lines(self, data: bytes) -> None:
        """Send one event for each line."""
        self._monitor.send_lines(self._service, data)

    def text(self, data: bytes, meta: Mapping[str, object]) -> None:
        """Send one event. Bytes that are not UTF-8 are as in every line's event."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            from binascii import b2a_base64

            text = data.decode(errors="replace")
            raw = b2a_base64(data, newline=False).decode()
            meta = {**meta, "raw": raw}
        self._monitor.send(self._service, 1.0, text, meta)

    def flush(self) -> None:
        """Nothing is kept back here."""


def whole(data: bytes, end: int) -> int:
    """Return `end`, or up to three bytes less where it would cut a UTF-8 character."""
    for back in range(1, min(4, end) + 1):
        byte = data[end - back]
        if byte & 0xC0 == 0x80:  # a continuation: the character began before
            continue
        length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return end - back if length > back else end
    return end
