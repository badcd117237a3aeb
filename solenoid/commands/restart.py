# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Restart an app: `solenoid restart`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid._restart import restart
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
Have an app end and start anew, the same release with the same variables and the same
keeper (its pid stays), and wait for its start event, which is printed. A keeper of
another installation of forza is replaced by one of this: that is how to upgrade."""
MORE = """\
examples:
  solenoid restart --run-dir ./run
  solenoid restart -p /run/shop.pid     # the run directory is ~/.solenoidconf's

exit status: 0 it runs; 21 it has not started (the keeper goes on trying); 23 another
solenoid is at work; 25 nothing runs.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)
    add_pidfile(parser)
    add_legacy_exit(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Restart it, and print its start event."""
    place = await run_dir(options)
    console.log_to(place.log)
    done = await restart(place.path)
    console.info(f"release {done.release} runs again, keeper {done.keeper}")
    console.event(done.event)
    return 0
