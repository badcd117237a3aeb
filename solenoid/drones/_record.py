# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep what became of each run, as it becomes known, and find the last one again."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from solenoid.drones._report import json_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from solenoid.drones._result import Result

# Enough to look back on a bad week; the oldest go first.
_KEPT = 100


def state_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where runs are kept: below XDG_STATE_HOME, or ~/.local/state."""
    home = environ.get("XDG_STATE_HOME", "")
    # The standard says that what is not absolute is to be ignored.
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "solenoid" / "runs"


class Record:
    """A file with a line of JSON for the run, for each drone that began, and each end.

    What a killed deployer leaves says who had begun: these have a line without a state.
    `trouble` says why there is no file, if that is so.
    """

    def __init__(
        self, verb: str, scope: str, drones: Sequence[str], about: Mapping[str, object]
    ) -> None:
        self._begun: set[str] = set()
        self._file: TextIO | None = None
        self.trouble = ""
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S.%fZ}-{verb}-{os.getpid()}.jsonl"
        self.path = state_home() / name
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep(self.path.parent)
            self._file = self.path.open("x", encoding="utf-8")
            self.path.chmod(0o600)
        except OSError as error:  # a full disk here is no reason not to deploy there
            self.trouble = f"{error.filename}: {error.strerror}"
        self._write(
            {
                "verb": verb,
                "scope": scope,
                "at": now.isoformat(timespec="seconds"),
                "drones": list(drones),
                **about,
            }
        )

    def begun(self, drone: str) -> None:
        """Keep that a drone has begun, the first time."""
        if drone not in self._begun:
            self._begun.add(drone)
            self._write({"drone": drone, "begun": True})

    def result(self, result: Result) -> None:
        """Keep what became of a drone."""
        self._write(result.as_dict())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _write(self, value: Mapping[str, object]) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.write(json_line(value))
                self._file.flush()

    @staticmethod
    def _sweep(folder: Path) -> None:
        for old in sorted(folder.glob("*.jsonl"))[: -_KEPT + 1]:
            with suppress(OSError):
                old.unlink()


@dataclass(frozen=True, slots=True)
class Last:
    """What is known of an earlier run."""

    path: Path
    verb: str
    scope: str
    drones: tuple[str, ...]
    states: Mapping[str, str]

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Return who is not as was asked for, in the run's order."""
        return tuple(name for name in self.drones if self.states.get(name) != "done")


def last_run(verb: str, scope: str) -> Last | None:
    """Return the newest run of this verb on the same drones and app, if any."""
    for path in sorted(state_home().glob(f"*-{verb}-*.jsonl"), reverse=True):
        found = _read(path)
        if found is not None and (found.verb, found.scope) == (verb, scope):
            return found
    return None


def _read(path: Path) -> Last | None:
    lines = _lines(path)
    head = next(lines, None)
    if head is None:
        return None
    states = {}
    for line in lines:
        states[str(line.get("drone"))] = str(line.get("state", "unclear"))
    drones = tuple(str(name) for name in head.get("drones", ()))
    return Last(path, str(head.get("verb")), str(head.get("scope")), drones, states)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with suppress(OSError), path.open(encoding="utf-8") as file:
        for text in file:
            # The last line of a deployer that was killed may be half of one.
            with suppress(ValueError):
                line = json.loads(text)
                if isinstance(line, dict):
                    yield line
