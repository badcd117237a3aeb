# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Talk to whoever has called: the result to stdout, the rest to stderr and a log."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid._exits import status_of
from solenoid._theirs import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TextIO

    from solenoid._errors import SolenoidError

_BAR = 24
_REDRAW = 0.1
_SPINNER = "|/-\\"
_LOG_MOST = 1 << 20
_OUTPUT_MOST = 8192
# Whose fault these are goes without saying.
_PLAIN = ("usage", "find", "lock")


class Console:
    """One command's ways to say something.

    What is said before `log_to` has named the log file comes into it then.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.legacy_exit = False
        self._path: str | None = None
        self._log: TextIO | None = None
        self._early: list[str] = []
        self._bar = sys.stderr.isatty()
        self._drawn = 0.0
        self._is_drawn = False

    def info(self, text: str) -> None:
        """Say how it goes."""
        self._say("info", text)

    def warn(self, text: str) -> None:
        """Say what is not as it should be, although we go on."""
        self._say("warn", text)

    def error(self, text: str) -> None:
        """Say what has failed."""
        self._say("error", text)

    def result(self, line: str) -> None:
        """Print the result, one line."""
        with suppress(BrokenPipeError):  # nobody waits for it any more
            sys.stdout.write(line.rstrip("\n") + "\n")
            sys.stdout.flush()

    def event(self, event: Mapping[str, object]) -> None:
        """Print an event as forza does."""
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        # Halves of characters, which UTF-8 has not, stay what they are to JSON.
        self.result(line.encode(errors="backslashreplace").decode())

    def fail(self, error: SolenoidError) -> None:
        """Say which step has failed, whose fault that is, and the app's last words."""
        output = str(getattr(error, "output", ""))[-_OUTPUT_MOST:]
        event = getattr(error, "event", None)
        if self.as_json:
            said = {
                "ok": False,
                "step": error.step,
                "blame": error.blame,
                "error": str(error),
                "output": output,
                "status": status_of(error, legacy=self.legacy_exit),
                "running": getattr(error, "running", None),
            }
            self.result(json.dumps(said))
        elif event is not None:  # as ever: the caller reads its metric
            self.event(event)
        if output:
            self._say("app", output.rstrip("\n"))
        blame = "" if error.step in _PLAIN else f" (blame: {error.blame})"
        self.error(f"{error.step}: {error}{blame}")
        if running := getattr(error, "running", None):
            self.info(f"release {running} runs")

    def progress(self, what: str) -> Callable[[int, int | None], None] | None:
        """Return what draws a bar on a terminal, or None if there is none."""
        if not self._bar:
            return None

        def draw(done: int, total: int | None) -> None:
            now = time.monotonic()
            if now - self._drawn < _REDRAW and done != total:
                return
            self._drawn = now
            text = size_of(done)
            if total:
                filled = _BAR * min(done, total) // total
                text = f"[{'=' * filled:{_BAR}}] {text} of {size_of(total)}"
            self._draw(f"{what} {text}", last=done == total)

        return draw

    def activity(self, what: str) -> Callable[[str], None] | None:
        """Return what shows on a terminal how long a step has taken, and its last line.

        For those that cannot say how much is left. None if there is no terminal.
        """
        if not self._bar:
            return None
        begun = time.monotonic()

        def draw(line: str) -> None:
            seconds = time.monotonic() - begun
            turn = _SPINNER[int(seconds / _REDRAW) % len(_SPINNER)]
            text = f"{turn} {what} {seconds:.0f} s  {line}"
            # A program's own codes could do anything to the terminal.
            self._draw("".join(c for c in text if c.isprintable()))

        return draw

    def _draw(self, text: str, *, last: bool = False) -> None:
        self._is_drawn = not last
        end = "\n" if last else ""
        with suppress(OSError):
            # Of what goes on in a second row only that one would be wiped.
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            shown = text[: width - 1]
            print(f"\r\033[K{shown}", end=end, file=sys.stderr, flush=True)  # noqa: T201

    def log_to(self, path: str | os.PathLike[str]) -> None:
        """Append to this file all that is said, also what has been said so far.

        It is made when its folder is there: a start makes that.
        """
        self._path = os.fspath(path)
        self._open_log()

    def _open_log(self) -> None:
        path = self._path
        if path is None or not os.path.isdir(os.path.dirname(path)):
            return
        self._path = None
        try:
            with suppress(OSError):
                if os.stat(path).st_size > _LOG_MOST:
                    os.replace(path, f"{path}.1")
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            flags |= os.O_NOFOLLOW
            self._log = os.fdopen(os.open(path, flags, 0o640), "a")
        except PermissionError:
            return  # somebody else's: the command will say so
        except OSError as error:
            self.warn(f"no log file: {path}: {error.strerror}")
            return
        for line in self._early:
            self._log.write(line)
        self._early.clear()
        self._log.flush()

    def close(self) -> None:
        """Close the log file."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def _say(self, level: str, text: str) -> None:
        if self._is_drawn:  # a bar that will not get any further
            print(file=sys.stderr)  # noqa: T201
            self._is_drawn = False
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        # Much of it is an app's, or some server's.
        for line in printable(text).split("\n"):
            with suppress(OSError):
                print(f"{level}: {line}", file=sys.stderr, flush=True)  # noqa: T201
            logged = f"{stamp} {level}: {line}\n"
            self._open_log()
            if self._log is None:
                self._early.append(logged)
                continue
            with suppress(OSError):  # a full disk is no reason to stop
                self._log.write(logged)
                self._log.flush()


def size_of(count: int) -> str:
    """Return a number of bytes as one reads it."""
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:.1f} MB"
