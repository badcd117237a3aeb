# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what is to be started, and how."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from solenoid._restrict import SHARED_USER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid._policy import Level
    from solenoid._unpack import Limits

# Which of two releases comes first: the start of the one, or the end of the other.
Order = Literal["start-first", "stop-first"]


@dataclass(frozen=True, slots=True)
class App:
    """What is to be started, and how; times are in seconds.

    `environ` of None is what the release had when it was last started, if it was.
    `system_user` is whom root runs it as. `order` is `auto`, or one of `switch`.
    `ready` are ways to tell that it has started (forza's `--ready`), `stable` is how
    long it must live from then, `forza` are further options of forza's. `keep` releases
    stay once it runs. `pidfile` is RUN_DIR/app.pid unless named.
    """

    user: str | None = None
    name: str | None = None
    version: str | None = None
    environ: Mapping[str, str] | None = field(default=None, repr=False)
    pidfile: str | None = None
    system_user: str = SHARED_USER
    restrict: Level = "default"
    order: Order | Literal["auto"] = "auto"
    ready: tuple[str, ...] = ()
    min_uptime: float = 2.0
    start_timeout: float = 15.0
    stable: float = 1.0
    grace: float = 5.0
    modules: bool = True
    scripts: bool = False
    limits: Limits | None = None
    keep: int = 5
    forza: tuple[str, ...] = ()
