# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read inventories: a TOML file, a list of hosts, or what a command prints."""

from __future__ import annotations

import json
import shlex
import subprocess
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid.drones._errors import InventoryError
from solenoid.drones._reader import Reader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from solenoid.drones._inventory import Inventory

# How long a command may take that makes an inventory.
_PATIENCE = 60.0
# Ends of files' names that are no top-level domains.
_SUFFIXES = (
    *("cfg", "conf", "csv", "ini", "json", "list", "lst", "txt", "yaml", "yml"),
    *("tml", "tom", "tolm", "tomll"),
)


def load(source: str, only: Sequence[str]) -> Inventory:
    """Do what `drones.load` does."""
    source = source.strip()
    if source.startswith("!"):
        folder, document = Path(), _from_command(source[1:])
    elif source.endswith(".toml") or "/" in source or Path(source).is_file():
        path = Path(source).expanduser()
        folder, document = path.parent, _from_file(path)
    elif _is_file_name(source):
        raise InventoryError(_no_file(source))
    else:
        folder, document = Path(), _from_list(source)
    return Reader(source or "--drones", folder).inventory(document, only)


def _is_file_name(source: str) -> bool:
    one = not {*",@"} & {*source}
    return one and source.rpartition(".")[2].lower() in _SUFFIXES


def _no_file(source: str) -> str:
    """Say that a file is missing, and which may be meant."""
    near = get_close_matches(source, [str(path) for path in Path().glob("*.toml")])
    meant = f" (there is {near[0]})" if near else ""
    return f"no such file: {source}{meant}; for a host of that name write {source}:22"


def _from_list(source: str) -> Mapping[str, object]:
    names = [name.strip() for name in source.split(",") if name.strip()]
    return {"drones": {name: name for name in names}}


def _from_file(path: Path) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InventoryError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InventoryError(f"{path} is not TOML: {error}") from error


def _from_command(command: str) -> Mapping[str, object]:
    try:
        words = shlex.split(command)
        if not words:
            raise InventoryError("! without a command")
        ended = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except ValueError as error:
        raise InventoryError(f"cannot understand !{command}: {error}") from None
    except OSError as error:
        raise InventoryError(f"cannot run {words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise InventoryError(f"{words[0]} did not end in {_PATIENCE:g} s") from None
    if ended.returncode:
        said = ended.stderr.decode(errors="replace").strip().splitlines()
        why = f": {said[-1]}" if said else ""
        raise InventoryError(f"{words[0]} failed, status {ended.returncode}{why}")
    try:
        found = json.loads(ended.stdout)
    except ValueError as error:
        raise InventoryError(f"{words[0]} did not print JSON: {error}") from None
    if not isinstance(found, dict):
        raise InventoryError(f"{words[0]} did not print a JSON object")
    return found
