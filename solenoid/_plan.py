# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put together what the app's process gets: variables, policy, forza's options."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._environ import app_environ
from solenoid._errors import EngineError, UsageError
from solenoid._launch import Launch
from solenoid._pidfile import check_pidfile
from solenoid._policy import Policy
from solenoid._python import isolated
from solenoid._reach import barrier, unreachable
from solenoid._record import given_variables
from solenoid._target import Target

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from solenoid._app import App
    from solenoid._config import Config
    from solenoid._engines import Engine
    from solenoid._package import Package
    from solenoid._record import Record
    from solenoid._restrict import User
    from solenoid._rundir import RunDir

Variables = dict[str, dict[str, str]]
# A command that forza need not find.
_APP = "APP"
# forza's statuses for words that it does not understand, and for a bad port.
_USAGE = (2, 3)


async def check_options(app: App) -> None:
    """See that forza understands what is for it, before anything is done for the app.

    Raises UsageError. That forza can't be run at all is told when the app is started.
    """
    if not app.ready and not app.forza:  # all else is ours
        return
    words = [*isolated("forza.cli"), "--check", *_about(app), *app.forza, "--", _APP]
    try:
        ended = await asyncio.to_thread(_run, words)
    except (OSError, ValueError):  # no memory, too many words
        return
    if ended.returncode in _USAGE:
        told = ended.stderr.strip().removeprefix("forza: ")
        raise UsageError(f"forza's options: {told}")
    found = ended.stdout.split()[:1]
    if ended.returncode == 0 and found != [_APP]:
        raise UsageError(f"forza's options: '{''.join(found)}' is none")


def _run(words: list[str]) -> subprocess.CompletedProcess[str]:
    import subprocess

    return subprocess.run(
        words,
        env={},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def environment(
    app: App,
    record: Record,
    folder: Path,
    user: User,
    engines: Sequence[Engine],
) -> Variables:
    """Return the app's environment, and what of it was given: that is kept with it."""
    given = app.environ
    if given is None:
        given = given_variables(folder, record)
    made = app_environ(
        os.environ,
        given,
        package=folder / "package",
        tmp=folder / ".tmp",
        user=user.name,
        engines=[engine.bin for engine in engines],
    )
    return {"environ": made, "given": dict(given)}


async def check_program(package: Package, variables: Variables, user: User) -> None:
    """See that there is what the package's start begins with, for the user to run."""
    import shutil  # half a megabyte, once the large part is over

    word, path = package.start.words[0], variables["environ"]["PATH"]
    found = word if "/" in word else shutil.which(word, path=path)
    if found is None:
        raise EngineError(
            f"there is no {word} in the app's PATH: install it, or name"
            f" engines.{word}.path in the configuration",
            blame="system",
        )
    if "/" not in word and await asyncio.to_thread(_is_closed, found, user):
        wall = await asyncio.to_thread(barrier, found, user)
        raise EngineError(
            f"user {user.name} may not read {wall}, where {word} is: install it where"
            " everybody may",
            blame="system",
        )


def _is_closed(path: str, user: User) -> bool:
    return unreachable(user, [path]) is not None


def plan(
    place: RunDir,
    app: App,
    folder: Path,
    package: Package,
    user: User,
    engines: Sequence[Engine],
    variables: Variables,
    config: Config,
) -> Launch:
    """Return how the app is to be started."""
    import shutil

    tmp = folder / ".tmp"
    read = {str(engine.bin.parent) for engine in engines}
    if node := shutil.which("node", path=variables["environ"]["PATH"]):
        read.add(_home_of(Path(node).resolve()))
    return Launch(
        package.start.words,
        user,
        Policy(
            app.restrict,
            read=tuple(sorted(read)),
            write=(str(folder / "package"), str(tmp)),
        ),
        f"environ.{os.urandom(4).hex()}.json",
        os.path.abspath(app.pidfile or place.path / "app.pid"),
        (*_sinks(place, config), *_about(app), *app.forza),
        app.min_uptime,
        app.start_timeout,
        app.stable,
        app.grace,
    )


def _home_of(program: Path) -> str:
    """Return the folder of an installation, or just the program if it has none."""
    home = program.parent.parent
    own = program.parent.name == "bin" and (home / "lib" / "node_modules").is_dir()
    return str(home if own else program)


def _sinks(place: RunDir, config: Config) -> list[str]:
    words = []
    for one in config.instruments:
        host = f"[{one.host}]" if ":" in one.host else one.host
        words += ["-h", f"{host}:{one.port}"]
    return [*words, "--spool", str(place.path / "spool")] if words else []


def _about(app: App) -> list[str]:
    words = [word for how in app.ready for word in ("--ready", how)]
    if app.user is not None and app.name is not None:
        words += ["--app-user", app.user, "--app-name", app.name]
    return words


def prepare(place: RunDir, folder: Path, how: Launch, variables: Variables) -> None:
    """Write what the app's user has to find."""
    check_pidfile(how.pidfile)
    user = how.user
    with Target(folder / how.environ) as target:  # nobody else may read it
        target.write([json.dumps(variables).encode()], 0)
        if os.geteuid() == 0:
            os.fchown(target.descriptor, user.uid, user.gid)
        target.commit()
    if "--spool" in how.forza:
        spool = place.path / "spool"
        spool.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(spool, user.uid, user.gid, follow_symlinks=False)
