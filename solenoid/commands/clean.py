# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""End an app and remove it: `solenoid clean`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._clean import clean
from solenoid._rundir import DEPLOY_LOCK, INCOMING
from solenoid.commands._options import (
    add_legacy_exit,
    add_pidfile,
    add_place,
    run_dir,
)

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
End an app, as `solenoid stop` does, and remove its releases, its logs and its pidfile:
there is nothing to go back to then. What else is in the run directory stays and is
named, and so do the lock and the snapshot of a deployer that is at work. No other
process of the app's user is touched."""
MORE = """\
examples:
  solenoid clean --run-dir ./run
  solenoid clean -p /run/shop.pid       # the run directory is ~/.solenoidconf's

exit status: 0 nothing is left; 23 another solenoid is at work, 24 a process is left,
28 a file cannot be removed.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)
    add_pidfile(parser)
    add_legacy_exit(parser)


async def run(options: argparse.Namespace, console: Console) -> None:
    """Remove it, and say what has run."""
    place = await run_dir(options)
    there = place.holds_something()
    stopped = await clean(place.path, pidfile=options.pidfile)
    for one in stopped:
        how = "" if one.gracefully else ", by SIGKILL: it did not end in time"
        console.info(f"stopped release {one.release}{how}")
    done = "removed the app in" if there else "nothing to remove in"
    console.info(f"{done} {place}")
    for name in sorted(os.listdir(place.path)) if there and place.path.is_dir() else ():
        deployer = name in (INCOMING, DEPLOY_LOCK)
        why = "a deployer is at work" if deployer else "it is not solenoid's"
        console.info(f"left {place.path / name}: {why}")
    if options.json:
        console.result(json.dumps({"stopped": [asdict(one) for one in stopped]}))
