# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Show what an app says on many drones: `solenoid logs --drones`."""

from __future__ import annotations

import sys
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from solenoid._theirs import printable
from solenoid.drones._logs import read_logs
from solenoid.drones._report import (
    EXIT_ALL,
    EXIT_NONE,
    EXIT_SOME,
    json_line,
    put,
)
from solenoid.drones.commands._app import app_of, drones_of
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    inventory_of,
    number,
    ssh_of,
)

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console
    from solenoid.drones._errors import DronesError
    from solenoid.drones._inventory import Drone
    from solenoid.drones._logs import Event

ABOUT = """\
Show what an app says on many drones as one stream, in the order of time: from the file
in which forza keeps an app's last events, by nothing that stays on the drone."""
MORE = """\
examples:
  solenoid logs --drones drones.toml -a shop
  solenoid logs --drones drones.toml -a shop -f --only web1,web2
  solenoid logs --drones drones.toml -a shop --all --json | jq .service

A line is DRONE TIME out|err TEXT; with --json it is forza's event, and "drone" in it.
With -f a drone that is lost is connected to again, and what it has said meanwhile comes
then. A new release is followed, too. Ctrl-C ends it.

exit status: 0 all drones could be read, 30 some, 31 none.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)
    parser.add_argument(
        "-n",
        "--lines",
        type=number,
        metavar="N",
        default=100,
        help="begin with the last N lines of each drone (100)",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what comes"
    )
    parser.add_argument(
        "--all", action="store_true", help="all events, not only what the app says"
    )


async def run(options: argparse.Namespace, console: Console) -> int:
    """Print them."""
    inventory = inventory_of(options)
    app = app_of(options, inventory)
    drones = drones_of(app, inventory)
    assert app.run_dir is not None
    width = max(len(drone.name) for drone in drones)
    bad: set[str] = set()

    def trouble(drone: Drone, error: DronesError) -> None:
        bad.add(drone.name)
        console.warn(printable(str(error)))

    async with ssh_of(options) as ssh:
        events = read_logs(
            ssh,
            drones,
            app.run_dir,
            lines=options.lines,
            follow=options.follow,
            everything=options.all,
            on_trouble=trouble,
        )
        async with aclosing(events):
            async for event in events:
                if options.json:
                    line = json_line({"drone": event.drone, **event.event})
                else:
                    line = text_of(event, width)
                if not put(sys.stdout, line):
                    break  # whoever has read it has read enough
    if not bad:
        return EXIT_ALL
    return EXIT_NONE if len(bad) == len(drones) else EXIT_SOME


def text_of(event: Event, width: int) -> str:
    """Return an event for people, a line for each of the app's."""
    about = event.event
    service = str(about.get("service", ""))
    stream = {"logs/stdout": "out", "logs/stderr": "err"}.get(service, service)
    said = str(about.get("description", "") or about.get("metric", ""))
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    head = f"{event.drone:{width}}  {at}.{int(event.time * 1000) % 1000:03}"
    head += f"  {printable(stream)}"
    lines = printable(said.removesuffix("\n")).split("\n")
    return "".join(f"{head}  {line}\n" for line in lines)
