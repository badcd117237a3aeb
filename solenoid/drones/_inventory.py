# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say which drones there are, how they are reached and what apps they run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from solenoid.drones._errors import InventoryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Drone:
    """One machine, as the operator calls it, and how it is reached.

    What is None is left to ~/.ssh/config. With `sudo`, whatever runs there runs as
    root, if the user is not root anyway. `python` and `base` name the interpreter and
    the folder for solenoid, where the usual ones will not do.
    """

    name: str
    host: str
    port: int | None = None
    user: str | None = None
    sudo: bool = False
    python: str | None = None
    base: str | None = None
    variables: Mapping[str, object] = field(default_factory=dict, hash=False)

    def fill(self, text: str) -> str:
        """Return a text with the drone's variables in the place of `{variable}`.

        `{drone}` and `{host}` are there without being set. Raises InventoryError.
        """
        known = {"drone": self.name, "host": self.host, **self.variables}

        def value(found: re.Match[str]) -> str:
            if found[1] not in known:
                raise InventoryError(f"{self.name} has no variable {found[1]}: {text}")
            return str(known[found[1]])

        return re.sub(r"{(\w+)}", value, text)


@dataclass(frozen=True, slots=True)
class Probe:
    """What an app answers by HTTP when it is well; asked through the connection.

    `port` None is the port that the app's start event names. `status` is the lowest
    and the highest answer that will do.
    """

    path: str = "/"
    port: int | None = None
    timeout: float = 30.0
    status: tuple[int, int] = (200, 399)


@dataclass(frozen=True, slots=True)
class App:
    """What an app needs wherever it runs.

    `storage` is the URL below which its snapshots are, `run_dir` a folder on the
    drone, `env_file` a file of the operator's. `options` are the keys that the
    inventory itself does not know: those of a rollout.
    """

    name: str
    user: str
    version: str | None = None
    storage: str | None = None
    run_dir: str | None = None
    env_file: str | None = None
    probe: Probe | None = None
    drones: tuple[Drone, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The drones that were asked for, in order, and all apps by name."""

    drones: tuple[Drone, ...]
    apps: Mapping[str, App] = field(default_factory=dict)


def load(source: str, only: Sequence[str] = ()) -> Inventory:
    """Read an inventory: a TOML file, a list `host,user@host:port`, or `!command`.

    `only` keeps the drones and groups that it names. Raises InventoryError.
    """
    from solenoid.drones import _sources

    return _sources.load(source, only)


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """Take `user@host:port` apart; IPv6 is `[::1]:22` or `::1`. Raises ValueError."""
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ValueError(f"{text!r} is not [user@]host[:port]")
        port = port[1:]
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
        if not port:
            raise ValueError(f"{text!r} has no port after the colon")
    else:
        host, port = rest, ""
    if not host or any(c.isspace() for c in text) or host.startswith("-"):
        raise ValueError(f"{text!r} is not [user@]host[:port]")
    if at and not user:
        raise ValueError(f"{text!r} has no user before the @")
    if not port:
        return user or None, host, None
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{text!r}: {port} is not a port (1 to 65535)")
    return user or None, host, int(port)
