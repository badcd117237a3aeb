# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand what a program on a drone has printed as its last line, in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid._theirs import json_object

if TYPE_CHECKING:
    from typing import Any

    from solenoid.drones._session import Completed


def answer(ended: Completed) -> dict[str, Any]:
    """Return the last JSON object on its stdout, or {"error": its last words}.

    Before it there may be greetings of the login shell's.
    """
    for line in reversed(ended.stdout.splitlines()):
        if said := json_object(line):
            return said
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return {"error": lines[-1] if lines else f"status {ended.status}"}
