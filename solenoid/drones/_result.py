# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What became of a drone, and what is being done there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

State = Literal["done", "failed", "undone", "untouched", "unclear"]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a drone.

    `state` is `done`: as asked for; `failed`: not so, and it is as it was before, or
    else `error` says what runs; `undone`: it was done, and taken back, since the whole
    change was stopped; `untouched`: it never began; `unclear`: it was left in the
    middle, and nobody could tell any more what runs there. `step` is the step
    that failed, `output` the end of what the program there has said, `reply` what
    solenoid has answered, `release` and `before` what runs now and what ran before.
    """

    drone: str
    state: State
    step: str = ""
    error: str = ""
    output: str = ""
    blame: str = ""
    release: str | None = None
    before: str | None = None
    changed: bool = False
    seconds: float = 0.0
    reply: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Say whether the drone is as was asked for."""
        return self.state == "done"

    def as_dict(self) -> dict[str, Any]:
        """Return what goes into JSON: what says nothing is left out."""
        shown = {**asdict(self), "ok": self.ok, "seconds": round(self.seconds, 3)}
        return {
            name: value
            for name, value in shown.items()
            if name in ("ok", "seconds", "changed") or value not in ("", None, {})
        }


@dataclass(frozen=True, slots=True)
class Step:
    """A drone has come to a step of its visit; `detail` is for people."""

    drone: str
    step: str
    detail: str = ""
