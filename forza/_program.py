# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be the process that forza owns: child first, then the lean runtime, then its end."""

from __future__ import annotations

import os
import sys

from forza._errors import ForzaError, SpawnError, UsageError
from forza._process import Process, ProcessOptions, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from forza._monitor import Monitor
    from forza.cli import Command
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

EXIT_USAGE = 2
EXIT_SETUP = 125
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# How the first stage tells the second what it has done. Neither is for users.
_CHILD = "_FORZA_CHILD"
_PATH = "_FORZA_PATH"
_SETTLE_EVERY = 5.0
_BURST_BYTES = 1024 * 1024
_QUIET_BYTES = 64 * 1024


def start(argv: Sequence[str], command: Command) -> NoReturn:
    """Run the app, and leave with its status.

    The first stage is whatever interpreter the user started: it spawns the child at
    once, and then replaces itself, by exec, with one that has loaded nothing: no
    `site`, no `.pth` files, no environment's PYTHON variables. The pid stays, and
    so does the child. That second stage loads the lean runtime.
    """
    path = os.environ.pop(_PATH, None)
    child = os.environ.pop(_CHILD, None)
    process = None
    try:
        if path is not None:
            sys.path[1:] = path.split(os.pathsep)
            process = Process.adopt(child) if child else None
        else:
            # A signal now would kill the monitor and leave the child: let it wait.
            signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
            process = _spawn_early(command)
            _replace(argv, process)
        code = _run(command, process)
    except BaseException as error:
        if process is not None:
            process.close()
        if not isinstance(error, ForzaError):
            raise
        say(str(error))
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_SETUP
    # Nothing is left to finalise, and the kernel frees memory faster.
    os._exit(code)


def say(text: str) -> None:
    """Write forza's own words to stderr."""
    try:
        os.write(2, f"forza: {text}\n".encode(errors="replace"))
    except OSError:
        pass


def _spawn_early(command: Command) -> Process | None:
    """Spawn the child before anything is loaded that it need not wait for.

    What can't be tried twice is left to the monitor: foreign plugins may still change
    the options, and a failed spawn is news that the monitor has to send.
    """
    settings = command.settings
    _check_files(settings)
    if not command.only_built_in:
        return None
    try:
        return spawn(ProcessOptions(command.args, ipc=settings.get("ipc")))
    except SpawnError:
        return None


def _check_files(settings: dict[str, Any]) -> None:
    """Raise SinkError for a file that can't be written, while nothing runs yet."""
    if path := settings.get("start_log"):
        from forza.plugins.start import prepare

        prepare(path)
    for url in settings["to"]:
        if url.startswith("file:"):
            from forza.sinks import file_path
            from forza.sinks.file import open_append

            os.close(open_append(file_path(url[5:])))


def _replace(argv: Sequence[str], process: Process | None) -> None:
    """Become the second stage; return if that can't be, or is not wanted."""
    main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    if (
        os.environ.get("FORZA_RUNTIME") == "plain"
        or "PYTHONHOME" in os.environ  # needed to start, and ignored with -I
        or not sys.executable
        or not os.access(main, os.R_OK)  # inside a zip file
    ):
        return
    env = dict(os.environ)
    env[_PATH] = os.pathsep.join(filter(None, sys.path))
    if process is not None:
        env[_CHILD] = process.hand_over()
    try:
        os.execve(sys.executable, [sys.executable, "-I", "-S", main, *argv], env)
    except OSError:
        if process is not None:
            process.take_back()


def _run(command: Command, process: Process | None) -> int:
    """Run the monitor on a loop of its own; return the status to leave with."""
    from forza._lean import load

    make_loop, lean = load()
    from forza._monitor import Monitor

    loop = make_loop()
    monitor = Monitor(
        command.args, loop=loop, process=process, say=say, **command.settings
    )
    for signum in _STOPPING:
        loop.add_signal_handler(signum, monitor.stop, signum)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    task = loop.create_task(_watch(monitor, lean))
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    return task.result()


async def _watch(monitor: Monitor, lean: bool) -> int:
    try:
        await monitor.start()
    except SpawnError as error:
        say(str(error.strerror))
        assert monitor.ended is not None
        return monitor.ended.code
    settling = monitor.loop.create_task(_settle(monitor)) if lean else None
    ended = await monitor.wait()
    if settling is not None:
        settling.cancel()
    return ended.code


async def _settle(monitor: Monitor) -> None:
    """Give memory back once start-up is over, and after each burst of output."""
    from forza._lean import settle

    ticks = settled = last = 0
    async for _ in monitor.every(_SETTLE_EVERY):
        ticks += 1
        quiet = monitor.bytes_read - last < _QUIET_BYTES
        last = monitor.bytes_read
        if ticks == 2 or (quiet and last - settled > _BURST_BYTES):
            settled = last
            settle(monitor.loop)
