# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start the app before anything is loaded that it need not wait for."""

from __future__ import annotations

import os
import sys

from forza._errors import EXIT_SETUP, ForzaError, SpawnError
from forza._native import path
from forza._process import ProcessOptions
from forza.plugins import BUILT_IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from forza._process import Process
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members


def start(args: Sequence[str], settings: dict[str, Any]) -> NoReturn:
    """Run the app, and leave with its status; `settings` are Monitor's arguments."""
    block_signals()
    open_stdio()
    # A service manager's: it is not the app whom that listens to.
    if socket := os.environ.pop("NOTIFY_SOCKET", None):
        settings = {**settings, "notify_socket": socket}
    process = spawn_early(args, settings)
    child = process.hand_over() if process is not None else None
    if (fd := settings.get("ready_fd")) is not None:
        os.set_inheritable(fd, True)  # it waits for the start: it survives our exec
    from forza._stage import replace

    replace("monitor", tuple(args), settings, child)
    from forza._program import leave

    leave(args, settings, child)


def block_signals() -> None:
    """Let signals wait: one now would kill the monitor and leave the child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    # Whoever ignores it, as daemons do, has handed that on: the kernel would reap the
    # child by itself, and nobody could tell how it ended.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def open_stdio() -> None:
    """Open /dev/null where 0, 1 or 2 is closed, lest one of ours land there."""
    for wanted in range(3):
        try:
            os.fstat(wanted)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def spawn_early(args: Sequence[str], settings: dict[str, Any]) -> Process | None:
    """Spawn the child before anything is loaded that it need not wait for.

    What can't be tried twice is left to the monitor: foreign plugins may still change
    the options, and a failed spawn is news that the monitor has to send.
    """
    options = ProcessOptions(
        args,
        cwd=settings.get("cwd"),
        uid=settings.get("uid"),
        gid=settings.get("gid"),
        ipc=settings.get("ipc"),
        job=_is_job(),
        limits=settings.get("limits"),
    )
    early = all(name in BUILT_IN for name in settings["plugins"])
    try:
        _check_installed()
        _check_files(settings)
        ear = _prepare(settings, options) if early else -1
    except ForzaError as error:
        from forza._program import say

        say(str(error))
        os._exit(EXIT_SETUP)
    if not early:
        return None
    from forza._spawn import spawn

    # Its first orphans may come before we have loaded what else there is to load.
    adopts = False
    if path("guard") is None:
        from forza._program import adopt_orphans

        adopts = adopt_orphans()
    try:
        process = spawn(options)
    except SpawnError:
        if ear >= 0:
            os.close(ear)
        return None
    if ear >= 0:
        told = {**settings["plugin_options"].get("start", {}), "ear": str(ear)}
        settings["plugin_options"] = {**settings["plugin_options"], "start": told}
        os.set_inheritable(ear, True)  # only now: it is not for the app
    process.adopts = adopts
    return process


def _is_job() -> bool:
    """Say whether the app is to have the terminal's foreground, if there is one."""
    if not os.isatty(0):
        return False
    from forza._terminal import is_ours

    return is_ours()


def _check_installed() -> None:
    """Look for what the second stage will import: it would be late to miss it then."""
    if TYPE_CHECKING:
        from importlib.machinery import PathFinder
    else:
        from _frozen_importlib_external import PathFinder

    for name in ("uvloop", "orjson"):
        # To look is enough, mostly, and needs no listing of all that is installed.
        there = any(os.path.isdir(f"{folder}/{name}") for folder in sys.path)
        if not there and name not in sys.modules and not PathFinder.find_spec(name):
            raise ForzaError(f"{name} is not installed: pip install {name}")


def _check_files(settings: dict[str, Any]) -> None:
    """Raise SinkError for a file that can't be used, while nothing runs yet."""
    if path := settings.get("start_log"):
        from forza._startlog import prepare

        prepare(path)
    if path := settings.get("spool"):
        from forza.spool._depot import check_folder

        check_folder(path)
    for url in settings["to"]:
        if url.startswith("file:"):
            from forza.sinks import file_options
            from forza.sinks._logfile import check_append

            check_append(file_options(url)[0])
        elif url.startswith("tls:"):
            from forza.sinks.tls import credentials

            credentials(url)


def _prepare(settings: dict[str, Any], options: ProcessOptions) -> int:
    """Let the app's environment say how to tell that it has started; return the
    descriptor that hears it, or -1."""
    if "start" not in settings["plugins"]:
        return -1
    from forza.ready.before import prepare

    asked = settings["plugin_options"].get("start", {})
    platform = bool(settings.get("app_user") and settings.get("app_name"))
    return prepare(asked, options, platform=platform)
