# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Stop an app on many drones: `solenoid stop --drones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._actions import Stop
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
Stop an app on many drones: on each its keeper, its monitor and all that it has started.
Where it does not run, that is well, too."""
MORE = """\
examples:
  solenoid stop --drones drones.toml -a shop
  solenoid stop --drones web1,web2 --run-dir /opt/run/shop --batch 1 --pause 10s

exit status: 0 all drones, 30 some, 31 none, 32 on some drone it is not known what runs;
130 left by a second Ctrl-C; see docs/exit-codes.md.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)
    add_timeout(parser)
    add_rollout(parser, undo=False)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Stop it everywhere."""
    return await change_app(options, lambda place, app: Stop(place))
