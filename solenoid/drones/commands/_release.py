# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put together what the drones need to start a release."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._config import Config, Source, read_config
from solenoid._environ import parse_environ
from solenoid._errors import EnvironError
from solenoid._fetch import fetch
from solenoid.drones._errors import InventoryError
from solenoid.drones._snapshot import Present, Sent, Stored, for_drones
from solenoid.drones._start import Start
from solenoid.drones.commands._app import drones_of, place_of
from solenoid.drones.commands._change import Change, chosen
from solenoid.drones.commands._options import strategy_of
from solenoid.storage import redacted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from solenoid._console import Console
    from solenoid.drones._inventory import App, Drone, Inventory
    from solenoid.drones._snapshot import Snapshot


def add_release(parser: argparse.ArgumentParser) -> None:
    """Add what an app is started with."""
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="its variables, lines NAME=value or a JSON object; they go over standard"
        " input, and are in no command line and no log",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="where the storage's credentials are, which stay here (~/.solenoidconf)",
    )


class Release:
    """A release on its way to drones: made when all that was given makes sense."""

    def __init__(
        self,
        options: argparse.Namespace,
        verb: str,
        app: App,
        drones: Sequence[Drone],
        config: Config,
        environ: bytes | None,
    ) -> None:
        assert app.run_dir is not None
        self.app = app
        self._config, self._environ, self._verb = config, environ, verb
        self._scope = f"{options.drones} {app.run_dir}"
        self._drones = chosen(options, verb, self._scope, drones)
        self._strategy = strategy_of(options, app)
        self._rest = options.rest
        self._words = [*_words(options, app), *options.rest]
        self._place = place_of(options, app)

    @classmethod
    async def of(
        cls, options: argparse.Namespace, verb: str, app: App, inventory: Inventory
    ) -> Release:
        """Read the files that are named, and complain before anything is done."""
        config = await _config(options)
        environ = await _environ(options.env_file or app.env_file)
        drones = drones_of(app, inventory)
        return cls(options, verb, app, drones, config, environ)

    @property
    def storage(self) -> Source | None:
        """Return the app's storage, with the options that the configuration has."""
        if self.app.storage is None:
            return self._config.storage
        base = self.app.storage.rstrip("/")
        return Source(base, self.options_for(f"{base}/") or {})

    def options_for(self, url: str) -> Mapping[str, object] | None:
        """Return the storage's options if the URL is its own: they are secrets."""
        return self._config.options_for(url)

    def change(self, version: str | None, snapshot: Snapshot) -> Change:
        """Return what is to be done with a snapshot."""
        app = self.app
        named = (("-u", app.user), ("-a", app.name), ("-v", version))
        given = [word for option, value in named if value for word in (option, value)]
        words = [*given, *self._words]
        if isinstance(snapshot, Present) and self._environ is None and not self._rest:
            words = []  # then it starts as it was started before
        action = Start(
            self._place,
            snapshot,
            options=words,
            environ=self._environ,
            probe=app.probe,
            verb=self._verb,
        )
        about = {"app": app.name, "version": version or ""}
        about["run_dir"] = self._place.run_dir
        return Change(action, self._drones, self._strategy, self._scope, about)


async def stored(
    url: str,
    options: Mapping[str, object] | None,
    sha256: str | None,
    folder: Path,
    console: Console,
) -> Snapshot:
    """Return a stored snapshot; what drones cannot fetch is brought here first."""
    if for_drones(url, options):
        return await Stored.of(url, options, sha256)
    console.info(f"drones cannot fetch {redacted(url)} themselves: it is sent to them")
    to = folder / "snapshot.tgz"
    fetched = await fetch(
        url, to, sha256=sha256, options=options, progress=console.progress("fetch")
    )
    return Sent(to, fetched.sha256)


def _words(options: argparse.Namespace, app: App) -> list[str]:
    words = app.options.get("start", [])
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        where = f"{options.drones}: apps.{app.name}.start"
        raise InventoryError(f"{where} is not a list of options")
    return words


async def _config(options: argparse.Namespace) -> Config:
    default = Path.home() / ".solenoidconf"
    if options.config is None and not await asyncio.to_thread(default.exists):
        return Config()
    return await read_config(options.config)


async def _environ(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        text = await asyncio.to_thread(Path(path).read_text, "utf-8")
    except OSError as error:
        raise EnvironError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        raise EnvironError(f"{path} is not UTF-8") from None
    parse_environ(text, path)  # what is wrong with it is said once, and here
    return text.encode()
