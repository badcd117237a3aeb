# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how an app would be restricted on this machine, and how not, and why."""

from __future__ import annotations

import json
import os
import pwd
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._policy import Policy
from solenoid._restrict import User, ensure_user, explain

if TYPE_CHECKING:
    from pathlib import Path

    from solenoid._console import Console
    from solenoid._policy import Level


async def show(level: Level, name: str, place: Path, console: Console) -> int:
    """Print one line for each measure; make nothing, no user either."""
    folder = place / "releases" / "ID"
    policy = Policy(level, write=(str(folder / "package"), str(folder / ".tmp")))
    measures = explain(policy, await _user(name))
    if console.as_json:
        console.result(json.dumps([asdict(measure) for measure in measures]))
        return 0
    width = max(len(measure.name) for measure in measures)
    for measure in measures:
        word = "yes" if measure.in_force else "no "
        console.result(f"{measure.name:{width}}  {word}  {measure.detail}")
    if lacking := policy.lacking:
        console.warn(f"this kernel lacks: {', '.join(lacking)}")
    return 0


async def _user(name: str) -> User:
    if os.geteuid() == 0:
        try:
            pwd.getpwnam(name)
        except KeyError:
            return User(f"{name}, to be made", -1, -1)
    return await ensure_user(name)
