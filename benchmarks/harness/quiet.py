# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Wait for a quiet moment before a timed run: the machine may have other users."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["PATIENCE", "QUICK_PATIENCE", "Patience"]

PATIENCE = 180.0
QUICK_PATIENCE = 30.0
LOOK = 0.15  # seconds
IDLE_ENOUGH = 0.85  # of all cores


class Patience:
    """Waits that add up to no more than so many seconds, however busy it stays."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def wait(self) -> None:
        """Return when the cores are mostly idle, or patience has run out."""
        while self.left > 0:
            before = idle_and_all()
            time.sleep(LOOK)
            after = idle_and_all()
            total = after[1] - before[1]
            if total and (after[0] - before[0]) / total >= IDLE_ENOUGH:
                return
            self.left -= LOOK


def idle_and_all() -> tuple[int, int]:
    """Return the ticks that all cores have been idle, and all ticks."""
    line = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(word) for word in line.split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
