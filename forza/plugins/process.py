# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Report the app's birth and death."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

    from forza import _process
    from forza._monitor import Monitor
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

# Other names of the same numbers, and constants that are no signals.
_ALIASES = ("SIGIOT", "SIGCLD", "SIGPOLL")
_SET_UP = {126: "not executable", 127: "not found"}


class Process:
    """Send `health/process/spawn` once the exec has worked, and `health/process/exit`
    as the very last event.

    The exit's `description` is the status in decimal, as a shell reports it (128 +
    signal); `meta` has `code`, or `signal` and perhaps `core`, and the `reason` in a
    word: `exit`, `signal:KILL`, `not found`, `not executable`.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._spawned = False

    async def run(self) -> None:
        """Nothing to do between the two."""

    def process_spawned(self, process: _process.Process) -> None:
        self._spawned = True
        self._monitor.send("health/process/spawn", 1.0, lifecycle=True)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        ended = self._monitor.ended
        code = 128 + term_signal if term_signal else exit_status
        meta: dict[str, object]
        if term_signal:
            name = _signal_name(term_signal)
            reason = f"signal:{name.removeprefix('SIG')}"
            meta = {"signal": name, "reason": reason}
            if ended is not None and ended.core:
                meta["core"] = True
        else:
            reason = "exit" if self._spawned else _SET_UP.get(exit_status, "exit")
            meta = {"code": exit_status, "reason": reason}
        if self._monitor.failure is not None:
            meta["reason"] = self._monitor.failure
        self._monitor.send("health/process/exit", 1.0, str(code), meta, lifecycle=True)


def _signal_name(number: int) -> str:
    # Nothing may be imported here: the app may have died because disk, memory or
    # descriptors are gone, and just then its exit must be told.
    names = [
        name
        for name, value in vars(signal).items()
        if value == number
        and name[:3] == "SIG"
        and name[3] != "_"
        and name not in _ALIASES
    ]
    return names[0] if names else f"SIG{number}"
