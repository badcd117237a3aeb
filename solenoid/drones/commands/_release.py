# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put together what the drones need to start a release."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._config import Config, Source, read_config
from solenoid._environ import parse_environ
from solenoid._errors import EnvironError, UsageError
from solenoid.drones._place import Place
from solenoid.drones._start import Start
from solenoid.drones._wheelhouse import Wheelhouse
from solenoid.drones.commands._change import Change, chosen
from solenoid.drones.commands._options import strategy_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from solenoid.drones._inventory import App, Drone
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


async def source_of(options: argparse.Namespace, app: App) -> Source | None:
    """Return the app's storage, with the options that the configuration has for it."""
    config = await _config(options)
    if app.storage is None:
        return config.storage
    base = app.storage.rstrip("/")
    return Source(base, config.options_for(base) or {})


async def start_change(
    options: argparse.Namespace,
    verb: str,
    app: App,
    version: str | None,
    drones: Sequence[Drone],
    snapshot: Snapshot,
) -> Change:
    """Return the change that a start is, on the drones that it is for."""
    assert app.run_dir is not None
    named = (("-u", app.user), ("-a", app.name), ("-v", version))
    given = [word for option, value in named if value for word in (option, value)]
    scope = f"{options.drones} {app.run_dir}"
    action = Start(
        Place(app.run_dir, Wheelhouse(), timeout=options.timeout),
        snapshot,
        options=[*given, *_words(app), *options.rest],
        environ=await _environ(options.env_file or app.env_file),
        probe=app.probe,
        verb=verb,
    )
    about = {"app": app.name, "version": version or "", "run_dir": app.run_dir}
    todo = chosen(options, verb, scope, drones)
    strategy = strategy_of(options, app.options)
    return Change(action, todo, strategy, scope, about)


def _words(app: App) -> list[str]:
    words = app.options.get("start", [])
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise UsageError(f"apps.{app.name}.start is not a list of options")
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
