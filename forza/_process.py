# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Spawn one child with libuv's semantics, signal it, and learn how it ended."""

from __future__ import annotations

import errno
import os
from fcntl import F_DUPFD_CLOEXEC, fcntl
from os import POSIX_SPAWN_DUP2

from forza._errors import SpawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence

    ExitCallback = Callable[["Exit"], object]

_F_SETPIPE_SZ = 1031
# The child may run this far ahead of the monitor before its write blocks. Four pages
# of sixteen apps fit in what the kernel grants a user without asking (64 MiB).
PIPE_BYTES = 256 * 1024
_IPC_FD = 3
_TRACER_SECONDS = 0.01
# Every classic signal but KILL and STOP, whose disposition nobody can set.
_RESETTABLE = tuple(n for n in range(1, 32) if n not in (9, 19))


class ProcessOptions:
    """Say what to run; the names are libuv's `uv_process_options_t`.

    `args` includes the program's own name, `env` of None is the monitor's own. `ipc`
    makes descriptor 3 node's IPC channel, else it is a plain pipe; None chooses.
    """

    __slots__ = ("args", "cwd", "env", "file", "gid", "ipc", "uid")

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        ipc: bool | None = None,
    ) -> None:
        self.file = args[0]
        self.args = tuple(args)
        self.env = env
        self.cwd = cwd
        self.uid = uid
        self.gid = gid
        # Only for node itself: any other program would hand the channel's environment
        # on to a node child of its own, whose descriptor 3 is something else, and
        # which aborts at its start for that.
        is_node = os.path.basename(self.file) in ("node", "nodejs")
        self.ipc = is_node if ipc is None else ipc


class Exit:
    """How a child ended: `exit_status`, or the `term_signal` that killed it, and
    whether it left a core."""

    __slots__ = ("core", "exit_status", "term_signal")

    def __init__(self, exit_status: int, term_signal: int, core: bool = False) -> None:
        self.exit_status = exit_status
        self.term_signal = term_signal
        self.core = core

    @property
    def code(self) -> int:
        """Both in one number, as a shell reports it: 128 + signal."""
        return 128 + self.term_signal if self.term_signal else self.exit_status

    def __repr__(self) -> str:
        return f"Exit(exit_status={self.exit_status}, term_signal={self.term_signal})"


class Process:
    """A running child: its pid, and the monitor's ends of descriptors 1, 2 and 3."""

    __slots__ = ("_loop", "_pidfd", "ended", "fds", "ipc", "pid")

    def __init__(self, pid: int, fds: Sequence[int], ipc: bool) -> None:
        self.pid = pid
        self.fds = tuple(fds)
        self.ipc = ipc
        self.ended: Exit | None = None
        self._pidfd = -1
        self._loop: AbstractEventLoop | None = None

    def watch(self, loop: AbstractEventLoop, exit_cb: ExitCallback) -> None:
        """Call `exit_cb` exactly once, when the child has ended."""
        self._loop = loop
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._exited, exit_cb)

    def _exited(self, exit_cb: ExitCallback) -> None:
        assert self._loop is not None
        # WNOWAIT leaves a zombie: until close() nobody else can get this pid, so a
        # signal to what is left of the process group cannot hit a stranger.
        try:
            result = os.waitid(
                os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG
            )
            if result is None:
                # It is over, but a tracer (strace, gdb) is told first.
                self._loop.remove_reader(self._pidfd)
                self._loop.call_later(_TRACER_SECONDS, self._exited, exit_cb)
                return
        except ChildProcessError:  # somebody else's waitpid(-1) was faster
            result = None
        self._loop.remove_reader(self._pidfd)
        if result is None:
            self.ended = Exit(255, 0)
        elif result.si_code == os.CLD_EXITED:
            self.ended = Exit(result.si_status, 0)
        else:
            self.ended = Exit(0, result.si_status, result.si_code == os.CLD_DUMPED)
        exit_cb(self.ended)

    def kill(self, signum: int) -> None:
        """Send a signal to the child's process group.

        Raises ProcessLookupError (ESRCH) once the child is gone, as `uv_kill`.
        """
        if self.ended is not None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        os.killpg(self.pid, signum)

    def close(self) -> None:
        """Reap the child and kill what is left of its process group."""
        if self.pid == 0:
            return
        try:
            os.killpg(self.pid, 9)
        except (ProcessLookupError, PermissionError):
            pass
        if self._pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        self.pid = 0

    def hand_over(self) -> str:
        """Describe the process for `adopt`, and let its descriptors survive an exec."""
        for fd in self.fds:
            os.set_inheritable(fd, True)
        return ":".join(map(str, (self.pid, *self.fds, int(self.ipc))))

    @classmethod
    def adopt(cls, described: str) -> Process:
        """Take over the child that this process spawned before it replaced itself."""
        pid, *fds, ipc = map(int, described.split(":"))
        for fd in fds:
            os.set_inheritable(fd, False)
        return cls(pid, fds, bool(ipc))


def spawn(options: ProcessOptions) -> Process:
    """Start the child, in a session of its own, and return once its exec has worked.

    stdin is inherited, 1, 2 and 3 go to the monitor, all signals are at their
    defaults, no other descriptor is open. Raises SpawnError, with libuv's errno.
    """
    env = dict(os.environ if options.env is None else options.env)
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for _ in range(2):
            _add_pipe(ours, theirs)
            _enlarge(ours[-1])
        if options.ipc:
            env["NODE_CHANNEL_FD"] = str(_IPC_FD)
            env["NODE_CHANNEL_SERIALIZATION_MODE"] = "json"
            _add_socketpair(ours, theirs)
        else:
            _add_pipe(ours, theirs)
        pid = _start(options, env, theirs)
    except BaseException as error:
        for fd in ours:
            os.close(fd)
        if isinstance(error, OSError):
            raise SpawnError(error.errno, _explain(options, error)) from error
        if isinstance(error, ValueError | TypeError):  # a NUL, or no string at all
            text = f"cannot run {options.file!r}: {error}"
            raise SpawnError(errno.EINVAL, text) from error
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in ours:
        os.set_blocking(fd, False)
    return Process(pid, ours, options.ipc)


def _enlarge(pipe: int) -> None:
    try:
        fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:  # over the user's share of pipe memory: a small one will do
        pass


def _add_pipe(ours: list[int], theirs: list[int]) -> None:
    # Real pipes, not socketpairs: a child may open /dev/stdout, which fails with
    # ENXIO on a socket.
    read, write = os.pipe()
    ours.append(_above_stdio(read))
    theirs.append(_above_stdio(write))


def _add_socketpair(ours: list[int], theirs: list[int]) -> None:
    from _socket import socketpair

    mine, its = socketpair()
    ours.append(_above_stdio(mine.detach()))
    theirs.append(_above_stdio(its.detach()))


def _above_stdio(fd: int) -> int:
    # If forza was started with 0, 1 or 2 closed, a pipe may get such a number, and
    # be overwritten when the child's own descriptors are put in place.
    if fd > _IPC_FD:
        return fd
    moved = fcntl(fd, F_DUPFD_CLOEXEC, _IPC_FD + 1)
    os.close(fd)
    return moved


def _start(options: ProcessOptions, env: dict[str, str], fds: list[int]) -> int:
    plain = (options.cwd, options.uid, options.gid) == (None, None, None)
    file = _find(options.file, env)
    args = list(options.args)
    try:
        if plain:
            return _posix_spawn(file, args, env, fds)
        return _fork_exec(file, args, env, fds, options)
    except OSError as error:
        # A script without a #! line: execvp, and so libuv, gives it to the shell.
        if error.errno != errno.ENOEXEC:
            raise
    args[:1] = ["/bin/sh", file]
    if plain:
        return _posix_spawn(args[0], args, env, fds)
    return _fork_exec(args[0], args, env, fds, options)


def _posix_spawn(
    file: str, args: list[str], env: dict[str, str], fds: list[int]
) -> int:
    _keep_descriptors()
    # posix_spawn stops the monitor only until the exec, copies no page tables and
    # reports a failed exec as an error; glibc does it with CLONE_VFORK.
    actions = [(POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds, 1)]
    return os.posix_spawn(
        file,
        args,
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
        if fd >= _IPC_FD:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # not open, or no longer
                pass


def _fork_exec(
    file: str,
    args: list[str],
    env: dict[str, str],
    fds: list[int],
    options: ProcessOptions,
) -> int:
    # posix_spawn cannot change directory or user. Only a library user gets here.
    from signal import SIG_DFL, SIG_SETMASK, pthread_sigmask, signal
    from subprocess import Popen

    def set_up() -> None:
        for target, fd in enumerate(fds, 1):
            os.dup2(fd, target)
        for signum in _RESETTABLE:
            signal(signum, SIG_DFL)
        pthread_sigmask(SIG_SETMASK, ())

    # Popen reports a failed exec on a pipe of its own, which must not become 3.
    placeholder = fcntl(fds[-1], F_DUPFD_CLOEXEC, _IPC_FD)
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
            pass_fds=(_IPC_FD,),
            preexec_fn=set_up,
        )
    finally:
        os.close(placeholder)
    child.returncode = 0  # The monitor reaps it, not Popen.
    return child.pid


def _find(file: str, env: Mapping[str, str]) -> str:
    """Look a program up in the child's PATH, as `execvp` would."""
    if "/" in file:
        return file
    denied = False
    for folder in env.get("PATH", os.defpath).split(":"):
        candidate = f"{folder or '.'}/{file}"
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        denied = denied or os.path.isfile(candidate)
    missing = errno.EACCES if denied else errno.ENOENT
    raise OSError(missing, os.strerror(missing))


def _explain(options: ProcessOptions, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if not options.file:
        return "cannot run '': a command must have a name"
    if error.errno == errno.ENOENT:
        if options.cwd is not None and not os.path.isdir(options.cwd):
            return f"cannot run {options.file} in {options.cwd}: {reason}"
        if "/" in options.file and os.path.exists(options.file):
            return f"cannot run {options.file}: the interpreter it names is missing"
        if "/" not in options.file:
            return f"cannot run {options.file}: command not found"
    return f"cannot run {options.file}: {reason}"
