# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find out which app is meant, from the command line and the inventory."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from solenoid._errors import UsageError
from solenoid.drones._errors import InventoryError
from solenoid.drones._inventory import App
from solenoid.drones._place import Place
from solenoid.drones._probe import parse_probe
from solenoid.drones._wheelhouse import Wheelhouse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from solenoid.drones._inventory import Drone, Inventory, Probe

# What an app of the inventory may say of its rollouts: as the options of that name.
_SETTINGS = ("canary", "batch", "pause", "max_fail", "start")
_KEYS = (*(one.name for one in fields(App) if one.name != "options"), *_SETTINGS)
RUN_DIRS = "/opt/run"
_NAME = re.compile(r"[\w@][\w.@+-]*", re.ASCII)


def app_of(
    options: argparse.Namespace, inventory: Inventory, name: str | None = None
) -> App:
    """Return the app: what the command line says comes before the inventory.

    `name` is what the app is called if neither says so. Raises UsageError, and
    InventoryError for a key that means nothing.
    """
    asked = options.app_name or name
    if asked is None and len(inventory.apps) == 1:
        asked = next(iter(inventory.apps))
    known = _known(inventory, asked, options.app_user)
    if known is None and asked is None and options.run_dir is None:
        names = ", ".join(sorted(inventory.apps))
        of = f" (the inventory has {names})" if names else ""
        raise UsageError(f"which app? -a NAME{of}, or --run-dir DIR")
    if known is None:
        known = App(asked or "", options.app_user or "")
    unknown = set(known.options) - {*_SETTINGS}
    if unknown:
        raise InventoryError(
            f"{options.drones}: apps.{known.name}.{min(unknown)} is not one of"
            f" {', '.join(_KEYS)}"
        )
    run_dir = options.run_dir or known.run_dir or default_run_dir(known.name)
    if not run_dir.startswith(("/", "{")):
        raise UsageError(f"--run-dir is no absolute path: {run_dir}")
    probe = probe_of(options) or known.probe
    return replace(known, run_dir=run_dir.rstrip("/") or "/", probe=probe)


def drones_of(app: App, inventory: Inventory) -> tuple[Drone, ...]:
    """Return the drones of the inventory, without those the app is not for."""
    if not app.drones:
        return inventory.drones
    names = {drone.name for drone in app.drones}
    found = tuple(drone for drone in inventory.drones if drone.name in names)
    if not found:
        raise UsageError(f"{app.name} is for none of the drones that were asked for")
    return found


def place_of(options: argparse.Namespace, app: App) -> Place:
    """Return where the app is, and how solenoid is asked about it there."""
    assert app.run_dir is not None
    return Place(app.run_dir, Wheelhouse(), timeout=options.timeout, wait=options.wait)


def default_run_dir(name: str) -> str:
    """Return where an app is that nobody has said a place for."""
    label = name.replace("/", "-").lstrip("@")
    if not _NAME.fullmatch(label):
        raise UsageError(f"'{name}' is no name for a folder: --run-dir DIR")
    return f"{RUN_DIRS}/{label}"


def probe_of(options: argparse.Namespace) -> Probe | None:
    """Return the probe of the command line."""
    text = getattr(options, "probe", None)
    if text is None:
        return None
    try:
        return parse_probe(text, options.probe_for)
    except ValueError as error:
        raise UsageError(f"--probe: {error}") from error


def _known(inventory: Inventory, name: str | None, user: str | None) -> App | None:
    if name is not None and name in inventory.apps:
        found: Sequence[App] = [inventory.apps[name]]
    else:
        found = [app for app in inventory.apps.values() if app.name == name]
    for app in found:
        return replace(app, user=user or app.user)
    return None
