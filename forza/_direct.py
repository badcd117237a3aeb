# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start and end a child without the guard, where that could not be built.

Weaker than with it: of what has left the child's process group, only what a monitor
that is a subreaper finds among its own children is ended, and a monitor that is killed
leaves the app running, unless it was started in another folder or as another user.
"""

from __future__ import annotations

import errno
import os
from os import POSIX_SPAWN_DUP2

from forza._guard import IPC_FD, StepError, above_stdio
from forza._process import Exit, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forza._process import ExitCallback, ProcessOptions
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

_TRACER_SECONDS = 0.01
_KILL = 9
_PR_SET_PDEATHSIG = 1
# Every classic signal but KILL and STOP, whose disposition nobody can set.
_RESETTABLE = tuple(n for n in range(1, 32) if n not in (9, 19))


class Direct(Process):
    """A child of our own."""

    __slots__ = ()  # `_reports` is a pidfd

    @property
    def top(self) -> int:
        """Whoever loses its parent comes to us, or to somebody who is no subreaper."""
        return os.getpid() if self.adopts else self.pid

    def watch(self, loop: AbstractEventLoop, exit_cb: ExitCallback) -> None:
        """Call `exit_cb` exactly once, when the child has ended."""
        self._loop = loop
        self._exit_cb = exit_cb
        self.lost = True
        self._reports = os.pidfd_open(self.pid)
        loop.add_reader(self._reports, self._look)

    def _look(self) -> None:
        assert self._loop is not None
        # WNOWAIT leaves a zombie: until close() nobody else can get this pid, so a
        # signal to what is left of the process group cannot hit a stranger.
        try:
            result = os.waitid(
                os.P_PIDFD, self._reports, os.WEXITED | os.WNOWAIT | os.WNOHANG
            )
            if result is None:
                # It is over, but a tracer (strace, gdb) is told first.
                self._loop.remove_reader(self._reports)
                self._loop.call_later(_TRACER_SECONDS, self._look)
                return
        except ChildProcessError:  # somebody else's waitpid(-1) was faster
            result = None
        self._loop.remove_reader(self._reports)
        if result is None:
            self._exited(Exit(255, 0))
        elif result.si_code == os.CLD_EXITED:
            self._exited(Exit(result.si_status, 0))
        else:
            core = result.si_code == os.CLD_DUMPED
            self._exited(Exit(0, result.si_status, core))

    def kill_all(self) -> None:
        """Kill the child's process group, and its cgroup, if it has one."""
        if self.group is not None:
            self.group.kill()
        try:
            os.killpg(self.pid, _KILL)
        except (ProcessLookupError, PermissionError):
            pass

    def end(self, gone_cb: Callable[[], object]) -> None:
        """Kill what is left of the child's process group."""
        self.kill_all()
        gone_cb()

    def close(self, wait: bool = True) -> None:
        """Kill what is left and reap."""
        if self.pid == 0:
            return
        self.kill_all()
        if self._reports >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._reports)
            os.close(self._reports)
            self._reports = -1
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self.pid = 0
        if self.group is not None:
            self.group.remove()


def start(
    file: str,
    args: Sequence[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    options: ProcessOptions,
    limits: Mapping[str, str],
    group: str,
) -> tuple[int, int, int]:
    """Return the child's pid, twice, and no reports. Raises OSError."""
    ids = options.cwd, options.uid, options.gid
    if ids == (None, None, None) and not limits and not group:
        pid = _posix_spawn(file, args, env, fds)
    else:
        pid = _fork_exec(file, args, env, fds, options, limits, group)
    return pid, pid, -1


def _posix_spawn(
    file: str, args: Sequence[str], env: Mapping[str, str], fds: Sequence[int]
) -> int:
    _keep_descriptors()
    # posix_spawn stops the monitor only until the exec, copies no page tables and
    # reports a failed exec as an error; glibc does it with CLONE_VFORK.
    actions = [(POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds, 1)]
    return os.posix_spawn(
        file,
        tuple(args),
        env,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_RESETTABLE,
    )


def _keep_descriptors() -> None:
    """Let no descriptor of ours go on to the child, but for 0 and those we give it."""
    try:
        open_now = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc: look where they usually are
        open_now = list(range(256))
    for fd in open_now:
        if fd >= IPC_FD:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # not open, or no longer
                pass


def _fork_exec(
    file: str,
    args: Sequence[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    options: ProcessOptions,
    limits: Mapping[str, str],
    group: str,
) -> int:
    """Do what posix_spawn cannot: change directory, user, cgroup and limits."""
    from forza._libc import libc

    prctl = libc("prctl")  # before the fork: it may have to be loaded
    readable, writable = map(above_stdio, os.pipe())  # closed by the exec
    monitor = os.getpid()
    try:
        pid = os.fork()
    except BaseException:
        os.close(readable)
        os.close(writable)
        raise
    if pid == 0:
        step = "fork"
        try:
            for step, act in _steps(file, args, env, fds, options, limits, group):
                act()
                if step == "user":  # a change of user forgets this, so it comes last
                    prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
                    if os.getppid() != monitor:
                        break
        except BaseException as error:
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(writable, f"{step} {number}".encode())
        finally:
            os._exit(127)
    os.close(writable)
    try:
        told = os.read(readable, 64).decode()
    finally:
        os.close(readable)
    if told:
        os.waitpid(pid, 0)
        step, _, number = told.partition(" ")
        raise StepError(int(number), os.strerror(int(number)), step)
    return pid


def _steps(
    file: str,
    args: Sequence[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    options: ProcessOptions,
    limits: Mapping[str, str],
    group: str,
) -> Iterator[tuple[str, Callable[[], object]]]:
    """Name what turns a fork of ours into the child, in the guard's order."""
    if options.cwd is not None:
        yield "cwd", lambda: os.chdir(options.cwd or "")
    yield "fork", os.setsid
    if group:
        yield "group", lambda: _join(group)
    yield "fork", lambda: _take_descriptors(fds)
    from forza._limits import take_on

    for name, text in limits.items():
        yield name, lambda name=name, text=text: take_on(name, text)  # type: ignore[misc]
    yield "user", lambda: _become(options.uid, options.gid)
    yield "exec", _reset_signals
    yield "exec", lambda: os.execve(file, tuple(args), env)


def _join(group: str) -> None:
    with open(f"{group}/cgroup.procs", "wb", 0) as file:
        file.write(b"0")


def _take_descriptors(fds: Sequence[int]) -> None:
    _keep_descriptors()
    for target, fd in enumerate(fds, 1):
        os.dup2(fd, target)


def _become(uid: int | None, gid: int | None) -> None:
    if uid is not None and os.geteuid() == 0:
        os.setgroups([])
    if gid is not None:
        os.setresgid(gid, gid, gid)
    if uid is not None:
        os.setresuid(uid, uid, uid)


def _reset_signals() -> None:
    for signum in _RESETTABLE:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
