# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how an app is: `solenoid status`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._exits import EXIT_FAILED
from solenoid._status import sentence, status
from solenoid._theirs import printable
from solenoid.commands._options import add_place, run_dir

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = "Say which release runs, since when, and where it listens; or why none does."
MORE = """\
examples:
  solenoid status --run-dir ./run
  solenoid status --run-dir ./run --json

exit status: 0 it runs, 1 it does not, 25 there is no app.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Print one line about the app."""
    found = await status((await run_dir(options)).path)
    if options.json:
        console.result(json.dumps(asdict(found)))
    else:
        console.result(printable(sentence(found, time.time())))
    return 0 if found.running else EXIT_FAILED
