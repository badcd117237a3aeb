# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Bring a release, and start nothing: `solenoid download`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._app import App
from solenoid._start import download
from solenoid.commands._options import (
    add_app,
    add_legacy_exit,
    add_place,
    add_source,
    add_user,
    configuration,
    run_dir,
    snapshot_url,
    system_user,
)

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Fetch a snapshot, check it, unpack it, install what it depends on: a new release, ready
for `solenoid start`. What runs goes on running. Prints the release's name."""
MORE = """\
examples:
  solenoid download -u alice -a shop -v 1.2.0          # from ~/.solenoidconf's storage
  solenoid start -u alice -a shop -v 1.2.0 -p /run/shop.pid
  solenoid download --from https://example.com/shop-1.2.0.tgz --run-dir ./run

exit status: 0 done; 11 to 18 a step has failed, see docs/exit-codes.md; 23 another
solenoid is at work.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_source(parser)
    add_app(parser)
    add_place(parser)
    add_user(parser)
    add_legacy_exit(parser)


async def run(options: argparse.Namespace, console: Console) -> None:
    """Bring it, and print its name."""
    config = await configuration(options, console)
    place = await run_dir(options, config)
    url = options.url or snapshot_url(options, config)
    app = App(
        options.app_user,
        options.app_name,
        options.app_version,
        system_user=system_user(options),
        modules=not options.no_install,
        scripts=options.install_scripts,
    )
    console.log_to(place.log)
    record = await download(
        place.path, app, url, sha256=options.sha256, config=config, report=console
    )
    if options.json:
        about = {**asdict(record), "path": str(place.release(record.id))}
        console.result(json.dumps(about))
    else:
        console.result(record.id)
