# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""List what there is to go back to: `solenoid releases`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._releases import prune, releases
from solenoid._theirs import printable
from solenoid.commands._options import add_place, run_dir
from solenoid.commands._options import releases as how_many

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console
    from solenoid._releases import Release

ABOUT = """\
List the releases of a run directory, the newest first: which is the current one (*),
which have started well, and of those that have not, why."""
MORE = """\
examples:
  solenoid releases --run-dir ./run
  solenoid releases --run-dir ./run --json
  solenoid releases --run-dir ./run --prune 3    # all but the newest three go

--prune never removes the current release, nor the last that has started well, nor the
one that `solenoid rollback` goes back to.

exit status: 0 done, 23 another solenoid is at work, 25 there is no app, 28 a release
cannot be removed.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_place(parser)
    parser.add_argument(
        "--prune",
        type=how_many,
        metavar="N",
        help="first remove all but the newest N releases",
    )


async def run(options: argparse.Namespace, console: Console) -> None:
    """Print one line for each release."""
    place = await run_dir(options)
    if options.prune is not None:
        console.log_to(place.log)
        for name in await prune(place.path, options.prune):
            console.info(f"removed release {name}")
    found = await releases(place.path)
    if options.json:
        listed = [{**asdict(release), "path": str(release.path)} for release in found]
        console.result(json.dumps({"releases": listed}))
        return
    width = max((len(release.id) for release in found), default=0)
    for release in found:
        console.result(printable(_line(release, width)))


def _line(release: Release, width: int) -> str:
    mark = "*" if release.current else " "
    made = _when(release.made)
    if release.failed is not None:
        state = f"failed: {' '.join(release.failed.split())}"
    elif release.passed is not None:
        state = f"passed {_when(release.passed)}"
    else:
        state = "never started"
    digest = f"sha256:{release.sha256[:12]}" if release.sha256 else "-"
    version = release.version or "-"
    return f"{mark} {release.id:{width}}  {version}  {made}  {digest}  {state}"


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
