# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The commands of the program `solenoid`, one module each.

A module of this package has

    ABOUT     what the command does, the first part of its --help
    MORE      the last part of its --help: examples, what to know
    add_options(parser)              its options, for argparse
    TAKES_REST = True                if words after -- are not its own: options.rest
    async run(options, console)      does it; returns the status to leave with, or None
                                     for 0; raises SolenoidError

To add a command is to add a module here, and a line to COMMANDS.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What `solenoid --help` says of each.
COMMANDS = {
    "download": "bring a release, and start nothing",
    "start": "start a release, and go back if it does not start",
    "stop": "end the app",
    "restart": "end the app and start it anew",
    "rollback": "go back to a release that has started well",
    "status": "say what runs, and of what does not, why",
    "releases": "list the releases, and remove old ones",
    "clean": "end the app and remove all that it has left",
    "pack": "make a snapshot of a package's folder",
    "push": "store a snapshot where drones fetch it from",
}

# Those that only work on many drones are in solenoid.drones.commands, and so is the
# other form of those that do both.
ON_DRONES = {
    "deploy": "pack a folder, store it, start it on all drones",
    "logs": "what the app says on all drones, in one stream",
    "run": "run any command on all drones",
    "break-lock": "free an app that another deployer has locked",
}
IN_BOTH = ("start", "stop", "restart", "rollback", "status")


def on_drones(words: Sequence[str]) -> bool:
    """Say whether a command line is about drones."""
    options = words[: words.index("--")] if "--" in words else words
    return any(word.partition("=")[0] == "--drones" for word in options)
