# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send the app's output, one event a line, in the form that was asked for."""

from __future__ import annotations

from forza._errors import PluginError
from forza._lines import LONGEST, Chunks, Lines, Straight

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forza._lines import Out
    from forza._monitor import Monitor

_SHORTEST, _MOST = 64, 1024 * 1024


class Logs:
    """Send `logs/stdout` and `logs/stderr`, one event a line, newline kept.

    A line over 64 KiB, or one that stays unfinished for 0.2 s, comes in several
    events, which say so in `meta.part` and `meta.more`. Options:

    - `longest`: bytes of text in one event, instead of 64 KiB
    - `cr`: `keep` carriage returns (default), or the `last` state of a line that is
      written over and over
    - `join`: `indent`, or a regular expression for lines that are appended to the
      event of the line before
    - `rate`: `LINES[:BURST]`, lines a second and how many at once for each stream
    - `chunks`: `yes` for one event per read, as the original sent them
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        wanted = Wanted(options)
        self._streams = tuple(
            wanted.stream(monitor, service)
            for service in ("logs/stdout", "logs/stderr")
        )
        self.stdout_data, self.stderr_data = (stream.data for stream in self._streams)

    async def run(self) -> None:
        """Nothing to do: the data comes by call, and leaves in the same call."""

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        for stream in self._streams:
            stream.flush()


class Wanted:
    """What the plugin's options ask for. Raises PluginError for a bad one."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.chunks = _choice("chunks", options.get("chunks", "no"), ("yes", "no"))
        self.cr = _choice("cr", options.get("cr", "keep"), ("keep", "last"))
        self.goes_on = _goes_on(options.get("join"))
        self.longest = _longest(options.get("longest"))
        self.rate = _rate(options.get("rate"))
        if self.chunks == "yes" and set(options) != {"chunks"}:
            raise PluginError("--legacy-chunks: no other --logs option goes with it")

    def stream(self, monitor: Monitor, service: str) -> Chunks | Lines:
        """Return what takes one stream's data; what is not asked for costs nothing."""
        if self.chunks == "yes":
            return Chunks(monitor, service)
        out: Out = Straight(monitor, service)
        if self.goes_on is not None:
            from forza._joined import Joined

            out = Joined(monitor.loop, out, self.goes_on, self.longest)
        if self.cr == "last":
            from forza._rewritten import LastState

            out = LastState(out)
        if self.rate is not None:
            from forza._rate import Rate

            out = Rate(monitor, service, out, *self.rate)
        return Lines(monitor, out, self.longest)


def _choice(name: str, text: str, choices: tuple[str, str]) -> str:
    if text not in choices:
        raise PluginError(f"--logs-{name} must be {' or '.join(choices)}, not '{text}'")
    return text


def _longest(text: str | None) -> int:
    if text is None:
        return LONGEST
    from forza._options import size

    value = size("logs-longest", text)
    if not _SHORTEST <= value <= _MOST:
        raise PluginError(
            f"--logs-longest must be from {_SHORTEST} to 1M, not '{text}'"
        )
    return value


def _goes_on(text: str | None) -> Callable[[bytes], object] | None:
    if text is None:
        return None
    if text == "indent":
        return _is_indented
    import re

    try:
        # Not of text: lines may have bytes that are none.
        return re.compile(text.encode()).match
    except (re.error, ValueError) as error:
        raise PluginError(
            f"--logs-join must be 'indent' or a regular expression,"
            f" not '{text}': {error}"
        ) from None


def _is_indented(line: bytes) -> bool:
    return line.startswith((b" ", b"\t"))


def _rate(text: str | None) -> tuple[float, int] | None:
    if text is None:
        return None
    lines, colon, burst = text.partition(":")
    most = burst if colon else lines
    plain = all(t.isascii() and t.isdigit() and len(t) < 10 for t in (lines, most))
    if not plain or not int(lines) or not int(most):
        raise PluginError(
            "--logs-rate must be LINES or LINES:BURST, as 100 or 100:1000,"
            f" not '{text}'"
        )
    return float(lines), int(most)
