# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Restart an app on many drones: `solenoid restart --drones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._actions import Restart
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    add_probe,
    add_rollout,
)
from solenoid.drones.commands._simple import change_app

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Restart an app on many drones, the same release with the same variables, each drone
through the gate: the start event, then the probe. One that does not pass stops the rest
(with --canary or --batch), and its keeper goes on trying."""
MORE = """\
examples:
  solenoid restart --drones drones.toml -a shop --batch 1 --probe /health
  solenoid restart --drones drones.toml -a shop --canary 1 --batch 50% --pause 30s

exit status: 0 all drones, 30 some, 31 none, 32 on some drone it is not known what runs;
130 left by a second Ctrl-C; see docs/exit-codes.md.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)
    add_probe(parser)
    add_rollout(parser, undo=False)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Restart it everywhere."""
    return await change_app(options, lambda place, app: Restart(place, probe=app.probe))
