# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make a snapshot of a folder: `solenoid pack`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from solenoid._console import size_of
from solenoid._pack import pack

if TYPE_CHECKING:
    import argparse

    from solenoid._console import Console

ABOUT = """\
Make a snapshot of a package's folder: the files that `npm pack` takes, and the lock
file. No script of the package's is run. The same files always give the same bytes."""
MORE = """\
examples:
  solenoid pack .                      # NAME-VERSION.tgz, here
  solenoid pack ./shop -o shop.tgz
  solenoid pack ./shop --modules       # with node_modules: the drone needs no npm

Prints the snapshot's SHA-256 and its name, as sha256sum does, and writes the same into
FILE.sha256, where `solenoid start --from FILE` finds it. Needs npm, which says what is
packed.

exit status: 0 done, 26 the folder cannot be packed, be it that there is no npm.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("folder", metavar="DIR", help="the package's folder")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default=".",
        help="the snapshot, or a folder for it (default: this one)",
    )
    parser.add_argument(
        "--modules", action="store_true", help="take all of node_modules, too"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one line of JSON, also of a failure",
    )


async def run(options: argparse.Namespace, console: Console) -> None:
    """Pack, and print the digest."""
    packed = await pack(
        options.folder,
        options.output,
        modules=options.modules,
        progress=console.progress("pack"),
    )
    console.info(
        f"packed {packed.name} {packed.version}: {packed.files} files,"
        f" {size_of(packed.size)}"
    )
    if options.json:
        console.result(json.dumps({**asdict(packed), "path": str(packed.path)}))
    else:
        console.result(f"{packed.sha256}  {packed.path}")
