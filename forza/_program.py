# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be the process that forza owns: child first, then the lean runtime, then its end."""

from __future__ import annotations

import os
import sys

from forza._errors import (
    EXIT_SETUP,
    EXIT_STOPPED,
    EXIT_USAGE,
    ForzaError,
    SpawnError,
    UsageError,
)
from forza._forwarding import HANDLED, Forwarding
from forza._native import path
from forza._proc import read
from forza._process import Process, ProcessOptions
from forza._stage import replace
from forza.plugins import BUILT_IN

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from forza._monitor import Monitor

    Runtime = tuple[Callable[[], AbstractEventLoop], bool]
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

_PR_SET_CHILD_SUBREAPER = 36
# How often to look for orphans, where they may come to us.
_REAP_EVERY = 1.0
_SETTLE_EVERY = 5.0
# These are failures, though an app that is stopped for one may end with 0.
_FAILURES = ("memory", "watchdog")
_BURST_BYTES = 1024 * 1024
_QUIET_BYTES = 64 * 1024


def start(args: Sequence[str], settings: dict[str, Any]) -> NoReturn:
    """Run the app, and leave with its status; `settings` are Monitor's arguments."""
    block_signals()
    open_stdio()
    # A service manager's: it is not the app whom that listens to.
    if socket := os.environ.pop("NOTIFY_SOCKET", None):
        settings = {**settings, "notify_socket": socket}
    process = spawn_early(args, settings)
    child = process.hand_over() if process is not None else None
    _keep_ready_fd(settings, inheritable=True)
    replace("monitor", tuple(args), settings, child)
    leave(args, settings, child)


def _keep_ready_fd(settings: dict[str, Any], *, inheritable: bool) -> None:
    """Let the descriptor that waits for the start survive our exec, and no other."""
    if (fd := settings.get("ready_fd")) is not None:
        os.set_inheritable(fd, inheritable)


def block_signals() -> None:
    """Let signals wait: one now would kill the monitor and leave the child."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
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


def leave(
    args: Sequence[str],
    settings: dict[str, Any],
    child: str | None,
    runtime: Runtime | None = None,
) -> NoReturn:
    """Run the monitor to its end, and this process too."""
    process = Process.adopt(child) if child is not None else None
    _keep_ready_fd(settings, inheritable=False)
    try:
        code = _run(args, settings, process, runtime or load_runtime())
    except BaseException as error:
        if process is not None:
            process.close()
        if isinstance(error, ForzaError):
            say(str(error))
        else:
            sys.excepthook(type(error), error, error.__traceback__)
        code = EXIT_USAGE if isinstance(error, UsageError) else EXIT_SETUP
    # Nothing is left to finalise, and the kernel frees memory faster.
    os._exit(code)


def say(text: str) -> None:
    """Write forza's own words to stderr; if nobody reads it, they are lost."""
    from forza._write import write_now

    try:
        write_now(2, f"forza: {text}\n".encode(errors="replace"))
    except OSError:
        pass


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
        say(str(error))
        os._exit(EXIT_SETUP)
    if not early:
        return None
    from forza._spawn import spawn

    # Its first orphans may come before we have loaded what else there is to load.
    adopts = path("guard") is None and _adopt_orphans()
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
        if name not in sys.modules and PathFinder.find_spec(name) is None:
            raise ForzaError(f"{name} is not installed: pip install {name}")


def _check_files(settings: dict[str, Any]) -> None:
    """Raise SinkError for a file that can't be written, while nothing runs yet."""
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


def _prepare(settings: dict[str, Any], options: ProcessOptions) -> int:
    """Let the app's environment say how to tell that it has started; return the
    descriptor that hears it, or -1."""
    if "start" not in settings["plugins"]:
        return -1
    from forza.ready.before import prepare

    asked = settings["plugin_options"].get("start", {})
    platform = bool(settings.get("app_user") and settings.get("app_name"))
    return prepare(asked, options, platform=platform)


def load_runtime() -> Runtime:
    """Load what runs a monitor; return what makes a loop, and whether it is lean."""
    from forza import _lean

    make_loop, lean = _lean.load()
    if lean:
        # The import system remembers what is in each folder: 70 kB of names. Freed
        # now, they leave room for the modules that are still to come, unless one of
        # those is looked for in all folders again: hence these.
        import _ctypes  # noqa: F401
        import binascii  # noqa: F401
        import fcntl  # noqa: F401

        sys.path_importer_cache.clear()
        _lean.forget_loader()
    return make_loop, lean


def _run(
    args: Sequence[str],
    settings: dict[str, Any],
    process: Process | None,
    runtime: Runtime,
) -> int:
    """Run the monitor on a loop of its own; return the status to leave with."""
    from forza._monitor import Monitor

    make_loop, lean = runtime
    loop = make_loop()
    loop.set_exception_handler(say_trouble)
    settings = dict(settings)
    rewritten = settings.pop("signals", {})
    monitor = Monitor(args, loop=loop, process=process, say=say, **settings)
    monitor.options.job = process is None and _is_job()
    forwarding = Forwarding(monitor, rewritten)
    forwarding.install(loop)
    task = loop.create_task(_watch(monitor, forwarding, lean))
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    return task.result()


def say_trouble(loop: AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what a callback raised in one line; the loop's own way loads `logging`."""
    error = context.get("exception")
    reason = f": {type(error).__name__}: {error}" if error is not None else ""
    say(f"{context['message']}{reason}")


async def _watch(monitor: Monitor, forwarding: Forwarding, lean: bool) -> int:
    # Not before the loop runs, or the handlers would have nobody to tell.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
    process = monitor.process
    adopts = _adopt_orphans(*((process.child,) if process is not None else ()))
    try:
        await monitor.start()
    except SpawnError as error:
        say(str(error.strerror))
        assert monitor.ended is not None
        return monitor.ended.code
    assert monitor.process is not None
    if monitor.process.job:
        from forza._terminal import Terminal

        forwarding.terminal = Terminal(monitor.process)
    monitor.process.adopts = monitor.process.adopts or adopts
    tasks = [monitor.loop.create_task(_settle(monitor))] if lean else []
    if os.getpid() == 1 or monitor.process.lost:
        tasks.append(monitor.loop.create_task(_reap(monitor)))
    ended = await monitor.wait()
    for task in tasks:
        task.cancel()
    if forwarding.terminal is not None:
        forwarding.terminal.give_back()
    if ended.reason in _FAILURES:  # a keeper that restarts on failures shall know
        return ended.code or EXIT_STOPPED
    return ended.code


def _adopt_orphans(*own: int) -> bool:
    """Become the parent of whatever the app leaves behind, should the guard not be.

    Not if there are children but our `own`: strangers from before us, whose orphans
    could not be told from the app's. Nor as PID 1, to whom all come anyway.
    """
    from forza._lean import _libc

    try:
        there = read("/proc/thread-self/children").split()
        if os.getpid() == 1 or there != [b"%d" % pid for pid in own]:
            return False
        return _libc("prctl")(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    except (ImportError, AttributeError, OSError):  # no /proc, or not this C library
        return False


async def _reap(monitor: Monitor) -> None:
    """Reap those whom nobody else would."""
    from forza._orphans import Zombies

    assert monitor.process is not None
    zombies = Zombies(monitor.process.child)
    async for _ in monitor.every(_REAP_EVERY):
        zombies.reap()


async def _settle(monitor: Monitor) -> None:
    """Give memory back once start-up is over, and after each burst of output."""
    from forza._lean import settle

    ticks = settled = last = backlogs = 0
    async for _ in monitor.every(_SETTLE_EVERY):
        ticks += 1
        quiet = monitor.bytes_read - last < _QUIET_BYTES
        last = monitor.bytes_read
        # At once, so that a first burst does not come on top of what start-up left;
        # then when every plugin has had its turn. After an outage even if the app is
        # never quiet.
        if (
            ticks <= 2
            or (quiet and last - settled > _BURST_BYTES)
            or monitor.backlogs != backlogs
        ):
            settled, backlogs = last, monitor.backlogs
            settle(monitor.loop)
