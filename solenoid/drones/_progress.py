# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Show a change on its way: redrawn on a terminal, in plain lines anywhere else."""

from __future__ import annotations

import asyncio
import shutil
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TextIO

from solenoid._theirs import printable
from solenoid.drones._report import put, why

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solenoid.drones._result import Result, Step

_REDRAW = 0.2
# Without a line for so long, plain progress says what it waits for.
SILENCE = 30.0
_BAR = 24


class Progress(Protocol):
    """Who is told what happens."""

    def batch(self, number: int, of: int, names: tuple[str, ...]) -> None:
        """Take that a batch begins."""

    def step(self, step: Step) -> None:
        """Take that a drone has come to a step."""

    def result(self, result: Result) -> None:
        """Take what became of a drone."""

    def say(self, text: str) -> None:
        """Take a line about the whole."""

    def close(self) -> None:
        """Take that it is over."""


def progress_on(out: TextIO, total: int) -> Progress:
    """Return what suits a stream."""
    return Live(out, total) if out.isatty() else Lines(out, total)


def result_line(result: Result, number: int, total: int) -> str:
    """Return a result as one line."""
    words = [f"[{number}/{total}]", f"{result.drone}:", result.state]
    if result.release and result.ok:
        words.append(result.release)
    if result.seconds:
        words.append(f"in {result.seconds:.1f} s")
    if reason := why(result):
        words += ["-", reason]
    return " ".join(words)


class Lines:
    """One line for each batch and each drone, for logs and pipes."""

    def __init__(self, out: TextIO, total: int) -> None:
        self._out, self._total = out, total
        self._known: set[str] = set()
        self._steps: dict[str, Step] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SILENCE, self._waits)

    def batch(self, number: int, of: int, names: tuple[str, ...]) -> None:
        """Say who is next, unless it is everybody."""
        if of > 1:
            self.say(f"batch {number} of {of}: {listed(names)}")

    def step(self, step: Step) -> None:
        """Say nothing yet: what counts is what becomes of a drone."""
        self._steps[step.drone] = step

    def result(self, result: Result) -> None:
        """Say what became of a drone."""
        self._steps.pop(result.drone, None)
        self._known.add(result.drone)
        self.say(result_line(result, len(self._known), self._total))

    def say(self, text: str) -> None:
        """Write a line."""
        put(self._out, f"{text}\n")
        self._timer.cancel()
        self._timer = self._loop.call_later(SILENCE, self._waits)

    def close(self) -> None:
        """Say no more."""
        self._timer.cancel()

    def _waits(self) -> None:
        steps = self._steps.values()
        shown = [
            f"{step.drone} ({f'{step.step} {step.detail}'.rstrip()})" for step in steps
        ]
        self.say(f"waiting for {listed(shown)}" if shown else "waiting")


class Live:
    """A bar for the whole, a line for each drone in the middle, failures above."""

    def __init__(self, out: TextIO, total: int) -> None:
        self._out, self._total = out, total
        self._begun = monotonic()
        self._steps: dict[str, tuple[Step, float]] = {}
        self._results: dict[str, Result] = {}
        self._batch = ""
        self._drawn = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_soon(self._tick)

    def batch(self, number: int, of: int, names: tuple[str, ...]) -> None:
        """Show which batch it is."""
        self._batch = f"batch {number}/{of}  " if of > 1 else ""

    def step(self, step: Step) -> None:
        """Show what a drone does."""
        self._steps[step.drone] = (step, monotonic())

    def result(self, result: Result) -> None:
        """Count it, and leave a line if it is no good one."""
        self._steps.pop(result.drone, None)
        self._results[result.drone] = result
        if not result.ok and result.state != "untouched":
            self.say(result_line(result, len(self._results), self._total))

    def say(self, text: str) -> None:
        """Leave a line above the rest."""
        self._erase()
        put(self._out, f"{text}\n")
        self._draw()

    def close(self) -> None:
        """Remove what moves."""
        self._timer.cancel()
        self._erase()

    def _tick(self) -> None:
        self._erase()
        self._draw()
        self._timer = self._loop.call_later(_REDRAW, self._tick)

    def _erase(self) -> None:
        if self._drawn:
            # Up so many lines, then clear to the end of the screen.
            put(self._out, f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _draw(self) -> None:
        size = shutil.get_terminal_size()
        lines = [self._bar(), *self._middle(max(1, size.lines - 4))]
        width = max(1, size.columns - 1)
        put(self._out, "".join(f"{printable(line)[:width]}\n" for line in lines))
        self._drawn = len(lines)

    def _bar(self) -> str:
        done = len(self._results)
        full = _BAR * done // max(1, self._total)
        bad = sum(not result.ok for result in self._results.values())
        failed = f", {bad} not as asked for" if bad else ""
        took = int(monotonic() - self._begun)
        return (
            f"{self._batch}[{'#' * full}{'.' * (_BAR - full)}] {done} of"
            f" {self._total}{failed}, {took // 60}:{took % 60:02}"
        )

    def _middle(self, room: int) -> list[str]:
        now = monotonic()
        steps = list(self._steps.values())
        width = max((len(step.drone) for step, _ in steps[:room]), default=0)
        lines = [
            f"  {step.drone:{width}}  {step.step} {step.detail}".rstrip()
            + f"  {now - since:.0f} s"
            for step, since in steps[:room]
        ]
        if len(steps) > room:
            lines[-1] = f"  ... and {len(steps) - room + 1} more"
        return lines


def listed(names: Sequence[str], most: int = 8) -> str:
    """Return names in a line, not more than one wants to read."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
