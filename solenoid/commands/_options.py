# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Define the options that several commands have."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from solenoid._config import Config, read_config
from solenoid._errors import UsageError
from solenoid._restrict import SHARED_USER, user_of
from solenoid._rundir import RunDir

if TYPE_CHECKING:
    from solenoid._console import Console


def place(word: str) -> str:
    """Take a place; none at all is an unset variable, and would be wherever we are."""
    if not word:
        raise argparse.ArgumentTypeError("it is empty")
    return word


def part(word: str) -> str:
    """Take a part of a snapshot's name, which leads to no other folder than its own."""
    if {"", ".", ".."} & {*word.split("/")}:
        raise argparse.ArgumentTypeError(f"no name: '{word}'")
    return word


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add where the app is, and how its result is told."""
    parser.add_argument(
        "--run-dir",
        type=place,
        metavar="DIR",
        help="the app's run directory (default: runDir of the configuration, /opt/run)",
    )
    parser.add_argument(
        "--config",
        type=place,
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
        type=place,
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
    parser.add_argument(
        "-u",
        "--app-user",
        type=part,
        metavar="USER",
        help="whose app it is: a part of the snapshot's name, not whom it runs as",
    )
    parser.add_argument(
        "-a", "--app-name", type=part, metavar="NAME", help="what it is called"
    )
    parser.add_argument(
        "-v", "--app-version", type=part, metavar="VERSION", help="its version"
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add where a release comes from, and how it is completed."""
    parser.add_argument(
        "--from",
        dest="url",
        type=place,
        metavar="URL",
        help="fetch this snapshot: file:, https:, s3: or a path",
    )
    parser.add_argument("--sha256", metavar="HEX", help="the snapshot's digest")
    parser.add_argument(
        "--no-install", action="store_true", help="never run npm ci, even if it is due"
    )
    parser.add_argument(
        "--install-scripts",
        action="store_true",
        help="let the dependencies' install scripts run",
    )


def releases(word: str) -> int:
    """Take a number of releases."""
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"not a number of releases: '{word}'")
    return int(word)


def add_user(parser: argparse.ArgumentParser) -> None:
    """Add which user of the system the app is run as."""
    parser.add_argument(
        "--system-user",
        metavar="NAME",
        help=f"whom root runs it as (default: {SHARED_USER}); made if missing; 'app':"
        " one of the app's own, by -u and -a",
    )


def system_user(options: argparse.Namespace) -> str:
    """Return which user of the system is meant."""
    if options.system_user != "app":
        return options.system_user or SHARED_USER
    if not (options.app_user and options.app_name):
        raise UsageError("--system-user app needs --app-user and --app-name")
    return user_of(options.app_user, options.app_name)


def snapshot_url(options: argparse.Namespace, config: Config) -> str:
    """Return where the configured storage has the app's snapshot."""
    named = (options.app_user, options.app_name, options.app_version)
    if not all(named):
        raise UsageError("--app-user, --app-name and --app-version are needed")
    if config.storage is None:
        raise UsageError("a storage in the configuration is needed")
    return config.storage.snapshot(*named)


async def configuration(options: argparse.Namespace, console: Console) -> Config:
    """Return the configuration; where none is named there may be none."""
    config = await _configuration(options)
    if config.unknown:
        keys = ", ".join(config.unknown)
        file = options.config or "~/.solenoidconf"
        console.warn(f"{file}: unknown and ignored: {keys}")
    return config


async def run_dir(options: argparse.Namespace, config: Config | None = None) -> RunDir:
    """Return the run directory that is meant."""
    if options.run_dir is not None:
        return RunDir(options.run_dir)
    config = config or await _configuration(options)
    return RunDir(config.run_dir)


async def _configuration(options: argparse.Namespace) -> Config:
    if options.config is None and not _has_default():
        return Config()
    return await read_config(options.config)


def _has_default() -> bool:
    return os.path.exists(os.path.expanduser("~/.solenoidconf"))
