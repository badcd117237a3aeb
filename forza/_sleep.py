# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put the keeper to sleep as a tiny program, and wake it up as a fresh Python.

Between two events a keeper has nothing to do, and Python takes 3 MB for that. So it
execs `_native/sleeper`, which takes a tenth of one, and which execs Python again when
there is something to decide. The pid stays, and so do children, descriptors and
whatever signal is waiting. What wakes up is always what is installed by then.

Without that program (there was no compiler) the same is done here, by sigtimedwait.
"""

from __future__ import annotations

import os
import sys
from errno import ENOENT
from time import monotonic

from forza import _native
from forza._stage import STATE, command

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

# What the sleeper is told, and what it tells. Not for users.
SLEEP = "_FORZA_SLEEP"
WAKE = "_FORZA_WAKE"
WOKEN = "_FORZA_WOKEN"
TRIAL = "trial"

TIMED_OUT = 0
WATCHED = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_ENDING = (signal.SIGTERM, signal.SIGINT)
_UNHEEDED = (None, signal.SIGCHLD, signal.SIGHUP)
_FOREVER = 86400.0
_RETRY = 1.0

Woken = tuple[int, int]


def sleep(state: str, child: int, deadline: float | None) -> Woken:
    """Sleep until `child` ends, a signal comes or `deadline` (monotonic) has passed.

    `state` is what a fresh keeper has to know. Returns, as signal and code, what has
    come only if this process could not become a fresh keeper, and has to go on as the
    old one.
    """
    words = sys.argv[1:]
    starts = command(bare=False)
    program = _native.path("sleeper")
    told = {**os.environ, STATE: state}
    if starts is not None and program is not None and "\n" not in "".join(starts):
        milliseconds = -1 if deadline is None else max(0, int(deadline * 1000) + 1)
        told[SLEEP] = f"{child} {milliseconds}"
        told[WAKE] = "\n".join(starts)
        try:
            name = "aeternum" if words[:1] == ["run"] else "forza"  # for ps
            os.execve(program, [name, *words], told)
        except OSError:  # no memory, or too many words: sleep as we are
            del told[SLEEP], told[WAKE]
    woken = _sleep_until(child, deadline)
    if starts is None:
        return woken
    return _wake_up([*starts, *words], told, woken, child)


def woken() -> Woken | None:
    """Return what has woken this keeper up, or None if it is only being tried."""
    told = os.environ.pop(WOKEN)
    for name in (SLEEP, WAKE):
        os.environ.pop(name, None)
    if told == TRIAL:
        return None
    signum, code = map(int, told.split())
    return signum, code


def _sleep_until(child: int, deadline: float | None) -> Woken:
    """What sleep_until() is in sleeper.c, where the comments are."""
    while True:
        got = signal.sigtimedwait(WATCHED, 0)
        if got is None:
            if _has_ended(child):
                return signal.SIGCHLD, 0
            left = _FOREVER if deadline is None else max(0.0, deadline - monotonic())
            got = signal.sigtimedwait(WATCHED, left)
            if got is None and deadline is not None and monotonic() >= deadline:
                return TIMED_OUT, 0
        if got is not None and got.si_signo not in _UNHEEDED:
            return got.si_signo, got.si_code


def _has_ended(child: int) -> bool:
    """Reap whoever is not the child; say whether that one waits to be reaped."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return child != 0
        if ended is None:
            return False
        if ended.si_pid == child:
            return True
        os.waitpid(ended.si_pid, os.WNOHANG)


def _wake_up(
    command: list[str], environ: dict[str, str], woken: Woken, child: int
) -> Woken:
    """Become a fresh keeper; return what there is to do if that can't be."""
    waited = False
    while True:
        sound = _is_sound(command, environ)
        if sound:
            told = {**environ, WOKEN: f"{woken[0]} {woken[1]}"}
            try:
                os.execve(command[0], command, told)
            except OSError as error:
                sound = False if error.errno == ENOENT else None
        if sound is None:
            return woken
        if not waited:
            _say("The installed version of forza does not start, waiting.")
        woken = _wait_for_better(woken, child, hurry=not waited)
        waited = True


def _wait_for_better(woken: Woken, child: int, hurry: bool) -> Woken:
    """Wait a little. What must not wait for longer is to be told to end."""
    got = signal.sigtimedwait(WATCHED, _RETRY)
    if got is not None and got.si_signo not in _UNHEEDED:
        hurry = True
        if got.si_signo in _ENDING or woken[0] not in _ENDING:
            woken = got.si_signo, got.si_code
    if woken[0] in _ENDING:
        if child == 0 or _has_ended(child):
            os._exit(0)
        if hurry:
            try:
                os.kill(child, signal.SIGTERM)
            except PermissionError:  # it has become another user
                pass
    return woken


def _say(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass


def _is_sound(command: list[str], environ: dict[str, str]) -> bool | None:
    """Whether a fresh keeper comes up; None if there is no room to try."""
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            {**environ, WOKEN: TRIAL},
            file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)],
        )
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return os.waitpid(pid, 0)[1] == 0
