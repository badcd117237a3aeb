# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep what is known of each release, out of its app's reach: no secret among it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from solenoid._errors import AbsentError
from solenoid._target import Target, sync_folder
from solenoid._theirs import json_object, read_tail

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from solenoid._rundir import RunDir


@dataclass(frozen=True, slots=True)
class Record:
    """A release: where it is from, and how it went. Times are seconds since 1970.

    A folder without a record is not complete: its solenoid was killed. `launch` is how
    to start it, once it was, and `keeper` the pid of its last keeper. `passed` is when
    it has last started well; `failed` why it has not, if that was the last try.
    """

    id: str
    made: float
    source: str = ""
    sha256: str = ""
    app_user: str | None = None
    app_name: str | None = None
    version: str = ""
    package: str = ""
    launch: Mapping[str, Any] | None = None
    keeper: int | None = None
    passed: float | None = None
    failed: str | None = None


_KNOWN = {field.name for field in fields(Record)}
_VARIABLES_MOST = 1 << 24


def read_record(run_dir: RunDir, name: str) -> Record:
    """Return the record of a release. Raises AbsentError."""
    found = _read(_place(run_dir, name)) if _is_name(name) else None
    if found is None:
        raise AbsentError(f"no release {name} in {run_dir}")
    return found


def write_record(run_dir: RunDir, record: Record) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    line = json.dumps(asdict(record)).encode() + b"\n"
    with Target(_place(run_dir, record.id)) as target:
        target.write([line], 0)
        target.commit()


def forget(run_dir: RunDir, name: str) -> None:
    """Remove a record, and with it the release; its folder may then take its time."""
    path = _place(run_dir, name)
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def records(run_dir: RunDir) -> list[Record]:
    """Return all complete releases, the newest first."""
    found = []
    with suppress(OSError):
        for name in os.listdir(run_dir.releases):
            if name.endswith(".json") and not name.startswith("."):
                record = _read(run_dir.releases / name)
                if record is not None and run_dir.release(record.id).is_dir():
                    found.append(record)
    return sorted(found, key=lambda record: record.made, reverse=True)


def given_variables(folder: Path, record: Record) -> dict[str, str]:
    """Return the variables that the release in `folder` was last started with."""
    name = (record.launch or {}).get("environ")
    if name is None:
        return {}
    found = json_object(read_tail(folder / name, _VARIABLES_MOST)).get("given")
    if not isinstance(found, dict):
        return {}
    from solenoid._environ import is_variable  # a drone does without, which only looks

    # The app may have written there what no environment takes.
    return {k: v for k, v in found.items() if isinstance(v, str) and is_variable(k, v)}


def _place(run_dir: RunDir, name: str) -> Path:
    return run_dir.releases / f"{name}.json"


def _is_name(name: str) -> bool:
    return "/" not in name and not name.startswith(".")


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_bytes())
        return Record(**{k: v for k, v in found.items() if k in _KNOWN})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
