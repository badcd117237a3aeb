# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Go back to a release that has started well: `solenoid rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid._releases import find_release, previous_good
from solenoid._start import start_again
from solenoid.commands._options import add_legacy_exit, add_place, run_dir

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Go back to the last release that has started well before the current one, or to the one
that is named. It starts as it was, with the variables it had; nothing is fetched, and
nothing is asked. If it does not start any more, the current one runs on. Prints forza's
start event, one line of JSON."""
MORE = """\
examples:
  solenoid rollback --run-dir ./run
  solenoid rollback 1.2.0 --run-dir ./run     # `solenoid releases` lists them

Twice goes back twice: what was left by going back is not come back to unless named. Nor
is the current release under another id: the same snapshot, deployed again with the same
variables.

exit status: 0 it runs; 21 it has not started; 22 it has not, and the one before runs;
23 another solenoid is at work; 25 there is no such release.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument(
        "release", metavar="ID", nargs="?", help="the release, or its version"
    )
    add_place(parser)
    add_legacy_exit(parser)


async def run(options: argparse.Namespace, console: Console) -> None:
    """Go back, and print the start event."""
    place = await run_dir(options)
    if options.release is None:
        to = await previous_good(place.path)
    else:
        to = await find_release(place.path, options.release)
    console.log_to(place.log)
    console.info(f"going back to release {to.id}")
    done = await start_again(place.path, to.id, report=console)
    console.info(f"release {done.release} runs, keeper {done.keeper}")
    console.event(done.event)
