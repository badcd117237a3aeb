# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decide how long the app may be held up by one sink."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import TimerHandle

    from forza._monitor import Monitor

# A sink that makes room in a full queue within _KEEPS_UP is keeping up: the app's
# pipes are left alone meanwhile, so a burst arrives whole, and an app that writes
# without end is held to the sink's pace. How long an app may be held up by a sink that
# is not: once _CREDIT seconds, and _SHARE of its time in the long run. After that the
# sink counts as slow, and drops its oldest batches until it has caught up.
_KEEPS_UP = 0.2
_CREDIT = 0.5
_SHARE = 0.03


class Patience:
    """Hold the app's output in its pipes, for as long as the sink has earned.

    `slow` says that patience is exhausted; the sink sets it back when it has caught up.
    """

    __slots__ = ("_credit", "_earned_at", "_held_since", "_monitor", "_timer", "slow")

    def __init__(self, monitor: Monitor) -> None:
        self.slow = False
        self._monitor = monitor
        self._credit = _CREDIT
        self._earned_at = self._held_since = monitor.loop.time()
        self._timer: TimerHandle | None = None

    def hold(self) -> None:
        """Let the app's output wait in its pipes, if there is patience left."""
        if self.slow or self._timer is not None:
            return
        now = self._monitor.loop.time()
        earned = _SHARE * (now - self._earned_at)
        self._credit = min(_CREDIT, self._credit + earned)
        self._earned_at = self._held_since = now
        if self._credit <= 0:
            self.slow = True
            return
        self._hold(_KEEPS_UP + self._credit)

    def hold_at_first(self) -> None:
        """The same before there is a connection: it may be there any moment."""
        if not self.slow and self._timer is None:
            self._held_since = self._monitor.loop.time()
            self._hold(_KEEPS_UP)

    def release(self) -> None:
        """Let the app go on."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        held = self._monitor.loop.time() - self._held_since
        self._credit -= max(0.0, held - _KEEPS_UP)
        self._monitor.release(self)

    def _hold(self, seconds: float) -> None:
        self._monitor.hold(self)
        self._timer = self._monitor.loop.call_later(seconds, self._exhausted)

    def _exhausted(self) -> None:
        if self._monitor.ended:
            # The app is gone and waits for nobody; the flush time-out is the bound.
            self._timer = self._monitor.loop.call_later(_CREDIT, self._exhausted)
            return
        self.slow = True
        self.release()
