# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let no more than so many lines a second pass, and say what was left out."""

from __future__ import annotations

from time import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Mapping

    from forza._lines import Out
    from forza._monitor import Monitor

_ANNOUNCE_AFTER = 1.0


class Rate:
    """Pass on `rate` lines a second, `burst` at once; suppress the others.

    A piece of a long line counts as a line. What is suppressed is counted, and
    announced as `telemetry/dropped` within a second, and before the exit event.
    """

    __slots__ = (
        "_burst",
        "_bytes",
        "_count",
        "_monitor",
        "_out",
        "_rate",
        "_service",
        "_since",
        "_timer",
        "_tokens",
        "_tokens_at",
    )

    def __init__(
        self, monitor: Monitor, service: str, out: Out, rate: float, burst: int
    ) -> None:
        self._monitor = monitor
        self._service = service
        self._out = out
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._tokens_at = monitor.loop.time()
        self._count = self._bytes = 0
        self._since = 0.0
        self._timer: TimerHandle | None = None

    def lines(self, data: bytes) -> None:
        """Pass on the first of these lines, as far as the rate allows."""
        count = data.count(b"\n") + (data[-1:] != b"\n")
        passing = self._take(count)
        if passing < count:
            end = len(data) - len(data.split(b"\n", passing)[-1])
            self._suppress(count - passing, len(data) - end)
            data = data[:end]
        if data:
            self._out.lines(data)

    def text(self, data: bytes, meta: Mapping[str, object]) -> None:
        """Pass on one piece, if the rate allows it."""
        if self._take(1):
            self._out.text(data, meta)
        else:
            self._suppress(1, len(data))

    def flush(self) -> None:
        """Announce what was suppressed."""
        if self._timer is not None:
            self._timer.cancel()
            self._announce()
        self._out.flush()

    def _take(self, wanted: int) -> int:
        """Return how many lines may pass now."""
        now = self._monitor.loop.time()
        earned = (now - self._tokens_at) * self._rate
        self._tokens = min(float(self._burst), self._tokens + earned)
        self._tokens_at = now
        taken = min(wanted, int(self._tokens))
        self._tokens -= taken
        return taken

    def _suppress(self, count: int, size: int) -> None:
        if self._timer is None:
            self._since = round(time(), 3)
            self._timer = self._monitor.loop.call_later(_ANNOUNCE_AFTER, self._announce)
        self._count += count
        self._bytes += size

    def _announce(self) -> None:
        self._timer = None
        meta = {
            "bytes": self._bytes,
            "since": self._since,
            "reason": "rate limit",
            "stream": self._service,
        }
        count, self._count, self._bytes = self._count, 0, 0
        self._monitor.send("telemetry/dropped", count, meta=meta, lifecycle=True)
