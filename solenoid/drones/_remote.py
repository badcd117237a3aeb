# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a module of `remote` on a drone that need not have solenoid yet.

The text of the modules goes along in the command: no file, no second round trip, and
never another version than the deployer's.
"""

from __future__ import annotations

import base64
import json
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid.drones._inventory import Drone

NO_PYTHON = 69
# Python by the name that is given, or the first that is new enough.
_FIND = f"""\
for python in ${{1:-python3 python3.14 python3.13 python3.12 python3.11}}; do
  if command -v "$python" >/dev/null &&
     "$python" -I -S -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    shift; exec "$python" -I -c "$@"
  fi
done
echo "no Python of 3.11 or newer (${{1:-python3}})" >&2; exit {NO_PYTHON}
"""
# What a module needs of solenoid's own, each after those that it imports.
_OURS = {
    "apps": (
        "_errors",
        "_target",
        "_release",
        "_rundir",
        "_theirs",
        "_record",
        "_keeper",
        "_status",
    )
}
_BEGIN = """\
import base64, json, sys, types, zlib
modules = json.loads(zlib.decompress(base64.b64decode({text!r})))
for name, text in modules.items():
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = []
    exec(compile(text, name, "exec"), module.__dict__)
    parent, _, child = name.rpartition(".")
    if parent: setattr(sys.modules[parent], child, module)
sys.exit(module.main(sys.argv[1], json.loads(sys.argv[2])))
"""


def remote(
    drone: Drone, name: str, action: str, order: Mapping[str, object]
) -> list[str]:
    """Return the words that do an action of module `name` on the drone.

    An order is seen by everybody there who lists processes: no secrets in it.
    """
    words = ["/bin/sh", "-c", _FIND, "sh", drone.python or "", _program(name), action]
    return [*words, json.dumps(order)]


@cache
def _program(name: str) -> str:
    folder = Path(__file__).parent / "remote"
    package = "solenoid.drones.remote"
    modules = {"solenoid": "", "solenoid.drones": "", package: ""}
    for module in _OURS.get(name, ()):
        path = folder.parent.parent / f"{module}.py"
        modules[f"solenoid.{module}"] = path.read_text()
    for module in dict.fromkeys(("audit", name)):
        modules[f"{package}.{module}"] = (folder / f"{module}.py").read_text()
    text = base64.b64encode(zlib.compress(json.dumps(modules).encode()))
    return _BEGIN.format(text=text.decode())
