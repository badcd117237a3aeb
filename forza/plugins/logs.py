# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Cut the app's output into lines, and send each as an event."""

from __future__ import annotations

from forza._errors import PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Mapping

    from forza._monitor import Monitor

_LONGEST = 64 * 1024
# An unfinished line, a prompt perhaps, is sent after this time without more of it.
_QUIET = 0.2


class Logs:
    """Send `logs/stdout` and `logs/stderr`, one event a line, newline kept.

    A line over 64 KiB, or one that stays unfinished for 0.2 s, comes in several
    events: all but the last have no newline. Option `chunks` (`yes`): one event per
    read, as the original sent them.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        chunks = options.get("chunks", "no")
        if chunks not in ("yes", "no"):
            raise PluginError(f"logs: chunks must be yes or no, not '{chunks}'")
        kind = _Chunks if chunks == "yes" else _Lines
        self._streams = tuple(
            kind(monitor, service) for service in ("logs/stdout", "logs/stderr")
        )
        self.stdout_data, self.stderr_data = (stream.data for stream in self._streams)

    async def run(self) -> None:
        """Nothing to do: the data comes by call, and leaves in the same call."""

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        for stream in self._streams:
            stream.flush()


class _Lines:
    __slots__ = ("_monitor", "_quiet", "_service", "_tail", "_timer")

    def __init__(self, monitor: Monitor, service: str) -> None:
        self._monitor = monitor
        self._service = service
        self._tail = b""
        self._quiet = b""
        self._timer: TimerHandle | None = None

    def data(self, data: bytes) -> None:
        """Send all whole lines, keep the tail."""
        if self._tail:
            data = self._tail + data
        end = data.rfind(b"\n") + 1
        if len(data) > _LONGEST:
            end = self._send_long(data, end)
        elif end:
            self._monitor.send_lines(self._service, data[:end])
        self._tail = data[end:]
        if self._tail and self._timer is None:
            self._watch_tail()

    def flush(self) -> None:
        """Send an unfinished line as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._tail:
            self._monitor.send_lines(self._service, self._tail)
            self._tail = b""

    def _send_long(self, data: bytes, end: int) -> int:
        """Send pieces of at most 64 KiB each; return where the tail begins."""
        start = 0
        while len(data) - start > _LONGEST:
            newline = data.rfind(b"\n", start, start + _LONGEST) + 1
            cut = newline or whole(data, start + _LONGEST)
            self._monitor.send_lines(self._service, data[start:cut])
            start = cut
        if end > start:
            self._monitor.send_lines(self._service, data[start:end])
        return max(start, end)

    def _watch_tail(self) -> None:
        self._quiet = self._tail
        self._timer = self._monitor.loop.call_later(_QUIET, self._check_tail)

    def _check_tail(self) -> None:
        self._timer = None
        if self._tail is self._quiet:
            self.flush()
        elif self._tail:
            self._watch_tail()
        self._quiet = b""


class _Chunks:
    __slots__ = ("_monitor", "_service", "_tail")

    def __init__(self, monitor: Monitor, service: str) -> None:
        self._monitor = monitor
        self._service = service
        self._tail = b""

    def data(self, data: bytes) -> None:
        """Send what was read, but for a character that has only begun."""
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


def whole(data: bytes, end: int) -> int:
    """Return `end`, or up to three bytes less where it would cut a UTF-8 character."""
    for back in range(1, min(4, end) + 1):
        byte = data[end - back]
        if byte & 0xC0 == 0x80:  # a continuation: the character began before
            continue
        length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        return end - back if length > back else end
    return end
