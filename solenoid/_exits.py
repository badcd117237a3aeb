# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say by the exit status which step has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal

    from solenoid._errors import SolenoidError

EXIT_FAILED, EXIT_USAGE = 1, 2
# The app has not started, but the release that ran before runs.
EXIT_ROLLED_BACK = 22
_STATUS = {
    "usage": EXIT_USAGE,
    "config": 10,
    "storage": 11,
    "fetch": 12,
    "unpack": 13,
    "package": 14,
    "engines": 15,
    "install": 16,
    "environment": 17,
    "restrict": 18,
    "activate": 19,
    "launch": 20,
    "start": 21,
    "lock": 23,
    "stop": 24,
    "find": 25,
    "pack": 26,
    "push": 27,
    "clean": 28,
    # 30 to 32 are what has become of many drones: drones/_report.py.
    "inventory": 33,
    "hook": 34,
}


def status_of(error: SolenoidError, *, legacy: bool = False) -> int:
    """Return the status to leave with after a failure.

    `legacy`: as the original's, 1 for all of them, and 0 if only the app has failed.
    """
    if legacy:
        return 0 if error.step == "start" else EXIT_FAILED
    if getattr(error, "running", None):
        return EXIT_ROLLED_BACK
    return _STATUS.get(error.step, EXIT_FAILED)


def of_signal(number: signal.Signals) -> int:
    """Return what a shell says of a command that a signal has ended."""
    return 128 + number
