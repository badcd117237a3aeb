# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start what is kept so that it dies with its keeper, and end what it left behind."""

from __future__ import annotations

import os
import sys
from time import monotonic

from forza._errors import EXIT_SETUP
from forza._libc import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# What is killed may take a while to die, and may be quick to have children.
_ENDING_SECONDS = 5.0
_LOOK_AGAIN = 0.05
# A status that says nothing: somebody else has reaped the child.
_UNKNOWN = 255 << 8


def adopt() -> None:
    """Let what descendants leave behind become this process's own children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def start(
    args: Sequence[str],
    settings: dict[str, Any] | None,
    streams: Sequence[tuple[int, int]],
    own: Sequence[int],
    *,
    app: bool = True,
) -> int:
    """Start a monitor with these settings, or a command if there are none.

    Without `app` the `news` in the settings are told, and that is all. `streams` says
    which descriptors 0, 1 and 2 shall be, `own` what is not for the child. Returns its
    pid. Raises OSError if it cannot be started.
    """
    readable, writable = os.pipe()  # closed by exec, or told what is in its way
    keeper = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(readable)
        os.close(writable)
        raise
    if pid == 0:
        # Whatever happens, there must not be two keepers.
        try:
            os.close(readable)
            for target, fd in streams:
                os.dup2(fd, target)
            # The lock, above all: who holds that is the keeper for everyone.
            for fd in own:
                os.close(fd)
            _be_child(args, settings, keeper, writable, app)
        except OSError as error:
            os.write(writable, str(error.errno).encode())
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(EXIT_SETUP)
    os.close(writable)
    try:
        told = os.read(readable, 16)
    finally:
        os.close(readable)
    if told:
        os.waitpid(pid, 0)
        raise OSError(int(told), os.strerror(int(told)))
    return pid


def _be_child(
    args: Sequence[str],
    settings: dict[str, Any] | None,
    keeper: int,
    writable: int,
    app: bool,
) -> NoReturn:
    # posix_spawn knows no parent-death signal, which is why we fork.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != keeper:  # it died before we asked to be told
        os._exit(EXIT_SETUP)
    if settings is None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.environ.pop("NOTIFY_SOCKET", None)  # the keeper's own
        os.execvp(args[0], tuple(args))
    os.close(writable)
    if not app:
        from forza._news import leave

        leave(args, settings)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    from forza._start import start

    start(args, settings)


def reap(pid: int) -> int | None:
    """Return the child's wait status, or None if it has not ended."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return _UNKNOWN
    return status if found else None


def send(pid: int, signum: int) -> None:
    """Send a signal to a child that has not been reaped."""
    try:
        os.kill(pid, signum)
    except PermissionError:  # it has become another user
        pass


def end_orphans() -> None:
    """Kill, and reap, whatever children this process has, and those that come."""
    deadline = monotonic() + _ENDING_SECONDS
    spared: set[int] = set()
    # Each may have children of its own, which come next. A pid is a child's until it
    # is reaped, which only we do: no stranger is hit.
    while monotonic() < deadline:
        try:
            orphans = _children() - spared
        except OSError:  # the machine is out of descriptors, perhaps for a moment
            signal.sigtimedwait((signal.SIGCHLD,), _LOOK_AGAIN)
            continue
        if not orphans:
            return
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:  # another user's, by a setuid program
                spared.add(pid)
        if not _reap_any():
            signal.sigtimedwait((signal.SIGCHLD,), _LOOK_AGAIN)


def _reap_any() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def _children() -> set[int]:
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children", "rb", 0) as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without that file
        return {pid for pid in _processes() if _parent(pid) == me}


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _prctl(option: int, value: int) -> None:
    try:
        libc("prctl")(option, value, 0, 0, 0)
    except (ImportError, AttributeError, OSError):  # not this C library
        pass
