# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The commands of the program `solenoid` that work on many drones: `--drones`.

Each is a module of the same form as those of `solenoid.commands`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What there is with --drones. The last four are of no use without.
COMMANDS = (
    *("start", "stop", "restart", "rollback", "status"),
    *("deploy", "logs", "run", "break-lock"),
)


def meant(words: Sequence[str]) -> bool:
    """Say whether a command line is about drones."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word.partition("=")[0] == "--drones" for word in options)
