# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The commands of the program `solenoid`, one module each.

A module of this package has

    ABOUT     what the command does, the first part of its --help
    MORE      the last part of its --help: examples, what to know
    add_options(parser)              its options, for argparse
    async run(options, console)      does it; returns the status to leave with, or None
                                     for 0; raises SolenoidError

To add a command is to add a module here, and a line to COMMANDS.
"""

from __future__ import annotations

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
