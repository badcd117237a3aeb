# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decide whether, and when, what has ended is started again."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

ALWAYS, ON_FAILURE, NEVER = "always", "on-failure", "never"
RESTARTS = (ALWAYS, ON_FAILURE, NEVER)

MIN_DELAY = 1.0
MAX_DELAY = 30.0
# After this long without an end an app is healthy, and the next delay the first.
STABLE = 60.0
# An app that ends at once gets so many starts in about eight minutes: time for a
# database to come back, and not for a log to fill.
PARK = (20, 900.0)


# How long a command has between SIGTERM and SIGKILL.
GRACE = 5.0
# A monitor has its own grace; only one that hangs shall meet ours, so much later.
_SLACK = 5.0


def patience(settings: Mapping[str, Any] | None) -> float:
    """Return how long the end of a command, or a monitor with these settings, takes."""
    if settings is None:
        return GRACE
    grace: float = settings.get("grace", 10.0) + settings.get("flush_timeout", 5.0)
    return grace + _SLACK


class Policy:
    """What the keeper's options say; those not given are the defaults above.

    `restart` is one of RESTARTS, `stop_codes` are never restarted, `park` is how many
    ends within how many seconds are a crash loop, or None.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.restart: str = options.get("restart", ALWAYS)
        self.stop_codes: Sequence[int] = options.get("stop_codes", ())
        self.min_delay: float = options.get("min_delay", MIN_DELAY)
        self.max_delay: float = options.get("max_delay", MAX_DELAY)
        self.stable: float = options.get("stable", STABLE)
        self.park: tuple[int, float] | None = options.get("park", PARK)

    def goes_on(self, status: int) -> bool:
        """Say whether there is another start after this status (128 + N: signal N)."""
        if status in self.stop_codes or self.restart == NEVER:
            return False
        return self.restart == ALWAYS or status != 0

    def delay(self, failures: int, chance: float) -> float:
        """Return the pause after so many ends in a row before this one.

        It doubles each time, up to the most; `chance`, from 0 to 1, adds up to a
        tenth, so that many keepers do not act in step.
        """
        delay = self.min_delay * 2.0 ** min(failures, 64)
        return min(max(self.max_delay, self.min_delay), delay) * (1 + 0.1 * chance)

    def recent(self, ends: Sequence[float], now: float) -> tuple[float, ...]:
        """Return those ends that still count towards a crash loop, and this one."""
        if self.park is None:
            return ()
        return (*(end for end in ends if now - end < self.park[1]), now)

    def is_loop(self, ends: Sequence[float]) -> bool:
        """Say whether the recent ends are a crash loop."""
        return self.park is not None and len(ends) >= self.park[0]
