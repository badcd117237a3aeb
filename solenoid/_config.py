# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read ~/.solenoidconf, as the original's: where snapshots, engines and servers are."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from solenoid._engines import EngineSource
from solenoid._errors import ConfigError
from solenoid._semver import Range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RUN_DIR = Path("/opt/run")
PORT = 8556
_MAX_DELAY = 86_400_000
# pkgcloud's providers, and the scheme of the storage that does the same.
_PROVIDERS = {
    "amazon": "s3",
    "azure": "az",
    "google": "gs",
    "openstack": "swift",
    "rackspace": "swift",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where snapshots are: below the URL `base`, with the storage's `options`."""

    base: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    def snapshot(self, user: str, name: str, version: str) -> str:
        """Return the URL of an app's snapshot: USER-NAME-VERSION.tgz."""
        return f"{self.base}/{quote(f'{user}-{name}-{version}.tgz')}"


@dataclass(frozen=True, slots=True)
class Instrument:
    """A server that takes events."""

    host: str
    port: int = PORT


@dataclass(frozen=True, slots=True)
class Config:
    """What is the same for all apps of a machine; times are in seconds.

    `unknown` has the keys of the file that mean nothing here.
    """

    storage: Source | None = None
    instruments: tuple[Instrument, ...] = ()
    run_dir: Path = RUN_DIR
    engines: Mapping[str, EngineSource] = field(default_factory=dict)
    min_uptime: float = 2.0
    retries: int = 6
    min_delay: float = 1.0
    unknown: tuple[str, ...] = ()

    def options_for(self, url: str) -> Mapping[str, object] | None:
        """Return the storage's options, credentials among them, for its own URLs."""
        if self.storage is None:
            return None
        scheme = self.storage.base.partition(":")[0]
        # To a bucket, the endpoint among the options is who is asked.
        web = scheme in ("http", "https")
        own = f"{self.storage.base}/" if web else f"{scheme}:"
        return self.storage.options if url.startswith(own) else None


async def read_config(path: str | os.PathLike[str] | None = None) -> Config:
    """Read a configuration, by default ~/.solenoidconf.

    Raises ConfigError, which names the file and the key, and never shows a value of
    the storage's.
    """
    place = Path(path) if path is not None else Path.home() / ".solenoidconf"
    return await asyncio.to_thread(_read, place)


def _read(path: Path) -> Config:
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        # The text of a JSONDecodeError is a place, that of others has bytes in it.
        where = error if isinstance(error, json.JSONDecodeError) else "not UTF-8"
        raise ConfigError(f"{path} is not JSON: {where}") from None
    return _Reader(path).config(found)


class _Reader:
    """Turns what was read into a Config; knows the file that its errors name."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def wrong(self, key: str, why: str) -> ConfigError:
        return ConfigError(f"{self.path}: {key} {why}")

    def config(self, found: object) -> Config:
        if not isinstance(found, dict):
            raise ConfigError(f"{self.path} is not a JSON object")
        known: dict[str, tuple[str, Callable[[str, object], object]]] = {
            "storage": ("storage", self.storage),
            "instruments": ("instruments", self.instruments),
            "runDir": ("run_dir", self.path_at),
            "engines": ("engines", self.engines),
            "minUptime": ("min_uptime", self.seconds),
            "retries": ("retries", self.count),
            "minDelay": ("min_delay", self.seconds),
        }
        values: dict[str, Any] = {}
        for key, value in found.items():
            # `null` is how JSON says that there is none.
            if key in known and value is not None:
                name, read = known[key]
                values[name] = read(key, value)
        unknown = tuple(sorted(set(found) - set(known)))
        return Config(**values, unknown=unknown)

    def storage(self, key: str, value: object) -> Source:
        options = self.fields(key, value)
        base = options.pop("url", None)
        if base is not None:
            return Source(self.text(f"{key}.url", base).rstrip("/"), options)
        provider = self.text(f"{key}.provider", options.get("provider", "amazon"))
        if provider not in _PROVIDERS:
            known = ", ".join(_PROVIDERS)
            raise self.wrong(
                f"{key}.provider", f"is {provider!r}, not one of {known}; or use url"
            )
        container = self.text(f"{key}.container", options.get("container"))
        return Source(f"{_PROVIDERS[provider]}://{container.strip('/')}", options)

    def instruments(self, key: str, value: object) -> tuple[Instrument, ...]:
        if not isinstance(value, list):
            return (self.instrument(key, value),)
        return tuple(self.instrument(f"{key}[{i}]", one) for i, one in enumerate(value))

    def instrument(self, key: str, value: object) -> Instrument:
        found = self.fields(key, value)
        host = self.text(f"{key}.host", found.get("host"))
        port = found.get("port", PORT)
        if isinstance(port, str) and port.isascii() and port.isdigit():
            port = int(port)
        if not isinstance(port, int) or not 0 < port < 65536 or port is True:
            raise self.wrong(f"{key}.port", "is not a port (1 to 65535)")
        return Instrument(host, port)

    def engines(self, key: str, value: object) -> dict[str, EngineSource]:
        found = self.fields(key, value)
        return {name: self.engine(f"{key}.{name}", one) for name, one in found.items()}

    def engine(self, key: str, value: object) -> EngineSource:
        found = self.fields(key, value)
        path = self.path_at(f"{key}.path", found.get("path"))
        default = self.text(f"{key}.default", found.get("default", "*"))
        try:
            Range(default)
        except ValueError:
            raise self.wrong(
                f"{key}.default", f"is {default!r}, not a valid range"
            ) from None
        store = found.get("store")
        if store is None:
            return EngineSource(path, default)
        if isinstance(store, str):
            return EngineSource(path, default, self.text(f"{key}.store", store))
        options = self.fields(f"{key}.store", store)
        url = self.text(f"{key}.store.url", options.pop("url", None))
        return EngineSource(path, default, url, options)

    def fields(self, key: str, value: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise self.wrong(key, "is not an object")
        return dict(value)

    def text(self, key: str, value: object) -> str:
        if value is None:
            raise self.wrong(key, "is missing")
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, "is not a string with something in it")
        return value

    def path_at(self, key: str, value: object) -> Path:
        path = Path(self.text(key, value)).expanduser()
        if not path.is_absolute():
            raise self.wrong(key, "is not an absolute path")
        return path

    def seconds(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(key, "is not a number of milliseconds")
        if not 0 <= value <= _MAX_DELAY:
            raise self.wrong(key, "is not from 0 to a day, in milliseconds")
        return value / 1000

    def count(self, key: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.wrong(key, "is not a whole number of 0 or more")
        return value
