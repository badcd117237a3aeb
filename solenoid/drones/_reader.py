# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Turn an inventory's document into drones and apps, or say what is wrong with it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid.drones._errors import InventoryError
from solenoid.drones._inventory import App, Drone, Inventory, Probe, parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_DAY = 86400
_PROBE = Probe()


class Reader:
    """Turns a document into an Inventory; knows the name that its errors begin with."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def wrong(self, key: str, why: str) -> InventoryError:
        return InventoryError(f"{self.name}: {key} {why}")

    def inventory(
        self, document: Mapping[str, object], only: Sequence[str]
    ) -> Inventory:
        unknown = set(document) - {"defaults", "drones", "groups", "apps"}
        if unknown:
            raise self.wrong(
                min(unknown), "is not one of defaults, drones, groups, apps"
            )
        named = self.table("drones", document.get("drones", {}))
        groups = self.groups(self.table("groups", document.get("groups", {})), named)
        defaults = self.table("defaults", document.get("defaults", {}))
        drones = {
            name: self.drone(name, value, defaults, groups)
            for name, value in named.items()
        }
        members = {name: group for name, (group, _) in groups.items()}
        apps = {
            name: self.app(name, value, drones, members)
            for name, value in self.table("apps", document.get("apps", {})).items()
        }
        if not drones:
            raise InventoryError(f"{self.name} has no drones")
        chosen = self.choose("--only", list(only), drones, members)
        return Inventory(chosen, apps)

    # --- Drones -------------------------------------------------------------------

    def groups(
        self, found: Mapping[str, object], named: Mapping[str, object]
    ) -> dict[str, tuple[list[str], dict[str, object]]]:
        groups = {}
        for name, value in found.items():
            key = f"groups.{name}"
            if name in named:
                raise self.wrong(key, "has the name of a drone")
            settings = self.table(key, value)
            members = self.names(f"{key}.drones", settings.pop("drones", None))
            for member in members:
                if member not in named:
                    raise self.wrong(f"{key}.drones", f"has no such drone: {member}")
            groups[name] = (members, settings)
        return groups

    def drone(
        self,
        name: str,
        value: object,
        defaults: Mapping[str, object],
        groups: Mapping[str, tuple[list[str], dict[str, object]]],
    ) -> Drone:
        key = f"drones.{name}"
        text = isinstance(value, str)
        own = self.address(key, str(value)) if text else self.table(key, value)
        merged = dict(defaults)
        # Of two groups that differ, the later in the file has its way.
        for members, settings in groups.values():
            if name in members:
                merged |= settings
        merged |= own
        host = merged.pop("host", name)
        sudo = merged.pop("sudo", False)
        if not isinstance(sudo, bool):
            raise self.wrong(f"{key}.sudo", "is neither true nor false")
        return Drone(
            name=name,
            host=self.text(f"{key}.host", host),
            port=self.port(f"{key}.port", merged.pop("port", None)),
            user=self.maybe_text(f"{key}.user", merged.pop("user", None)),
            sudo=sudo,
            python=self.maybe_text(f"{key}.python", merged.pop("python", None)),
            base=self.folder_there(f"{key}.base", merged.pop("base", None)),
            variables=merged,
        )

    def address(self, key: str, text: str) -> dict[str, object]:
        try:
            user, host, port = parse_address(text)
        except ValueError as error:
            raise self.wrong(key, f"cannot be understood: {error}") from None
        found: dict[str, object] = {"host": host, "user": user, "port": port}
        return {name: value for name, value in found.items() if value is not None}

    def choose(
        self,
        key: str,
        only: list[str],
        drones: Mapping[str, Drone],
        groups: Mapping[str, list[str]],
    ) -> tuple[Drone, ...]:
        if not only:
            return tuple(drones.values())
        wanted: set[str] = set()
        for name in only:
            if name in groups:
                wanted |= set(groups[name])
            elif name in drones:
                wanted.add(name)
            else:
                raise self.wrong(key, f"names neither a drone nor a group: {name}")
        return tuple(drone for name, drone in drones.items() if name in wanted)

    # --- Apps ---------------------------------------------------------------------

    def app(
        self,
        name: str,
        value: object,
        drones: Mapping[str, Drone],
        groups: Mapping[str, list[str]],
    ) -> App:
        key = f"apps.{name}"
        found = self.table(key, value)
        where = found.pop("drones", None)
        chosen = [] if where is None else self.names(f"{key}.drones", where)
        probe = found.pop("probe", None)
        env_file = self.maybe_text(f"{key}.env_file", found.pop("env_file", None))
        if env_file is not None:
            env_file = str(self.folder / Path(env_file).expanduser())
        texts = {
            field: self.maybe_text(f"{key}.{field}", found.pop(field, None))
            for field in ("version", "storage")
        }
        return App(
            name=self.text(f"{key}.name", found.pop("name", name)),
            user=self.text(f"{key}.user", found.pop("user", None)),
            **texts,
            run_dir=self.folder_there(f"{key}.run_dir", found.pop("run_dir", None)),
            env_file=env_file,
            probe=None if probe is None else self.probe(f"{key}.probe", probe),
            drones=self.choose(f"{key}.drones", chosen, drones, groups),
            options=found,
        )

    def probe(self, key: str, value: object) -> Probe:
        found = {"path": value} if isinstance(value, str) else self.table(key, value)
        unknown = set(found) - {field.name for field in fields(Probe)}
        if unknown:
            raise self.wrong(f"{key}.{min(unknown)}", "is not known")
        path = self.text(f"{key}.path", found.get("path", "/"))
        if not path.startswith("/"):
            raise self.wrong(f"{key}.path", "does not begin with a /")
        timeout = found.get("timeout", _PROBE.timeout)
        if isinstance(timeout, bool) or not isinstance(timeout, int | float):
            raise self.wrong(f"{key}.timeout", "is not a number of seconds")
        if not 0 < timeout <= _DAY:
            raise self.wrong(f"{key}.timeout", "is not a time of up to a day")
        port = self.port(f"{key}.port", found.get("port"))
        status = found.get("status", list(_PROBE.status))
        low, high = self.statuses(f"{key}.status", status)
        return Probe(path, port, float(timeout), (low, high))

    def statuses(self, key: str, value: object) -> tuple[int, int]:
        pair = value if isinstance(value, list) else [value, value]
        numbers = [one for one in pair if type(one) is int]
        if len(numbers) == len(pair) == 2:
            low, high = numbers
            if 100 <= low <= high <= 599:
                return low, high
        raise self.wrong(key, "is neither an HTTP status nor a lowest and a highest")

    # --- Values -------------------------------------------------------------------

    def table(self, key: str, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self.wrong(key, "is not a table")
        return dict(value)

    def names(self, key: str, value: object) -> list[str]:
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.wrong(key, "is not a list of names")
        return list(value)

    def text(self, key: str, value: object) -> str:
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "is not a string with something in it")
        return value

    def maybe_text(self, key: str, value: object) -> str | None:
        return None if value is None else self.text(key, value)

    def folder_there(self, key: str, value: object) -> str | None:
        path = self.maybe_text(key, value)
        # A variable of each drone may be the beginning.
        if path is not None and not path.startswith(("/", "{")):
            raise self.wrong(key, "is not an absolute path")
        return path

    def port(self, key: str, value: object) -> int | None:
        if value is None:
            return None
        if type(value) is not int or not 0 < value < 65536:
            raise self.wrong(key, "is not a port (1 to 65535)")
        return value
