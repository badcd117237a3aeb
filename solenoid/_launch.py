# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write down how a release is started, and with which words."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solenoid._errors import LaunchError
from solenoid._policy import Policy
from solenoid._python import isolated
from solenoid._restrict import User
from solenoid._rundir import EVENTS, FORZA_LOG, START_LOG, STATE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

# Ways to tell that it has started for which another app may be taken for this one.
_OUTSIDE = ("none", "http:", "tcp:", "exec=")
# Events are kept here too, so that an app's last words are to be had on the spot.
_EVENTS = "max=4M&keep=2"


@dataclass(frozen=True, slots=True)
class Launch:
    """All that it takes to start a release, and to start it again; no secrets.

    `words` are run in the release's folder `package`. `environ` is the file in the
    release's folder that has the app's variables. `forza` are options of forza's.
    Times are in seconds.
    """

    words: tuple[str, ...]
    user: User
    policy: Policy
    environ: str
    pidfile: str
    forza: tuple[str, ...] = ()
    min_uptime: float = 2.0
    start_timeout: float = 15.0
    stable: float = 1.0
    grace: float = 5.0
    flush: float = 2.0

    def to_json(self) -> dict[str, Any]:
        """Return it as what a record has."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Return what `to_json` has been made of. Raises LaunchError."""
        try:
            policy: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v
                for k, v in found["policy"].items()
            }
            given = {
                **found,
                "words": tuple(found["words"]),
                "forza": tuple(found["forza"]),
                "user": User(**found["user"]),
                "policy": Policy(**policy),
            }
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"the release's record is of no use: {error}") from error

    @property
    def patience(self) -> float:
        """Return how long its end may take before it is SIGKILL."""
        return self.grace + self.flush + 2.0

    @property
    def is_probed(self) -> bool:
        """Say whether it counts as started by what is not of itself: an answer at an
        address, a command, or that it is there at all."""
        words = " ".join(self.forza).replace("--ready=", "--ready ").split()
        ways = [way for word, way in pairwise(words) if word == "--ready"]
        return any(way.startswith(_OUTSIDE) for way in ways)

    def command(self, release: Path, ready: int, late: float = 0.0) -> list[str]:
        """Return the words that start the keeper.

        The app's time may begin so much later than forza's.
        """
        timeout = self.start_timeout + late
        app = [
            *self.policy.words(environ=str(release / self.environ)),
            *self.words,
        ]
        return [
            *(*isolated("forza.aeternum"), "start"),
            *("--min-uptime", str(round(self.min_uptime * 1000))),
            *("--state", str(release / STATE)),
            *("-o", str(release / FORZA_LOG)),
            *("--", "forza", *self.forza),
            *("--to", f"file:{release / EVENTS}?{_EVENTS}"),
            *("--start-log", str(release / START_LOG)),
            *("--start-timeout", str(timeout)),
            *("--stable", str(self.stable)),
            *("--grace", str(self.grace)),
            *("--flush-timeout", str(self.flush)),
            # To forza, what stands before the app's words is not node.
            *("--ipc", "yes" if os.path.basename(self.words[0]) == "node" else "no"),
            *("--ready-fd", str(ready)),
            *("--", *app),
        ]
