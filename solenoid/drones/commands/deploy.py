# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""From a folder to many drones: `solenoid deploy`."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._console import size_of
from solenoid._errors import PackageError, UsageError
from solenoid._pack import pack
from solenoid._push import push
from solenoid.commands._options import part
from solenoid.drones._snapshot import Sent, Stored, for_drones
from solenoid.drones.commands._app import app_of
from solenoid.drones.commands._change import carry_out
from solenoid.drones.commands._options import (
    add_app,
    add_drones,
    add_probe,
    add_rollout,
    inventory_of,
)
from solenoid.drones.commands._release import Release, add_release
from solenoid.drones.commands._waiting import saying
from solenoid.storage import redacted

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console
    from solenoid.drones._snapshot import Snapshot

ABOUT = """\
Bring a folder with a package.json to many drones: pack it, store it, start it
everywhere, each drone through its gate. A drone that does not pass goes back to what
ran before; if too many fail, so do those that are done."""
MORE = """\
examples:
  solenoid deploy ./shop --drones drones.toml
  solenoid deploy ./shop --drones web1,web2 --canary 1 --probe /health
  solenoid deploy ./shop --drones drones.toml --max-fail 10% --batch 25% --pause 1m

The app is the one of the inventory that has the package's name. With a storage, in the
inventory or in ~/.solenoidconf, the snapshot is stored as USER-NAME-VERSION.tgz and the
drones get a signed URL; without one, or where none can be signed, it goes over the
connections. Words after -- are for `solenoid start` on each drone; the rest is as with
`solenoid start --drones`.

exit status: 0 all drones, 30 some, 31 none, 32 on some drone it is not known what runs;
130 left by a second Ctrl-C; see docs/exit-codes.md.
"""
TAKES_REST = True


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("folder", metavar="DIR", help="the package's folder")
    add_drones(parser)
    add_app(parser)
    parser.add_argument(
        "-v",
        "--app-version",
        type=part,
        metavar="VERSION",
        help="what to call it, if not as package.json does",
    )
    parser.add_argument(
        "--modules",
        action="store_true",
        help="pack node_modules, too; otherwise the drones run npm ci",
    )
    add_release(parser)
    add_probe(parser)
    add_rollout(parser, undo=True)


async def run(options: argparse.Namespace, console: Console) -> int:
    """Pack, store, and start it everywhere."""
    folder = Path(options.folder)
    inventory = inventory_of(options)
    app = app_of(options, inventory, await asyncio.to_thread(_name, folder))
    release = await Release.of(options, "deploy", app, inventory)
    with tempfile.TemporaryDirectory(prefix="solenoid-") as made:
        to = Path(made) / "snapshot.tgz"
        async with saying(console, f"packing {folder}"):
            packed = await pack(folder, to, modules=options.modules)
        version = options.app_version or packed.version
        size = f"{packed.files} files, {size_of(packed.size)}"
        console.info(f"packed {packed.name} {version}: {size}")
        snapshot = await _offered(release, console, version, to, packed.sha256)
        return await carry_out(options, release.change(version, snapshot))


async def _offered(
    release: Release, console: Console, version: str, path: Path, sha256: str
) -> Snapshot:
    source, app = release.storage, release.app
    if source is None:
        return Sent(path, sha256)
    if not app.user:
        raise UsageError("to store it, it needs an owner: -u USER")
    url = source.snapshot(app.user, app.name, version)
    async with saying(console, f"storing {redacted(url)}"):
        await push(path, url, options=source.options)
    console.info(f"stored {redacted(url)}")
    if for_drones(url, source.options):
        return Stored(url, sha256=sha256, options=source.options)
    return Sent(path, sha256)  # what is a folder here, or takes our credentials


def _name(folder: Path) -> str:
    path = folder / "package.json"
    try:
        name = json.loads(path.read_bytes()).get("name")
    except OSError as error:
        raise PackageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, AttributeError):
        raise PackageError(f"{path} is no JSON object") from None
    if not isinstance(name, str) or not name:
        raise PackageError(f"{path} has no name")
    return name
