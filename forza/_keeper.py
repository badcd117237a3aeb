# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep one monitor, or any command, running: start it again when it has ended.

The keeper has no loop and no thread. It sleeps in sigtimedwait, so a signal cannot
come at a bad moment: there is none.

It loads the lean runtime itself and forks its monitors. Both then share nearly all of
their pages, which is less in sum than the smallest possible keeper beside a monitor
that has loaded everything once more; and a restart takes no loading.
"""

from __future__ import annotations

import gc
import os
import sys
from errno import ENOENT
from time import monotonic

from forza._errors import EXIT_SETUP
from forza._lean import _libc, settle
from forza._program import (
    block_signals,
    leave,
    load_runtime,
    open_stdio,
    spawn_early,
)
from forza._stage import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any, NoReturn

    from forza._program import Runtime
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

EXIT_PREMATURE = 2
_DELAY_FIRST = 1.0
_DELAY_MOST = 30.0
# After this long without an end, an app is healthy, and the next delay the first.
_STABLE = 60.0
_GRACE = 5.0
# A monitor has its own grace; only one that hangs shall meet ours, so much later.
_SLACK = 5.0
_FOREVER = 86400.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_THP_DISABLE = 41
_PR_GET_THP_DISABLE = 42
_SI_KERNEL = 128
_WATCHED = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)


def keep(
    args: tuple[str, ...], settings: dict[str, Any] | None, options: dict[str, Any]
) -> NoReturn:
    """Run the keeper, and leave.

    `settings` are Monitor's arguments, or None if `args` is a command of its own.
    `options`: `stdout`, `stderr`, `stdin` and `pidfile` (paths), `json` (the pidfile
    is JSON), `min_uptime` (seconds).
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    # Where whoever started us ignores it, so would we, and children vanish untold.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    open_stdio()
    try:
        code = _Keeper(args, settings, options).run()
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        say(f"cannot go on: {error.strerror}{where}")
        code = EXIT_SETUP
    os._exit(code)


def say(text: str) -> None:
    """Write a line to stderr."""
    try:
        os.write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        pass


class _Keeper:
    def __init__(
        self,
        args: tuple[str, ...],
        settings: dict[str, Any] | None,
        options: dict[str, Any],
    ) -> None:
        self._state = args, settings, options
        self._args = args
        self._settings = settings
        self._pidfile: str | None = options.get("pidfile")
        self._json: bool = options.get("json", False)
        self._min_uptime: float = options.get("min_uptime", 0.0)
        self._begun: float = options.setdefault("begun", monotonic())
        self._failures: int = options.get("failures", 0)
        self._streams = _open_streams(options)
        self._version = _installed()
        self._pid = 0
        self._stopping = False
        self._restarting = False
        self._runtime: Runtime | None = None
        self._huge_pages_off: int = options.setdefault(
            "huge_pages_off", _prctl(_PR_GET_THP_DISABLE, 0)
        )
        self._grace = _GRACE
        if settings is not None:
            grace = settings.get("grace", 10.0) + settings.get("flush_timeout", 5.0)
            self._grace = grace + _SLACK
            self._load()

    def _load(self) -> None:
        """Load all that a monitor needs, once, before the first is forked."""
        self._runtime = load_runtime()
        from forza._monitor import Monitor  # noqa: F401
        from forza.plugins import BUILT_IN, find
        from forza.sinks import check, file, tcp  # noqa: F401

        for name in BUILT_IN:
            find(name)
        if self._runtime[1]:
            settle(None)
        gc.freeze()  # a collection in a monitor must not unshare these pages

    def run(self) -> int:
        """Start, wait and start again until told to end; return the exit status."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        while not self._stopping:
            started = monotonic()
            code = self._run_once()
            if self._stopping:
                break
            if self._restarting:
                self._restarting = False
                self._failures = 0
                self._renew()
                continue
            if monotonic() - self._begun < self._min_uptime:
                say(f"Child exited prematurely with {abs(code)}, exiting.")
                self._remove_pidfile()
                return EXIT_PREMATURE
            if code < 0:
                say(f"Child killed by signal {-code}, restarting.")
            else:
                say(f"Child exited with {code}, restarting.")
            if monotonic() - started >= _STABLE:
                self._failures = 0
            self._pause()
            self._failures += 1
            self._renew()
        self._remove_pidfile()
        return 0

    def _run_once(self) -> int:
        """Run one child to its end; return its exit code, or minus its signal."""
        try:
            self._pid = self._spawn()
        except OSError as error:
            say(f"cannot run {self._args[0]}: {(error.strerror or '').lower()}")
            return 127 if error.errno == ENOENT else 126
        self._write_pidfile()
        status = self._wait()
        self._end_orphans()
        return os.waitstatus_to_exitcode(status)

    def _spawn(self) -> int:
        """Fork, and run the monitor, or the command, in the child; return its pid."""
        readable, writable = os.pipe()  # closed by exec, or told what is in its way
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            # Whatever happens, there must not be two keepers.
            try:
                os.close(readable)
                self._be_child(keeper, writable)
            except OSError as error:
                os.write(writable, str(error.errno).encode())
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

    def _be_child(self, keeper: int, writable: int) -> NoReturn:
        for target, fd in self._streams:
            os.dup2(fd, target)
        # posix_spawn knows no parent-death signal, which is why we fork.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper:  # it died before we asked to be told
            os._exit(EXIT_SETUP)
        if self._settings is None:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvp(self._args[0], self._args)
        os.close(writable)
        # Settled, the keeper has no huge pages; that is not for the app to inherit.
        _prctl(_PR_SET_THP_DISABLE, self._huge_pages_off)
        block_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        process = spawn_early(self._args, self._settings)
        child = process.hand_over() if process is not None else None
        leave(self._args, self._settings, child, self._runtime)

    def _wait(self) -> int:
        """Wait until the child has ended, by itself or because we were told to end it;
        return its wait status."""
        deadline = None  # until SIGKILL, once it has been asked to end
        while True:
            left = deadline - monotonic() if deadline is not None else _FOREVER
            got = signal.sigtimedwait(_WATCHED, max(0.0, left))
            if got is None:
                if deadline is not None:
                    self._signal(signal.SIGKILL)
                    deadline = None
            elif got.si_signo == signal.SIGCHLD:
                status = self._reap()
                if status is not None:
                    return status
            elif got.si_signo != signal.SIGHUP:
                if got.si_signo == signal.SIGUSR1:
                    self._restarting = True
                else:
                    self._stopping = True
                # Said twice, it makes a monitor hurry; a terminal's ^C has told it.
                if self._settings is None or got.si_code != _SI_KERNEL:
                    self._signal(signal.SIGTERM)
                deadline = deadline or monotonic() + self._grace

    def _signal(self, signum: int) -> None:
        try:
            os.kill(self._pid, signum)
        except PermissionError:  # it has become another user
            pass

    def _reap(self) -> int | None:
        """Reap whoever has ended; return the child's status if it is among them."""
        found = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == self._pid:
                found = status

    def _end_orphans(self) -> None:
        """Kill what the child has left behind, which is now ours to reap."""
        spared: set[int] = set()
        for _ in range(100):  # each may have children of its own, which come next
            orphans = [pid for pid in _children() if pid not in spared]
            if not orphans:
                return
            for pid in orphans:
                try:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                except PermissionError:  # another user's, by a setuid program
                    spared.add(pid)

    def _pause(self) -> None:
        """Wait before the next start, unless told otherwise."""
        delay = min(_DELAY_MOST, _DELAY_FIRST * 2 ** min(self._failures, 10))
        deadline = monotonic() + delay * (1 + 0.1 * os.urandom(1)[0] / 255)
        while (left := deadline - monotonic()) > 0:
            got = signal.sigtimedwait(_WATCHED, left)
            if got is not None and got.si_signo in (signal.SIGTERM, signal.SIGINT):
                self._stopping = True
                return
            if got is not None and got.si_signo == signal.SIGUSR1:
                self._failures = -1
                return

    def _renew(self) -> None:
        """If another version was installed meanwhile, become that."""
        installed = _installed()
        if installed is None or installed == self._version:
            return
        if not self._is_sound():  # half installed, perhaps: ask again next time
            say("The installed version of forza does not start, going on with the old.")
            return
        args, settings, options = self._state
        options["failures"] = self._failures
        replace("keeper", args, settings, options)
        self._version = installed  # what was started as plain stays what it is

    def _is_sound(self) -> bool:
        """Whether what is installed now can be imported; the keeper must not die."""
        program = f"import sys; sys.path[:0] = {sys.path!r}; import "
        modules = "forza._keeper, forza._monitor, forza.plugins, forza.sinks.tcp"
        pid = os.posix_spawn(
            sys.executable,
            (sys.executable, "-I", "-S", "-c", program + modules),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_RDWR, 0)],
        )
        return os.waitpid(pid, 0)[1] == 0

    def _write_pidfile(self) -> None:
        if self._pidfile is None:
            return
        text = f'{{"pid": {self._pid}}}' if self._json else str(self._pid)
        made = f"{self._pidfile}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            fd = os.open(made, flags, 0o660)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
            os.rename(made, self._pidfile)
        except OSError as error:  # a full disk is no reason to stop the app
            reason = (error.strerror or "").lower()
            say(f"cannot write {self._pidfile}: {reason}")
            _remove(made)
            self._remove_pidfile()  # rather none than that of a pid of before

    def _remove_pidfile(self) -> None:
        if self._pidfile is not None:
            _remove(self._pidfile)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _open_streams(options: dict[str, Any]) -> list[tuple[int, int]]:
    """Open what the child's descriptors 0, 1 and 2 shall be, where that is not ours."""
    append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    opened: dict[int, int] = {}
    for target, name, flags in (
        (0, "stdin", os.O_RDONLY),
        (1, "stdout", append),
        (2, "stderr", append),
    ):
        if path := options.get(name):
            opened[target] = os.open(path, flags | os.O_CLOEXEC, 0o660)
    if 1 in opened:
        opened.setdefault(2, opened[1])
    return list(opened.items())


def _prctl(option: int, value: int) -> int:
    try:
        return max(0, _libc("prctl")(option, value, 0, 0, 0))
    except (ImportError, AttributeError, OSError):  # not this C library
        return 0


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", 0) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _installed() -> tuple[int, int] | None:
    """Tell one installed version from another: an upgrade writes this file anew."""
    from forza import _version

    try:
        found = os.stat(_version.__file__)
    except OSError:  # just being replaced
        return None
    return found.st_ino, found.st_mtime_ns
