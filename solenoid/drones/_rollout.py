# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decide which drone is next, when to stop, and what to undo: no clock, no network."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHARE = re.compile(r"(\d+)(%?)")

# What became of a drone: `failed` is as it was before, or has never been reached.
Ending = Literal["changed", "same", "failed"]


def share(text: int | str, total: int, *, up: bool) -> int:
    """Return how many of `total` drones `3` or `"25%"` are, parts rounded up or down.

    Raises ValueError for what is neither.
    """
    found = _SHARE.fullmatch(str(text).strip())
    if found is None:
        raise ValueError(f"{text!r} is neither a number nor a percentage such as 25%")
    number = int(found[1])
    if not found[2]:
        return number
    if number > 100:
        raise ValueError(f"{text} is more than all")
    return (number * total + (99 if up else 0)) // 100


@dataclass(frozen=True, slots=True)
class Strategy:
    """How a change goes from drone to drone.

    First the `canary`, so many drones, of which none may fail; then batches of `batch`
    drones (a number, or a percentage such as `"25%"`), by default all the others at
    once, each after the one before and `pause` seconds. The change stops when more
    than `max_fail` drones have failed, and where `undo` is set, what it has changed is
    then undone. Without `max_fail` nothing stops a change that has neither canary nor
    batches, and one failure stops any other.
    """

    canary: int = 0
    batch: int | str = "100%"
    pause: float = 0.0
    max_fail: int | str | None = None
    undo: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.canary, int) or self.canary < 0:
            raise ValueError("canary is a number of drones, 0 or more")
        if share(self.batch, 100, up=True) < 1:
            raise ValueError("a batch has at least one drone")
        if self.max_fail is not None:
            share(self.max_fail, 100, up=False)
        if not 0 <= self.pause < 86_400 * 7:
            raise ValueError("pause is a number of seconds, 0 or more")

    def batches(self, drones: Sequence[str]) -> list[tuple[str, ...]]:
        """Cut the drones, in their order, into the canary and the batches."""
        size = max(1, share(self.batch, len(drones), up=True))
        rest = drones[self.canary :]
        cut = [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
        return [tuple(drones[: self.canary]), *cut] if self.canary and drones else cut

    def allowed(self, total: int) -> int:
        """Return how many drones may fail before the change stops."""
        if self.max_fail is not None:
            return share(self.max_fail, total, up=False)
        staged = self.canary or share(self.batch, total, up=True) < total
        return 0 if staged else total


class Rollout:
    """One change on its way: `take` who is next, and `settle` what became of each.

    Drones begin in the order in which they were given, no batch before the one before
    has been settled, and none once `stopped` says why; `broken` if it was for failures.
    """

    def __init__(self, drones: Sequence[str], strategy: Strategy) -> None:
        if len(set(drones)) != len(drones):
            raise ValueError("a drone is named twice")
        self.strategy = strategy
        self.stopped = ""
        self.broken = False
        self.running: set[str] = set()
        self.endings: dict[str, Ending] = {}
        self._batches = strategy.batches(drones)
        self._allowed = strategy.allowed(len(drones))
        self._at = 0
        self._waiting = deque(self._batches[0] if self._batches else ())

    @property
    def failed(self) -> list[str]:
        """Return who has failed, in the order in which that became known."""
        return [name for name, ending in self.endings.items() if ending == "failed"]

    @property
    def untouched(self) -> list[str]:
        """Return who has not begun, in order."""
        later = self._batches[self._at + 1 :]
        return [*self._waiting, *(name for batch in later for name in batch)]

    @property
    def batch(self) -> tuple[int, int]:
        """Return which batch this is, from 1, and of how many."""
        return self._at + 1, len(self._batches)

    @property
    def current(self) -> tuple[str, ...]:
        """Return whose turn it is."""
        return self._batches[self._at] if self._batches else ()

    @property
    def over(self) -> bool:
        """Say whether nobody is in the middle and nobody will begin."""
        return not self.running and (bool(self.stopped) or not self.untouched)

    @property
    def due(self) -> bool:
        """Say whether a batch has ended and there is a next one to `advance` to."""
        done = not self.running and not self._waiting and not self.stopped
        return done and self._at + 1 < len(self._batches)

    def advance(self) -> None:
        """Let the next batch begin."""
        assert self.due
        self._at += 1
        self._waiting.extend(self._batches[self._at])

    def take(self) -> str | None:
        """Return who begins now; None if nobody may yet, or ever."""
        if self.stopped or not self._waiting:
            return None
        name = self._waiting.popleft()
        self.running.add(name)
        return name

    def settle(self, name: str, ending: Ending) -> None:
        """Take what became of a drone that had begun."""
        self.running.remove(name)
        self.endings[name] = ending
        if ending != "failed" or self.stopped:
            return
        count = len(self.failed)
        if self.strategy.canary and self._at == 0:
            self.stopped = f"the canary {name} failed"
        elif count > self._allowed:
            least = f"{self._allowed} may" if self._allowed else "none may"
            self.stopped = f"{count} failed, and {least}"
        self.broken = bool(self.stopped)

    def stop(self, why: str) -> None:
        """Let nobody begin any more; the first reason stays."""
        self.stopped = self.stopped or why

    def to_undo(self) -> list[tuple[str, ...]]:
        """Return who was changed: batches in reverse, and in each the drones."""
        changed = [
            tuple(
                name for name in reversed(batch) if self.endings.get(name) == "changed"
            )
            for batch in reversed(self._batches)
        ]
        return [batch for batch in changed if batch]
