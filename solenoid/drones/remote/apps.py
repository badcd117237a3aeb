# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how all apps of a machine are, from the files that their keepers leave."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from solenoid._errors import SolenoidError
from solenoid._rundir import RunDir
from solenoid._status import look


def main(action: str, order: dict[str, object]) -> int:
    """Print a line of JSON for each app in the folders `run_dirs`, or just below."""
    for place in run_dirs([str(one) for one in _list(order["run_dirs"])]):
        try:
            found = {"ok": True, **asdict(look(RunDir(place)))}
        except (SolenoidError, OSError) as error:
            found = {"ok": False, "run_dir": place, "error": str(error)}
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def run_dirs(places: list[str]) -> list[str]:
    """Return the run directories among these folders and those in them."""
    found = []
    for place in places:
        if _is_run_dir(place):
            found.append(place)
            continue
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        below = (os.path.join(place, name) for name in names)
        found += [path for path in below if _is_run_dir(path)]
    return found


def _is_run_dir(path: str) -> bool:
    return os.path.isdir(os.path.join(path, "releases"))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
