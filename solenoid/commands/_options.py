# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Define the options that several commands have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from solenoid._config import Config, read_config
from solenoid._rundir import RunDir

if TYPE_CHECKING:
    import argparse


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add where the app is, and how its result is told."""
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="the app's run directory (default: runDir of the configuration, /opt/run)",
    )
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


def add_pidfile(parser: argparse.ArgumentParser) -> None:
    """Add where the keeper's pid is written."""
    parser.add_argument(
        "-p",
        "--pidfile",
        metavar="FILE",
        help="the file with the keeper's pid (default: that of the start before, else"
        " RUN_DIR/app.pid)",
    )


def add_legacy_exit(parser: argparse.ArgumentParser) -> None:
    """Add the original's statuses."""
    parser.add_argument(
        "--legacy-exit",
        action="store_true",
        help="leave as the original did: 1 if a step fails, but 0 if only the app does"
        " not start",
    )


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add whose app it is, and which."""
    parser.add_argument("-u", "--app-user", metavar="USER", help="whose app it is")
    parser.add_argument("-a", "--app-name", metavar="NAME", help="what it is called")
    parser.add_argument("-v", "--app-version", metavar="VERSION", help="its version")


async def configuration(options: argparse.Namespace) -> Config:
    """Return the configuration; where none is named there may be none."""
    if options.config is None and not _has_default():
        return Config()
    return await read_config(options.config)


async def run_dir(options: argparse.Namespace, config: Config | None = None) -> RunDir:
    """Return the run directory that is meant."""
    if options.run_dir is not None:
        return RunDir(options.run_dir)
    config = config or await configuration(options)
    return RunDir(config.run_dir)


def _has_default() -> bool:
    return os.path.exists(os.path.expanduser("~/.solenoidconf"))
