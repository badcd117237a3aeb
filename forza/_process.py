# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Signal a child, with libuv's semantics, and learn how it ended.

Between the child and us stands the guard, a tiny program that holds the child's whole
tree together and ends it when we end, however we do (_native/guard.c). Where it could
not be built, `_direct.py` takes its place.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from forza._cgroup import Cgroup

    ExitCallback = Callable[["Exit"], object]
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

# The child may run this far ahead of the monitor before its write blocks. Four pages
# of sixteen apps fit in what the kernel grants a user without asking (64 MiB).
PIPE_BYTES = 256 * 1024

_TERM, _KILL, _USR1, _CONT = 15, 9, 10, 18
# The guard has told of the child's end by then, whatever else the machine does.
_REPORTED = 10.0
_LOOKS, _MOMENT = 50, 0.01
REPORT_BYTES = 16
# What it is called when nobody has told how the child ended.
_UNKNOWN = 255
# So many numbers describe a process, and perhaps the path of its cgroup.
_HANDED_OVER = 10
# Other names of the same numbers.
_ALIASES = ("SIGIOT", "SIGCLD", "SIGPOLL")


class ProcessOptions:
    """Say what to run; the names are libuv's `uv_process_options_t`.

    `args` includes the program's own name, `env` of None is the monitor's own. `ipc`
    makes descriptor 3 node's IPC channel, else it is a plain pipe; None chooses. `job`
    makes the app the foreground job of our terminal, not the head of a new session.
    `limits` are `nofile`, `core`, `nice` and `cpus`, as Monitor takes them.
    """

    __slots__ = ("args", "cwd", "env", "file", "gid", "ipc", "job", "limits", "uid")

    def __init__(
        self,
        args: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        ipc: bool | None = None,
        job: bool = False,
        limits: Mapping[str, Any] | None = None,
    ) -> None:
        self.file = args[0]
        self.args = tuple(args)
        self.env = env
        self.cwd = cwd
        self.uid = uid
        self.gid = gid
        self.job = job
        self.limits = limits or {}
        # Only for node itself: any other program would hand the channel's environment
        # on to a node child of its own, whose descriptor 3 is something else, and
        # which aborts at its start for that.
        is_node = os.path.basename(self.file) in ("node", "nodejs")
        self.ipc = is_node if ipc is None else ipc


class Exit:
    """How a child ended: `exit_status`, or the `term_signal` that killed it, whether
    it left a core, and the `reason` in a word: `exit`, `signal:KILL`, `oom`..."""

    __slots__ = ("core", "exit_status", "reason", "term_signal")

    def __init__(
        self,
        exit_status: int,
        term_signal: int,
        core: bool = False,
        reason: str | None = None,
    ) -> None:
        self.exit_status = exit_status
        self.term_signal = term_signal
        self.core = core
        if reason is None:
            killer = signal_name(term_signal).removeprefix("SIG") if term_signal else ""
            reason = f"signal:{killer}" if killer else "exit"
        self.reason = reason

    @property
    def code(self) -> int:
        """Both in one number, as a shell reports it: 128 + signal."""
        return 128 + self.term_signal if self.term_signal else self.exit_status

    def __repr__(self) -> str:
        return f"Exit(exit_status={self.exit_status}, term_signal={self.term_signal})"


class Process:
    """A running child: its pid, and the monitor's ends of descriptors 1, 2 and 3."""

    # `child` is the process that is ours to reap: the guard.
    __slots__ = (
        *("_exit_cb", "_gone_cb", "_late", "_loop", "_pidfd", "_reports", "child"),
        *("ended", "fds", "ipc"),
        *("adopts", "group", "job", "lost", "oom_kills", "pid", "stop_cb"),
    )

    def __init__(
        self,
        pid: int,
        fds: Sequence[int],
        ipc: bool,
        *,
        job: bool = False,
        child: int = 0,
        reports: int = -1,
    ) -> None:
        self.pid = pid
        self.fds = tuple(fds)
        self.ipc = ipc
        self.job = job
        self.child = child
        self._reports = reports
        self.ended: Exit | None = None
        # Nobody has held the tree together: there may be more of the app.
        self.lost = False
        # Whatever loses its parents to this process can only be the app's.
        self.adopts = False
        # The app's own cgroup, and how many the kernel had killed before it was there.
        self.group: Cgroup | None = None
        self.oom_kills = -1
        self.stop_cb: Callable[[], object] | None = None
        self._exit_cb: ExitCallback | None = None
        self._gone_cb: Callable[[], object] | None = None
        self._loop: AbstractEventLoop | None = None
        self._pidfd = -1
        self._late: TimerHandle | None = None

    @property
    def top(self) -> int:
        """The process that all of the app descends from: the guard, if there is one."""
        return self.child or self.pid

    def family(self) -> list[int]:
        """Return the pids of the app's processes. Raises OSError if those can't be
        seen."""
        from forza._proc import pids

        top = self.top
        return [pid for pid in pids(top) if pid == self.pid or pid != top]

    def watch(self, loop: AbstractEventLoop, exit_cb: ExitCallback) -> None:
        """Call `exit_cb` exactly once, when the child has ended."""
        self._loop = loop
        self._exit_cb = exit_cb
        loop.add_reader(self._reports, self._read)
        # The guard leaves a zombie: this is no stranger's.
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._child_gone)

    def _read(self) -> None:
        what, number = parse_report(os.read(self._reports, REPORT_BYTES))
        if what == "stopped":
            if self.stop_cb is not None:
                self.stop_cb()
        elif what:
            exited = what == "exited"
            core = what == "dumped"
            self._exited(Exit(number, 0) if exited else Exit(0, number, core))
        else:
            self._guard_gone()

    def _child_gone(self) -> None:
        """The guard is about to say how, unless the child has stopped it: they may be
        of one user."""
        assert self._loop is not None
        self._forget_child()
        if self.ended is None and self._reports >= 0:
            self._tell_guard(_CONT)
            self._late = self._loop.call_later(_REPORTED, self._unreported)

    def _unreported(self) -> None:
        if self.ended is None:
            self._exited(Exit(_UNKNOWN, 0))

    def _forget_child(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._pidfd >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _guard_gone(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._reports)
        os.close(self._reports)
        self._reports = -1
        if self._gone_cb is not None:
            self._gone_cb()
        else:
            self.lost = True  # somebody has killed the guard
        if self.ended is None:
            # Its death is the child's, at once and by the kernel, unless the child has
            # seen to it that it is not.
            if self._pidfd >= 0:
                try:
                    signal.pidfd_send_signal(self._pidfd, _KILL)
                except OSError:
                    pass
            self._exited(Exit(0, _KILL))

    def _exited(self, exit: Exit) -> None:
        assert self._exit_cb is not None
        self.ended = exit
        self._exit_cb(exit)

    def kill(self, signum: int) -> None:
        """Send a signal to the child's process group.

        Raises ProcessLookupError (ESRCH) once the child is gone, as `uv_kill`.
        """
        # The guard leaves a zombie until close(): nobody else can get this pid.
        if self.ended is not None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        os.killpg(self.pid, signum)

    def kill_all(self) -> None:
        """Kill the child and all its descendants, whatever their group or session."""
        self._tell_guard(_USR1)

    def end(self, gone_cb: Callable[[], object]) -> None:
        """Kill whatever is left of the child's tree; call back when nothing is."""
        if self._reports < 0 or self._loop is None:
            if self.group is not None:
                self.group.kill()
            gone_cb()
        else:
            self._gone_cb = gone_cb
            self._tell_guard(_TERM)

    def close(self, wait: bool = True) -> None:
        """Kill what is left and reap; without `wait`, only if it is over already."""
        if self.pid == 0:
            return
        self._forget_child()
        self._tell_guard(_TERM)
        if not wait and self._is_held():
            # Its death is the child's, and others come to us, if we are a subreaper.
            self.lost = True
            os.kill(self.child, _KILL)
            wait = True
        if self._reports >= 0:
            if self._loop is not None:
                self._loop.remove_reader(self._reports)
            os.close(self._reports)
            self._reports = -1
        for pid in (self.child, self.pid):  # the guard's is ours, if that was killed
            try:
                os.waitpid(pid, 0 if wait and pid == self.child else os.WNOHANG)
            except ChildProcessError:
                pass
        self.pid = 0
        if self.group is not None:
            self.group.remove()

    def _is_held(self) -> bool:
        """Tell whether somebody stops the guard again and again."""
        from time import sleep

        from forza._files import attempt

        # Whoever does may have to wait for a processor, until which the guard works.
        for _ in range(_LOOKS):
            state = attempt(f"/proc/{self.child}/stat").rpartition(b") ")[2][:1]
            if state in (b"T", b"t"):
                return True
            if state in (b"Z", b""):
                return False
            sleep(_MOMENT)
        return False

    def _tell_guard(self, signum: int) -> None:
        if self._reports < 0:
            return
        try:
            os.kill(self.child, signum)
            os.kill(self.child, _CONT)  # lest somebody has stopped it
        except ProcessLookupError:
            pass

    def hand_over(self) -> str:
        """Describe the process for `adopt`, and let its descriptors survive an exec."""
        kept = [fd for fd in (self._reports, *self.fds) if fd >= 0]
        for fd in kept:
            os.set_inheritable(fd, True)
        flags = self.ipc, self.job, self.adopts
        numbers = (self.pid, self.child, self._reports, *self.fds, *flags)
        words = [str(int(number)) for number in (*numbers, self.oom_kills)]
        if self.group is not None:
            words += [str(int(self.group.limited)), self.group.path]
        return ":".join(words)

    @classmethod
    def adopt(cls, described: str) -> Process:
        """Take over the child that this process spawned before it replaced itself."""
        words = described.split(":", _HANDED_OVER)
        pid, child, reports, *fds, ipc, job, adopts, kills = map(
            int, words[:_HANDED_OVER]
        )
        for fd in (reports, *fds):
            if fd >= 0:
                os.set_inheritable(fd, False)
        process = made(pid, fds, bool(ipc), bool(job), child, reports)
        process.adopts = bool(adopts)
        process.oom_kills = kills
        if words[_HANDED_OVER:]:
            from forza._cgroup import Cgroup

            limited, _, path = words[_HANDED_OVER].partition(":")
            process.group = Cgroup(path, limited=limited == "1")
        return process


def made(
    pid: int, fds: Sequence[int], ipc: bool, job: bool, child: int, reports: int
) -> Process:
    """Return the process of that pid, which is our own child or the guard's."""
    if pid != child:
        return Process(pid, fds, ipc, job=job, child=child, reports=reports)
    from forza._direct import Direct

    return Direct(pid, fds, ipc, child=child)


def parse_report(data: bytes) -> tuple[str, int]:
    """Return what a report of the guard's says, and a number. Empty: it is gone."""
    what, _, number = data.decode().partition(" ")
    return what, int(number or 0)


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15, and something as telling for what has no name."""
    # Nothing may be imported here: the app may have died because disk, memory or
    # descriptors are gone, and just then its exit must be told.
    for known, value in vars(signal).items():
        if (
            value == number
            and known[:3] == "SIG"
            and known[3] != "_"
            and known not in _ALIASES
        ):
            return known
    return f"SIG{number}"
