# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Define the options that several commands on drones have."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from solenoid._errors import UsageError
from solenoid.commands._options import part, place
from solenoid.drones._errors import InventoryError
from solenoid.drones._inventory import load
from solenoid.drones._rollout import Strategy, share
from solenoid.drones._run import PARALLEL
from solenoid.drones._ssh import Ssh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from solenoid.drones._inventory import App, Inventory

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST = 7 * 86400


def add_drones(parser: argparse.ArgumentParser) -> None:
    """Add which drones there are, and how they are reached."""
    parser.add_argument(
        "--drones",
        metavar="SOURCE",
        nargs="?",
        help="FILE.toml with drones, groups and apps; or host,user@host:port,...; or"
        " '!COMMAND' that prints an inventory as JSON",
    )
    parser.add_argument(
        "--only",
        metavar="NAMES",
        default="",
        help="of these only the drones and groups named: web1,db",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON for each drone, as it becomes known",
    )
    parser.add_argument(
        "--parallel",
        type=positive,
        metavar="N",
        default=PARALLEL,
        help=f"work on no more than so many at a time ({PARALLEL})",
    )
    group = parser.add_argument_group(
        "connections", "Keys, agents, certificates and jump hosts are ssh's own."
    )
    group.add_argument("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config")
    group.add_argument(
        "--known-hosts", metavar="FILE", help="instead of ~/.ssh/known_hosts"
    )
    group.add_argument(
        "--accept-new",
        action="store_true",
        help="trust a drone that was never seen, and note its key; a changed key is"
        " refused all the same",
    )
    group.add_argument(
        "--connect-timeout",
        type=duration,
        metavar="TIME",
        default=20.0,
        help="how long a drone may take to answer (20s)",
    )


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add which app it is about."""
    group = parser.add_argument_group("the app")
    group.add_argument(
        "-a",
        "--app-name",
        type=part,
        metavar="NAME",
        help="its name, for which the inventory may know all the rest",
    )
    group.add_argument(
        "-u",
        "--app-user",
        type=part,
        metavar="USER",
        help="whose app it is: the USER in USER-NAME-VERSION.tgz, and no user of the"
        " drone's; whom it runs as: -- --system-user NAME",
    )
    group.add_argument(
        "--run-dir",
        type=place,
        metavar="DIR",
        help="its run directory on the drones (default: /opt/run/NAME)",
    )


def add_rollout(parser: argparse.ArgumentParser, *, undo: bool) -> None:
    """Add how it goes from drone to drone."""
    group = parser.add_argument_group("the rollout")
    group.add_argument(
        "--canary",
        type=number,
        metavar="N",
        help="first so many drones; if one of them fails, no other begins",
    )
    group.add_argument(
        "--batch",
        type=shares,
        metavar="N|P%",
        help="then so many at a time (default: all others at once)",
    )
    group.add_argument(
        "--pause", type=duration, metavar="TIME", help="wait so long between batches"
    )
    group.add_argument(
        "--max-fail",
        type=shares,
        metavar="N|P%",
        help="stop when more than so many have failed (default: 0 with --canary or"
        " --batch, else no limit)",
    )
    if undo:
        group.add_argument(
            "--no-undo",
            action="store_true",
            help="when stopped, leave the drones that are done as they are; otherwise"
            " they go back to what ran before",
        )
    group.add_argument(
        "--wait",
        type=duration,
        metavar="TIME",
        default=0.0,
        help="wait so long for another's lock: 15m (default: do not)",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="only those that the last run of this has not left as asked for",
    )
    for when, what in (("before", "it begins"), ("after", "it is over")):
        group.add_argument(
            f"--{when}",
            metavar="COMMAND",
            help=f"run this here, by sh, when {what}; SOLENOID_... variables tell what"
            " it is about",
        )
        group.add_argument(
            f"--{when}-each",
            metavar="COMMAND",
            help=f"the same {when} each drone, SOLENOID_DRONE: to take it out of a load"
            " balancer, and back",
        )


def add_probe(parser: argparse.ArgumentParser) -> None:
    """Add the gate."""
    group = parser.add_argument_group("the gate")
    group.add_argument(
        "--probe",
        metavar="WHAT",
        help="once started, the app has to answer this with 200 to 399: /health, at"
        " the port it listens at; :8080/health; both through the connection; or a URL,"
        " asked from here, with {host} and {port} in it",
    )
    group.add_argument(
        "--probe-for",
        type=duration,
        metavar="TIME",
        default=30.0,
        help="how long it may take until it does (30s)",
    )
    add_timeout(parser)


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """Add how long one waits for a drone."""
    parser.add_argument(
        "--timeout",
        type=duration,
        metavar="TIME",
        default=600.0,
        help="how long solenoid may take on a drone (10m)",
    )


def inventory_of(options: argparse.Namespace) -> Inventory:
    """Read the inventory. Raises UsageError, InventoryError."""
    if not options.drones:
        raise UsageError("--drones needs a file, a list of hosts or a '!COMMAND'")
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    inventory = load(options.drones, only)
    if not inventory.drones:
        raise UsageError(f"there are no drones in {options.drones}")
    return inventory


def ssh_of(options: argparse.Namespace) -> Ssh:
    """Return the way to the drones."""
    return Ssh(
        config=options.ssh_config,
        known_hosts=options.known_hosts,
        accept_new=options.accept_new,
        connect_timeout=options.connect_timeout,
    )


def strategy_of(options: argparse.Namespace, app: App | None = None) -> Strategy:
    """Return the strategy: what is given, then the app's settings, then the usual.

    Raises UsageError for the one, InventoryError for the other.
    """
    names = ("canary", "batch", "pause", "max_fail")
    chosen: dict[str, Any] = {} if app is None else _settings(options, app, names)
    given = {name: getattr(options, name) for name in names}
    chosen |= {name: value for name, value in given.items() if value is not None}
    try:
        return Strategy(**chosen, undo=not getattr(options, "no_undo", True))
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _settings(
    options: argparse.Namespace, app: App, names: Sequence[str]
) -> dict[str, Any]:
    """Return what the inventory says of an app's rollouts, each looked at by itself."""
    found: dict[str, Any] = {}
    for name in names:
        value = app.options.get(name)
        if value is not None:
            try:
                if name == "pause" and isinstance(value, str):
                    value = duration(value)
                one: dict[str, Any] = {name: value}
                Strategy(**one)
            except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
                where = f"{options.drones}: apps.{app.name}.{name}"
                raise InventoryError(f"{where}: {error}") from error
            found[name] = value
    return found


def duration(word: str) -> float:
    """Take seconds, or `90s`, `15m`, `1.5h`."""
    found = _DURATION.fullmatch(word)
    seconds = float(found[1]) * _UNITS[found[2]] if found else -1.0
    if not 0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"no time such as 90s, 15m or 1h: '{word}'")
    return seconds


def number(word: str) -> int:
    """Take a number of drones."""
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"no number: '{word}'")
    return int(word)


def positive(word: str) -> int:
    """Take a number that is not 0."""
    if not number(word):
        raise argparse.ArgumentTypeError("at least 1")
    return number(word)


def shares(word: str) -> str:
    """Take a number of drones, or a percentage."""
    try:
        share(word, 100, up=True)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return word
