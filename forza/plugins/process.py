# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Report the app's birth and death."""

from __future__ import annotations

from forza._process import Exit, signal_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza import _process
    from forza._monitor import Monitor


class Process:
    """Send `health/process/spawn` once the exec has worked, and `health/process/exit`
    as the very last event.

    The exit's `description` is the status in decimal, as a shell reports it (128 +
    signal); `meta` has `code`, or `signal` and perhaps `core`, and the `reason` in a
    word, such as `exit`, `signal:KILL` or `oom`: docs/supervision.md has all.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor

    async def run(self) -> None:
        """Nothing to do between the two."""

    def process_spawned(self, process: _process.Process) -> None:
        self._monitor.send("health/process/spawn", 1.0, lifecycle=True)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        ended = self._monitor.ended or Exit(exit_status, term_signal)
        meta: dict[str, object]
        if term_signal:
            meta = {"signal": signal_name(term_signal), "reason": ended.reason}
            if ended.core:
                meta["core"] = True
        else:
            meta = {"code": exit_status, "reason": ended.reason}
        self._monitor.send(
            "health/process/exit", 1.0, str(ended.code), meta, lifecycle=True
        )
