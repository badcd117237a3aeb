# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a monitor on the lean runtime, from the loop to the last word."""

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
from forza._files import read
from forza._forwarding import Forwarding
from forza._process import Process

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
_SETTLE_FIRST = 0.25  # the first events come before it
_SETTLE_EVERY = 5.0
# These are failures, though an app that is stopped for one may end with 0.
_FAILURES = ("memory", "watchdog")
_BURST_BYTES = 1024 * 1024
_QUIET_BYTES = 64 * 1024


def leave(
    args: Sequence[str],
    settings: dict[str, Any],
    child: str | None,
    runtime: Runtime | None = None,
) -> NoReturn:
    """Run the monitor to its end, and this process too."""
    process = Process.adopt(child) if child is not None else None
    if (fd := settings.get("ready_fd")) is not None:
        os.set_inheritable(fd, False)
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


def load_runtime() -> Runtime:
    """Load what runs a monitor; return what makes a loop, and whether it is lean."""
    from forza import _lean

    make_loop, lean = _lean.load()
    if lean:
        # The import system remembers what is in each folder: 70 kB of names. Freed
        # now, they leave room for the modules that are still to come, unless one of
        # those is looked for in all folders again: hence these.
        import _ctypes  # noqa: F401
        import fcntl  # noqa: F401
        import select  # noqa: F401

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
    if news := settings.pop("news", None):
        from forza._news import first

        settings["plugins"] = (first(news), *settings["plugins"])
    monitor = Monitor(args, loop=loop, process=process, say=say, **settings)
    if process is None and os.isatty(0):
        from forza._terminal import is_ours

        monitor.options.job = is_ours()
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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    process = monitor.process
    adopts = adopt_orphans(*((process.child,) if process is not None else ()))
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


def adopt_orphans(*own: int) -> bool:
    """Become the parent of whatever the app leaves behind, should the guard not be.

    Not if there are children but our `own`: strangers from before us, whose orphans
    could not be told from the app's. Nor as PID 1, to whom all come anyway.
    """
    from forza._libc import libc

    try:
        there = read("/proc/thread-self/children").split()
        if os.getpid() == 1 or there != [b"%d" % pid for pid in own]:
            return False
        return libc("prctl")(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
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
    from forza._settle import settle

    await monitor.sleep(_SETTLE_FIRST)
    ticks = settled = last = backlogs = 0
    async for _ in monitor.every(_SETTLE_EVERY):
        ticks += 1
        quiet = monitor.bytes_read - last < _QUIET_BYTES
        last = monitor.bytes_read
        # Soon, so that a first burst does not come on top of what start-up left;
        # then when every plugin has had its turn. After an outage even if the app is
        # never quiet.
        if (
            ticks <= 2
            or (quiet and last - settled > _BURST_BYTES)
            or monitor.backlogs != backlogs
        ):
            settled, backlogs = last, monitor.backlogs
            settle(monitor.loop)
