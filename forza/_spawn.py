# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Spawn a child with libuv's semantics: its pipes, its program, what is in its way."""

from __future__ import annotations

import errno
import os
from stat import S_ISDIR

from forza import _guard
from forza._cgroup import make
from forza._errors import SpawnError
from forza._guard import IPC_FD, GuardError, StepError, above_stdio
from forza._oom import oom_kills
from forza._process import PIPE_BYTES, made

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forza._cgroup import Cgroup
    from forza._process import Process, ProcessOptions

    Ids = tuple[int, int, int]
    Start = Callable[..., Ids]

_F_SETPIPE_SZ = 1031
# What a step is called that sets a limit.
LIMITS = ("cpus", "nice", "core", "nofile", "data")


def spawn(options: ProcessOptions) -> Process:
    """Start the child, in a session of its own, and return once its exec has worked.

    A `job` is started in a process group of its own, in the terminal's foreground.

    stdin is inherited, 1, 2 and 3 go to the monitor, all signals are at their
    defaults, no other descriptor is open. Raises SpawnError, with libuv's errno.
    """
    env = dict(os.environ if options.env is None else options.env)
    ours: list[int] = []
    theirs: list[int] = []
    try:
        for _ in range(2):
            _add_pipe(ours, theirs)
        if options.ipc:
            env["NODE_CHANNEL_FD"] = str(IPC_FD)
            env["NODE_CHANNEL_SERIALIZATION_MODE"] = "json"
            _add_socketpair(ours, theirs)
        else:
            _add_pipe(ours, theirs)
        # Before the spawn: what is killed at once shall be counted, too.
        kills = oom_kills()
        group = make(options.limits.get("memory_hard"))
        try:
            ids, group = _start_in(group, options, env, theirs)
        except BaseException:
            if group is not None:
                group.remove()
            raise
    except BaseException as error:
        for fd in ours:
            os.close(fd)
        if isinstance(error, OSError):
            raise _explained(options, error) from error
        if isinstance(error, ValueError | TypeError):  # a NUL, or no string at all
            text = f"cannot run {options.file!r}: {error}"
            raise SpawnError(errno.EINVAL, text) from error
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    for fd in (*ours, ids[2]):
        if fd >= 0:
            os.set_blocking(fd, False)
    for fd in ours[:2]:  # only now: the child runs already
        _enlarge(fd)
    pid, child, reports = ids
    process = made(pid, ours, options.ipc, options.job, child, reports)
    process.oom_kills = kills
    process.group = group
    return process


def _enlarge(pipe: int) -> None:
    try:
        from fcntl import fcntl

        fcntl(pipe, _F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, OSError):  # over the user's share of pipe memory, say: a
        # small one will do
        pass


def _add_pipe(ours: list[int], theirs: list[int]) -> None:
    # Real pipes, not socketpairs: a child may open /dev/stdout, which fails with
    # ENXIO on a socket.
    read, write = os.pipe()
    ours.append(above_stdio(read))
    theirs.append(above_stdio(write))


def _add_socketpair(ours: list[int], theirs: list[int]) -> None:
    from _socket import socketpair

    mine, its = socketpair()
    ours.append(above_stdio(mine.detach()))
    theirs.append(above_stdio(its.detach()))


def _start_in(
    group: Cgroup | None,
    options: ProcessOptions,
    env: Mapping[str, str],
    fds: Sequence[int],
) -> tuple[Ids, Cgroup | None]:
    """Start the child in this cgroup, or in ours if it may not go there."""
    try:
        return _start(options, env, fds, group), group
    except StepError as error:
        if error.step != "group" or group is None:
            raise
    group.remove()
    return _start(options, env, fds, None), None


def _start(
    options: ProcessOptions,
    env: Mapping[str, str],
    fds: Sequence[int],
    group: Cgroup | None,
) -> Ids:
    """Return the pid, that of our own child, and where to read the guard's reports."""
    limits: Mapping[str, str] = {}
    if options.limits:
        from forza._limits import for_child

        limits = for_child(options.limits, data=group is None or not group.limited)
    path = "" if group is None else group.path
    try:
        return _run(_guard.start, options, env, fds, limits, path)
    except GuardError:
        from forza._direct import start

        options.job = False
        return _run(start, options, env, fds, limits, path)


def _run(
    start: Start,
    options: ProcessOptions,
    env: Mapping[str, str],
    fds: Sequence[int],
    limits: Mapping[str, str],
    group: str,
) -> Ids:
    file = _find(options.file, env)
    args = options.args
    try:
        return start(file, args, env, fds, options, limits, group)
    except OSError as error:
        # A script without a #! line: execvp, and so libuv, gives it to the shell.
        if error.errno != errno.ENOEXEC:
            raise
    shell = "/bin/sh", file, *args[1:]
    return start("/bin/sh", shell, env, fds, options, limits, group)


def _find(file: str, env: Mapping[str, str]) -> str:
    """Look a program up in the child's PATH, as `execvp` would."""
    if "/" in file:
        return file
    denied = False
    for folder in env.get("PATH", os.defpath).split(":"):
        candidate = f"{folder or '.'}/{file}"
        # By what counts for exec, capabilities included.
        may = os.access(candidate, os.X_OK, effective_ids=True)
        if may and not os.path.isdir(candidate):
            return candidate
        denied = denied or os.path.isfile(candidate)
    missing = errno.EACCES if denied else errno.ENOENT
    raise OSError(missing, os.strerror(missing))


def look_up(file: str, env: Mapping[str, str], cwd: str | None) -> str:
    """Return where a program is that could be run from there. Raises SpawnError."""
    from forza._process import ProcessOptions

    step = "exec"
    try:
        place = os.path.join(cwd or "", _find(file, env))
        if cwd is not None:
            step = "cwd"
            os.stat(os.path.join(cwd, ""))
            step = "exec"
        mode = os.stat(place).st_mode
        if S_ISDIR(mode) or not mode & 0o111:  # for whom else, exec will tell
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        failed = StepError(error.errno or 0, error.strerror or "", step)
        raise _explained(ProcessOptions([file], cwd=cwd), failed) from error
    return place


def _explained(options: ProcessOptions, error: OSError) -> SpawnError:
    step = error.step if isinstance(error, StepError) else "exec"
    if step in LIMITS:
        from forza._limits import refused

        return refused(step, options.limits, error)
    explained = SpawnError(error.errno, _explain(options, error, step))
    explained.step = step
    return explained


def _explain(options: ProcessOptions, error: OSError, step: str) -> str:
    reason = (error.strerror or str(error)).lower()
    if not options.file:
        return "cannot run '': a command must have a name"
    if step == "cwd":
        return f"cannot run {options.file} in {options.cwd}: {reason}"
    if step == "user":
        user = f"user {options.uid}" if options.uid is not None else ""
        group = f"group {options.gid}" if options.gid is not None else ""
        who = " and ".join(filter(None, (user, group)))
        return f"cannot run {options.file} as {who}: {reason}"
    if error.errno == errno.ENOENT:
        if "/" in options.file and os.path.exists(options.file):
            return f"cannot run {options.file}: the interpreter it names is missing"
        if "/" not in options.file:
            return f"cannot run {options.file}: command not found"
    return f"cannot run {options.file}: {reason}"
