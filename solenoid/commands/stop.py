# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Stop an app: `solenoid stop`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._stop import stop
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
End an app: SIGTERM, its grace (`start --grace`), SIGKILL, for all that it has started
and for nothing else. Returns when it is gone, and so is its pidfile. The releases and
their logs stay; `solenoid start` starts it again."""
MORE = """\
examples:
  solenoid stop --run-dir ./run
  solenoid stop -p /run/shop.pid        # the run directory is ~/.solenoidconf's

exit status: 0 nothing runs, be it that nothing has; 23 another solenoid is at work,
24 a process is left, 25 there is no app.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)
    add_pidfile(parser)
    add_legacy_exit(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Stop it, and say what has run."""
    place = await run_dir(options)
    console.log_to(place.log)
    stopped = await stop(place.path, pidfile=options.pidfile)
    for one in stopped:
        how = "" if one.gracefully else ", by SIGKILL: it did not end in time"
        console.info(f"stopped release {one.release}{how}")
    if not stopped:
        console.info("nothing was running")
    if options.json:
        console.result(json.dumps({"stopped": [asdict(one) for one in stopped]}))
    return 0
