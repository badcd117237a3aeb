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
from errno import ENOENT
from time import monotonic

from forza._errors import EXIT_SETUP
from forza._lean import _libc, settle
from forza._program import leave, load_runtime, spawn_early
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
_FOREVER = 86400.0
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
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
        self._grace = _GRACE
        if settings is not None:
            self._grace = settings.get("grace", 10.0) + settings.get(
                "flush_timeout", 5.0
            )
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
            self._pid = self._spawn() if self._settings is None else self._fork()
        except OSError as error:
            say(f"cannot run {self._args[0]}: {(error.strerror or '').lower()}")
            return 127 if error.errno == ENOENT else 126
        self._write_pidfile()
        status = self._wait()
        self._end_orphans()
        return os.waitstatus_to_exitcode(status)

    def _fork(self) -> int:
        keeper = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        assert self._settings is not None
        for target, fd in self._streams:
            os.dup2(fd, target)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper:  # it died before we asked to be told
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGUSR1))
        process = spawn_early(self._args, self._settings)
        child = process.hand_over() if process is not None else None
        leave(self._args, self._settings, child, self._runtime)

    def _spawn(self) -> int:
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in self._streams]
        return os.posix_spawnp(
            self._args[0],
            self._args,
            os.environ,
            file_actions=actions,
            setsigmask=(),
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
        )

    def _wait(self) -> int:
        """Wait until the child has ended, by itself or because we were told to end it;
        return its wait status."""
        deadline = None  # until SIGKILL, once it has been asked to end
        while True:
            left = deadline - monotonic() if deadline is not None else _FOREVER
            got = signal.sigtimedwait(_WATCHED, max(0.0, left))
            if got is None:
                if deadline is not None:
                    os.kill(self._pid, signal.SIGKILL)
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
                # Said again, it makes a monitor hurry.
                os.kill(self._pid, signal.SIGTERM)
                deadline = deadline or monotonic() + self._grace

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
        for _ in range(100):  # each may have children of its own, which come next
            orphans = _children()
            if not orphans:
                return
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

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
        if self._settings is not None and _installed() != self._version:
            args, settings, options = self._state
            options["failures"] = self._failures
            for _, fd in self._streams:
                os.close(fd)
            replace("keeper", args, settings, options)

    def _write_pidfile(self) -> None:
        if self._pidfile is None:
            return
        text = f'{{"pid": {self._pid}}}' if self._json else str(self._pid)
        made = f"{self._pidfile}.{os.getpid()}"
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
        os.rename(made, self._pidfile)

    def _remove_pidfile(self) -> None:
        if self._pidfile is not None:
            try:
                os.unlink(self._pidfile)
            except FileNotFoundError:
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


def _prctl(option: int, value: int) -> None:
    try:
        _libc("prctl")(option, value, 0, 0, 0)
    except (ImportError, AttributeError, OSError):  # not this C library
        pass


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb", 0) as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _installed() -> tuple[int, int]:
    """Tell one installed version from another: an upgrade writes this file anew."""
    from forza import _version

    try:
        found = os.stat(_version.__file__)
    except OSError:  # just being replaced
        return 0, 0
    return found.st_ino, found.st_mtime_ns
