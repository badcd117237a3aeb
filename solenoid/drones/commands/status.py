# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how apps are on many drones: `solenoid status --drones`."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from solenoid._status import Status, sentence
from solenoid._theirs import printable
from solenoid.drones._connect import connector
from solenoid.drones._look import Look
from solenoid.drones._report import (
    EXIT_ALL,
    EXIT_NONE,
    EXIT_SOME,
    json_line,
    put,
)
from solenoid.drones._rollout import Strategy
from solenoid.drones._run import Run
from solenoid.drones.commands._app import RUN_DIRS, app_of, drones_of
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    inventory_of,
    ssh_of,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from solenoid._console import Console
    from solenoid.drones._inventory import Inventory
    from solenoid.drones._result import Result

ABOUT = """\
Say which apps run on many drones, since when and where they listen, and of what does
not run, why: by the files that their keepers leave. So it is told of the dead, too, and
needs nothing on the drone but python3."""
MORE = """\
examples:
  solenoid status --drones drones.toml               # all apps on all drones
  solenoid status --drones drones.toml -a shop --only web1
  solenoid status --drones web1,web2 --json | jq 'select(.running | not)'

Without -a and --run-dir: what is in /opt/run, and the run directories that the
inventory knows.

exit status: 0 all that there is runs; 30 some of it; 31 none; a drone that cannot be
reached, or has no app, counts as one that does not run.
"""
_KNOWN = {field.name for field in fields(Status)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Print a line for each app, drone by drone."""
    inventory = inventory_of(options)
    drones, run_dirs = inventory.drones, _run_dirs(inventory)
    if options.app_name or options.run_dir:
        app = app_of(options, inventory)
        assert app.run_dir is not None
        drones, run_dirs = drones_of(app, inventory), [app.run_dir]
    async with ssh_of(options) as ssh:
        found = Run(
            drones,
            Look(run_dirs),
            Strategy(),
            connect=connector(ssh),
            parallel=options.parallel,
        )
        async for result in found:
            if options.json:
                said = "".join(json_line(line) for line in _lines(result))
                put(sys.stdout, said)
    lines = [line for name in found.drones for line in _lines(found.results[name])]
    if not options.json:
        put(sys.stdout, _table(lines))
    running = sum(bool(line.get("running")) for line in lines)
    if running == len(lines):
        return EXIT_ALL
    return EXIT_SOME if running else EXIT_NONE


def _run_dirs(inventory: Inventory) -> list[str]:
    known = (app.run_dir for app in inventory.apps.values())
    return [RUN_DIRS, *(place for place in known if place is not None)]


def _lines(result: Result) -> list[dict[str, Any]]:
    if not result.ok:
        why = {"step": result.step, "error": result.error}
        return [{"drone": result.drone, "ok": False, **why}]
    found = [{"drone": result.drone, **app} for app in result.reply["apps"]]
    nothing = {"drone": result.drone, "ok": False, "error": "there is no app"}
    # Named twice, as a folder and as an app's own: told once.
    return list({line["run_dir"]: line for line in found}.values()) or [nothing]


def _table(lines: list[dict[str, Any]]) -> str:
    places = [str(line.get("run_dir", "-")) for line in lines]
    drone = max((len(line["drone"]) for line in lines), default=0)
    place = max(map(len, places), default=0)
    return "".join(
        f"{line['drone']:{drone}}  {where:{place}}  {printable(_said(line))}\n"
        for line, where in zip(lines, places, strict=True)
    )


def _said(line: Mapping[str, Any]) -> str:
    if not line.get("ok"):
        return ": ".join(str(line[name]) for name in ("step", "error") if name in line)
    known = {name: value for name, value in line.items() if name in _KNOWN}
    return sentence(Status(**known), time.time())
