# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Go back to an earlier release on many drones: `solenoid rollback --drones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._actions import Rollback
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    add_rollout,
    add_timeout,
)
from solenoid.drones.commands._simple import change_app

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Go back on many drones: to the newest release before the current one that has passed its
gate there, or to RELEASE, an id or a version. Nothing is fetched."""
MORE = """\
examples:
  solenoid rollback --drones drones.toml -a shop
  solenoid rollback 1.1.0 --drones web1,web2 -a shop

exit status: 0 all drones, 30 some, 31 none, 32 on some drone it is not known what runs;
130 left by a second Ctrl-C; see docs/exit-codes.md.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "release", nargs="?", metavar="RELEASE", help="this one, and not the last good"
    )
    add_drones(parser)
    add_app(parser)
    add_timeout(parser)
    add_rollout(parser, undo=True)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Go back everywhere."""
    return await change_app(
        options, lambda place, app: Rollback(place, options.release)
    )
