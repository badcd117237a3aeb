# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Free an app that another deployer has locked: `solenoid break-lock --drones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._lock import break_lock
from solenoid.drones._visit import Outcome
from solenoid.drones.commands._app import app_of, drones_of
from solenoid.drones.commands._change import Change, carry_out, chosen
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    add_rollout,
    inventory_of,
    strategy_of,
)

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console
    from solenoid.drones._visit import Visit

ABOUT = """\
Free an app on many drones, whoever has locked it: that deployer is told, and does
nothing more there. It is written into the audit log of each drone. The lock of one that
was killed is free by itself within a minute."""
MORE = """\
examples:
  solenoid break-lock --drones drones.toml -a shop
  solenoid break-lock --drones web1 --run-dir /opt/run/shop

exit status: 0 all drones, 30 some, 31 none.
"""


class _BreakLock:
    verb = "break-lock"
    run_dir = None  # it is not to be had
    undoable = False
    makes = False

    def __init__(self, app_dir: str) -> None:
        self._app_dir = app_dir

    async def do(self, visit: Visit) -> Outcome:
        visit.step("break-lock")
        holder = await break_lock(visit.session, visit.drone.fill(self._app_dir))
        if holder is None:
            return Outcome(output="nobody had it")
        return Outcome(changed=True, output=f"taken from {holder}")

    async def undo(self, visit: Visit, outcome: Outcome) -> None:
        """Do nothing: what is broken is broken."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)
    add_rollout(parser, undo=False)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Break it everywhere."""
    inventory = inventory_of(options)
    app = app_of(options, inventory)
    assert app.run_dir is not None
    scope = f"{options.drones} {app.run_dir}"
    drones = chosen(options, "break-lock", scope, drones_of(app, inventory))
    about = {"app": app.name, "run_dir": app.run_dir}
    change = Change(_BreakLock(app.run_dir), drones, strategy_of(options), scope, about)
    return await carry_out(options, change)
