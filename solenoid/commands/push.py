# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Store a snapshot: `solenoid push`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._errors import UsageError
from solenoid._push import push
from solenoid.commands._options import add_app, configuration, snapshot_url
from solenoid.storage import redacted

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Store a snapshot where drones fetch it from, and its SHA-256 with it: at a URL, or with
-u, -a and -v in the storage of the configuration, where `solenoid download` looks."""
MORE = """\
examples:
  solenoid push shop-1.2.0.tgz s3://snapshots/shop-1.2.0.tgz
  solenoid push shop-1.2.0.tgz file:/srv/snapshots/shop-1.2.0.tgz
  solenoid push shop-1.2.0.tgz -u alice -a shop -v 1.2.0   # USER-NAME-VERSION.tgz
  solenoid push shop-1.2.0.tgz "$PRESIGNED_URL"            # one that allows to PUT

Credentials for s3: are those of the configuration's storage, else AWS's own
environment variables and profiles. Prints the SHA-256 and the URL.

exit status: 0 stored, 10 the configuration cannot be read, 11 no such storage, 27 it
cannot be stored.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("file", metavar="FILE", help="the snapshot")
    parser.add_argument("url", metavar="URL", nargs="?", help="where to")
    add_app(parser)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the configuration (default: ~/.solenoidconf, if it is there)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON, also of a failure",
    )


async def run(options: argparse.Namespace, console: Console) -> None:
    """Push, and print what was stored."""
    config = await configuration(options, console)
    if options.url and (options.app_user or options.app_name or options.app_version):
        raise UsageError("a URL and -u, -a, -v do not go together")
    url = options.url or snapshot_url(options, config)
    console.info(f"storing {options.file} at {redacted(url)}")
    pushed = await push(
        options.file,
        url,
        options=config.options_for(url),
        progress=console.progress("push"),
    )
    if options.json:
        console.result(json.dumps({**asdict(pushed), "url": redacted(pushed.url)}))
    else:
        console.result(f"{pushed.sha256}  {redacted(pushed.url)}")
