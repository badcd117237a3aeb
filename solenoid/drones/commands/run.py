# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run any command on many drones: `solenoid run --drones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid._errors import UsageError
from solenoid.commands._stdin import everything
from solenoid.drones._actions import Command
from solenoid.drones.commands._change import Change, carry_out, chosen
from solenoid.drones.commands._options import (
    add_drones,
    add_rollout,
    add_timeout,
    inventory_of,
    strategy_of,
)

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Run a command on many drones. Its words are its own: no shell sees them. A status other
than 0 is a failure."""
MORE = """\
examples:
  solenoid run --drones drones.toml -- uptime
  solenoid run --drones drones.toml --only db --batch 1 -- sh -c 'df -h | tail -1'
  solenoid run --drones web1,web2 --stdin -- sh -s < script.sh

What it prints is under the drone's name at the end; with --json, line by line as the
drones are done.

exit status: 0 all drones, 30 some, 31 none; 130 left by a second Ctrl-C.
"""
TAKES_REST = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    parser.add_argument(
        "--stdin", action="store_true", help="standard input is for each of them"
    )
    add_timeout(parser)
    add_rollout(parser, undo=False)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Run it everywhere."""
    if not options.rest:
        raise UsageError("run what? -- COMMAND")
    data = await everything() if options.stdin else b""
    action = Command(options.rest, input=data, timeout=options.timeout)
    inventory = inventory_of(options)
    scope = f"{options.drones} {' '.join(options.rest)}"
    drones = chosen(options, action.verb, scope, inventory.drones)
    return await carry_out(
        options, Change(action, drones, strategy_of(options), scope, {})
    )
