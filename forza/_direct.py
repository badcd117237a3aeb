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
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import POSIX_SPAWN_DUP2

from forza._guard import IPC_FD, StepError
from forza._process import Exit, Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence

    from forza._process import ExitCallback, ProcessOptions

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
        """Kill the child's process group."""
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


def start(
    file: str,
    args: Sequence[str],
    env: Mapping[str, str],
    fds: Sequence[int],
    options: ProcessOptions,
) -> tuple[int, int, int]:
    """Return the child's pid, twice, and no reports. Raises OSError."""
    if (options.cwd, options.uid, options.gid) == (None, None, None):
        pid = _posix_spawn(file, args, env, fds)
    else:
        pid = _fork_exec(file, args, env, fds, options)
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
) -> int:
    # posix_spawn cannot change directory or user. Only a library user gets here.
    from signal import SIG_DFL, SIG_SETMASK, pthread_sigmask, signal
    from subprocess import Popen

    from forza._lean import _libc

    prctl = _libc("prctl")
    monitor = os.getpid()

    def set_up() -> None:
        # Called after the change of user, which would forget it.
        prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
        if os.getppid() != monitor:
            os._exit(127)
        for target, fd in enumerate(fds, 1):
            os.dup2(fd, target)
        for signum in _RESETTABLE:
            signal(signum, SIG_DFL)
        pthread_sigmask(SIG_SETMASK, ())

    # Popen reports a failed exec on a pipe of its own, which must not become 3.
    placeholder = fcntl(fds[-1], F_DUPFD_CLOEXEC, IPC_FD)
    try:
        child = Popen(
            args,
            executable=file,
            env=env,
            cwd=options.cwd,
            user=options.uid,
            group=options.gid,
            extra_groups=[] if options.uid is not None and os.getuid() == 0 else None,
            start_new_session=True,
            pass_fds=(IPC_FD,),
            preexec_fn=set_up,
        )
    except OSError as error:
        step = "exec"
        if error.filename is not None and error.filename == options.cwd:
            step = "cwd"
        elif error.errno in (errno.EPERM, errno.EINVAL) and options.uid is not None:
            step = "user"
        number = error.errno or errno.EINVAL
        raise StepError(number, os.strerror(number), step) from error
    finally:
        os.close(placeholder)
    child.returncode = 0  # The monitor reaps it, not Popen.
    return child.pid
