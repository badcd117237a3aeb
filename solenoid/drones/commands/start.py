# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start a release on many drones: `solenoid start --drones`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import UsageError
from solenoid.commands._options import part, place
from solenoid.drones._snapshot import Present, Sent
from solenoid.drones.commands._app import app_of
from solenoid.drones.commands._change import carry_out
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    add_probe,
    add_rollout,
    inventory_of,
)
from solenoid.drones.commands._release import Release, add_release, stored
from solenoid.storage import scheme_of
from solenoid.storage.file import path_of

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console
    from solenoid.drones._snapshot import Snapshot

ABOUT = """\
Start a release of an app on many drones: the canary, then batches, each drone through
its gate, the start event and then the probe. A drone that does not pass goes back to
what ran before; if too many fail, so do those that are done. Without -v and --from it
is the release that is there, as it was started before: after a stop, for instance."""
MORE = """\
examples:
  solenoid start --drones drones.toml -a shop -v 1.2.0 --canary 1 --batch 25%
  solenoid start --drones web1,root@web2:2222 --from s3://snapshots/shop-1.2.0.tgz \\
      -a shop --env-file secrets.env --probe /health
  solenoid start --drones drones.toml -a shop -v 1.2.0 --retry-failed
  solenoid start --drones drones.toml -a shop     # what is there, after a stop
  solenoid start --drones web1 -a shop --from ./shop.tgz -- --restrict strict

The drones get a URL that is signed for an hour, and the digest; a file of yours goes
over the connection, and so does what is in a storage that signs no URLs. Words after
-- are for `solenoid start` on each drone. Ctrl-C lets no other drone begin, and those
in the middle go on to their end.

exit status: 0 all drones, 30 some, 31 none, 32 on some drone it is not known what runs;
130 left by a second Ctrl-C; see docs/exit-codes.md.
"""
TAKES_REST = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_drones(parser)
    add_app(parser)
    parser.add_argument(
        "-v",
        "--app-version",
        type=part,
        metavar="VERSION",
        help="the version to start",
    )
    parser.add_argument(
        "--from",
        type=place,
        dest="url",
        metavar="URL",
        help="start this snapshot: s3:, https: or a file here (default: USER-NAME-"
        "VERSION.tgz below the storage)",
    )
    parser.add_argument("--sha256", metavar="HEX", help="its digest")
    add_release(parser)
    add_probe(parser)
    add_rollout(parser, undo=True)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Start it everywhere."""
    inventory = inventory_of(options)
    app = app_of(options, inventory)
    version = options.app_version or app.version
    release = await Release.of(options, "start", app, inventory)
    with tempfile.TemporaryDirectory(prefix="solenoid-") as made:
        snapshot = await _snapshot(options, release, version, Path(made), console)
        return await carry_out(options, release.change(version, snapshot))


async def _snapshot(
    options: argparse.Namespace,
    release: Release,
    version: str | None,
    folder: Path,
    console: Console,
) -> Snapshot:
    if options.url is not None and scheme_of(options.url) == "file":
        path = path_of(options.url)
        if not await asyncio.to_thread(path.is_file):
            raise UsageError(f"--from: there is no file {path}")
        return await Sent.of(path, options.sha256)
    if options.url is not None:
        known = release.options_for(options.url)
        return await stored(options.url, known, options.sha256, folder, console)
    app, source = release.app, release.storage
    if version is None and options.sha256 is None:
        return Present()
    if not (app.user and app.name and version):
        raise UsageError("which release? -u USER -a NAME -v VERSION, or --from URL")
    if source is None:
        raise UsageError(
            "where from? --from URL, or a storage in the inventory or ~/.solenoidconf"
        )
    url = source.snapshot(app.user, app.name, version)
    if scheme_of(url) == "file":  # what is a folder here is none there
        return await Sent.of(path_of(url), options.sha256)
    return await stored(url, source.options, options.sha256, folder, console)
