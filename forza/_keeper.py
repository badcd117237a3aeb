# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep one monitor, or any command, running: start it again when it has ended.

The keeper is a state machine that is asleep between two events, as another program
(see _sleep.py), and knows then only what `vars(keeper)` has. Signals stay blocked
throughout, so none can come at a bad moment: there is none.
"""

from __future__ import annotations

import os
from errno import EAGAIN, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC
from time import monotonic, time

from forza import _offspring, _state
from forza._errors import EXIT_SETUP
from forza._policy import Policy, patience
from forza._sleep import TIMED_OUT, WATCHED, sleep, woken
from forza._stage import describe
from forza._upward import VARIABLE, notify

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from typing import Any, NoReturn
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

EXIT_PREMATURE = 2
_SI_KERNEL = 128
# A start that fails for these says nothing about what is to be started.
_SCARCE = (EAGAIN, ENOMEM, EMFILE, ENFILE, ENOSPC)

# What is said in the app's stream of a crash loop: 1, and 0 when it is resumed.
PARKED_SERVICE = "health/process/parked"

# What a keeper is doing; also the words of its state file.
RUNNING = "running"
STOPPING = "stopping"
RESTARTING = "restarting"
PAUSING = "pausing"
PARKED = "parked"
# And what it has done when it is no more: was told to, or had no reason to go on.
STOPPED = "stopped"
ENDED = "ended"


def keep(
    args: tuple[str, ...], settings: dict[str, Any] | None, options: dict[str, Any]
) -> NoReturn:
    """Run the keeper, and leave.

    `settings` are Monitor's arguments, or None if `args` is a command of its own.
    `options`: `stdout`, `stderr`, `stdin`, `pidfile` and `state` (paths), `lock` (the
    descriptor that holds the state file), `json` (the pidfile is JSON), `min_uptime`
    (seconds), and what Policy understands.
    """
    from forza._start import open_stdio

    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    # Where whoever started us ignores it, so would we, and children vanish untold.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    open_stdio()
    try:
        keeper = Keeper(args, settings, options, _open_streams(options))
    except OSError as error:
        say(f"cannot go on: {error.strerror} {error.filename}")
        os._exit(EXIT_SETUP)
    _offspring.adopt()
    keeper.start()
    keeper.go_on()


def resume(life: Mapping[str, Any]) -> NoReturn:
    """Be the keeper again that has fallen asleep with this life."""
    event = woken()
    if event is None:
        _try(life["settings"] is not None)
    keeper = Keeper.__new__(Keeper)
    vars(keeper).update(life)
    keeper.heed(*event)
    keeper.go_on()


def _try(for_forza: bool) -> NoReturn:
    """Load what a keeper and its monitors load, and see whether that works."""
    if for_forza:
        from forza import _monitor, _program, _start  # noqa: F401
        from forza.plugins import BUILT_IN, find
        from forza.ready import before, port  # noqa: F401
        from forza.sinks import file, tcp  # noqa: F401

        for name in BUILT_IN:
            find(name)
    os._exit(0)


def say(text: str) -> None:
    """Write a line to stderr."""
    try:
        os.write(2, f"{text}\n".encode(errors="replace"))
    except OSError:
        pass


class Keeper:
    """What a keeper knows, and what it does about an event."""

    def __init__(
        self,
        args: tuple[str, ...],
        settings: dict[str, Any] | None,
        options: dict[str, Any],
        streams: tuple[tuple[int, int], ...],
    ) -> None:
        self.args = args
        self.settings = settings
        self.options = options
        self.streams = streams
        self.phase = RUNNING
        self.since = time()
        self.child = 0
        self.begun = self.started = monotonic()
        self.deadline: float | None = None
        self.starts = 0
        self.failures = 0
        self.ends: tuple[float, ...] = ()
        self.last: dict[str, object] | None = None
        self.reason = ""

    def go_on(self) -> NoReturn:
        """Sleep, and do what an event asks for, until there is nothing to keep."""
        while True:
            self._tell()
            self._hand_on(True)
            state = describe("keeper", vars(self))
            event = sleep(state, self.child, self.deadline)
            self._hand_on(False)
            self.heed(*event)

    def heed(self, signum: int, code: int) -> None:
        """Do what an event asks for: a signal, or TIMED_OUT."""
        self._hand_on(False)
        ending = signum in (signal.SIGTERM, signal.SIGINT)
        if self.child:
            if signum == signal.SIGCHLD:
                status = _offspring.reap(self.child)
                if status is not None:
                    self._ended(os.waitstatus_to_exitcode(status))
            elif signum == TIMED_OUT:
                _offspring.send(self.child, signal.SIGKILL)
                self.deadline = None
            elif ending or signum == signal.SIGUSR1:
                self._end_child(STOPPING if ending else RESTARTING, code)
        elif ending:
            self._leave(STOPPED, 0)
        elif signum in (signal.SIGUSR1, signal.SIGUSR2):
            if self.phase == PARKED and self.settings is not None:
                self.settings["news"] = (PARKED_SERVICE, 0.0, "resumed", {})
            self._forget()
            self.start()
        elif signum == TIMED_OUT:
            self.start()

    def start(self) -> None:
        """Start what is kept."""
        self.deadline = None
        self.starts += 1
        self.started = monotonic()
        try:
            self.child = _offspring.start(
                self.args, self.settings, self.streams, self._descriptors()
            )
        except OSError as error:
            reason = (error.strerror or "").lower()
            if error.errno in _SCARCE:
                say(f"cannot start {self.args[0]}: {reason}, trying again.")
                self._pause(f"cannot be started: {reason}")
            else:
                say(f"cannot run {self.args[0]}: {reason}")
                self._account(127 if error.errno == ENOENT else 126)
            return
        self._enter(RUNNING)
        self._write_pidfile()
        if self.settings is None:
            self._notify("READY=1")
            return
        self.settings.pop("news", None)
        # It is the first monitor's: who waits for its line shall see its end, too.
        if (fd := self.settings.pop("ready_fd", None)) is not None:
            os.close(fd)

    def _end_child(self, phase: str, code: int) -> None:
        # Once the keeper is to end, there is no restart any more.
        self._enter(STOPPING if self.phase == STOPPING else phase)
        # Said twice, it makes a monitor hurry; a terminal's ^C has told it.
        if self.settings is None or code != _SI_KERNEL:
            _offspring.send(self.child, signal.SIGTERM)
        self.deadline = self.deadline or monotonic() + patience(self.settings)

    def _ended(self, code: int) -> None:
        """What is kept has ended, with this code, or by minus this signal."""
        self.child = 0
        _offspring.end_orphans()
        if self.phase == STOPPING:
            self._remember(code)
            self._leave(STOPPED, 0)
        if self.phase == RESTARTING:
            self._remember(code)
            self._forget()
            self.start()
        else:
            self._account(code)

    def _account(self, code: int) -> None:
        """What is kept has ended without having been told to."""
        self._remember(code)
        policy = Policy(self.options)
        status = code if code >= 0 else 128 - code
        now = monotonic()
        said = f"exited with {code}" if code >= 0 else f"killed by signal {-code}"
        if now - self.begun < self.options.get("min_uptime", 0.0):
            say(f"Child exited prematurely with {abs(code)}, exiting.")
            self.reason = f"{said}, prematurely"
            self._leave(ENDED, EXIT_PREMATURE)
        if not policy.goes_on(status):
            say(f"Child {said}, not restarting.")
            self.reason = said
            self._leave(ENDED, status)
        if now - self.started >= policy.stable:
            self.failures = 0
        self.ends = policy.recent(self.ends, now)
        if policy.is_loop(self.ends):
            assert policy.park is not None
            times = f"the last of {policy.park[0]} ends in {policy.park[1]:g} s"
            say(f"Child {said}, {times}: parked until SIGUSR2.")
            self.deadline = None
            self._enter(PARKED, f"{said}, {times}")
            self._tell_parked(policy.park)
            return
        say(f"Child {said}, restarting.")
        self._pause(said)

    def _pause(self, reason: str) -> None:
        chance = os.urandom(1)[0] / 255
        delay = Policy(self.options).delay(self.failures, chance)
        self.failures += 1
        self.deadline = monotonic() + delay
        self._enter(PAUSING, reason)

    def _forget(self) -> None:
        self.failures = 0
        self.ends = ()

    def _enter(self, phase: str, reason: str = "") -> None:
        if phase != self.phase:
            self.phase = phase
            self.since = time()
        self.reason = reason

    def _remember(self, code: int) -> None:
        self.last = {
            "at": round(time(), 3),
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "uptime": round(monotonic() - self.started, 3),
        }

    def _leave(self, phase: str, status: int) -> NoReturn:
        self._enter(phase, self.reason)
        if pidfile := self.options.get("pidfile"):
            _state.remove(pidfile)
        self._tell()
        os._exit(status)

    # What others are told.

    def _notify(self, text: str) -> None:
        if socket := os.environ.get(VARIABLE):
            notify(socket, text)

    def _tell_parked(self, park: tuple[int, float]) -> None:
        """Say so in the app's stream, now that nobody else will."""
        if self.settings is None:
            return
        assert self.last is not None
        meta = {
            "ends": park[0],
            "seconds": park[1],
            "restarts": max(0, self.starts - 1),
            **{k: self.last[k] for k in ("code", "signal") if self.last[k] is not None},
        }
        news = (PARKED_SERVICE, 1.0, self.reason, meta)
        try:
            _offspring.start(
                *(self.args, {**self.settings, "news": news}, self.streams),
                self._descriptors(),
                app=False,
            )
        except OSError as error:
            reason = (error.strerror or "").lower()
            say(f"cannot tell of it in the app's events: {reason}")

    def _tell(self) -> None:
        status = ", ".join(filter(None, (self.phase, self.reason)))
        stopping = self.phase in (STOPPING, STOPPED, ENDED)
        self._notify(f"STATUS={status}" + ("\nSTOPPING=1" if stopping else ""))
        path = self.options.get("state")
        if path is None:
            return
        next_start = None
        if self.phase == PAUSING and self.deadline is not None:
            next_start = round(time() + self.deadline - monotonic(), 3)
        gone = self.phase in (STOPPED, ENDED)
        state = {
            "state": self.phase,
            "since": round(self.since, 3),
            "reason": self.reason or None,
            "keeper": None if gone else os.getpid(),
            "pid": self.child or None,
            "restarts": max(0, self.starts - 1),
            "failures": self.failures,
            "next": next_start,
            "last": self.last,
        }
        try:
            _state.write(path, self.options["lock"], _state.to_json(state))
        except OSError as error:  # a full disk is no reason to stop the app
            say(f"cannot write {path}: {(error.strerror or '').lower()}")

    def _write_pidfile(self) -> None:
        path = self.options.get("pidfile")
        if path is None:
            return
        text = f'{{"pid": {self.child}}}' if "json" in self.options else self.child
        made = f"{path}.{os.getpid()}"
        try:
            fd = _state.fresh(made, 0o660)
            try:
                os.write(fd, str(text).encode())
            finally:
                os.close(fd)
            os.rename(made, path)
        except OSError as error:
            say(f"cannot write {path}: {(error.strerror or '').lower()}")
            _state.remove(made)
            _state.remove(path)  # rather none than that of a pid of before

    # What is open.

    def _descriptors(self) -> list[int]:
        lock = self.options.get("lock")
        files = {fd for _, fd in self.streams}
        return [*files] if lock is None else [*files, lock]

    def _hand_on(self, inheritable: bool) -> None:
        """Let our descriptors survive the exec of falling asleep, or nobody else's."""
        ready = (self.settings or {}).get("ready_fd")
        for fd in (*self._descriptors(), *(() if ready is None else (ready,))):
            os.set_inheritable(fd, inheritable)


def _open_streams(options: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
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
    return tuple(opened.items())
