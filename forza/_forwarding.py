# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decide what becomes of each signal that the program gets."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping

    from forza._monitor import Monitor
    from forza._terminal import Terminal
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

# The app is to end: it is told, and has the grace period for it.
_STOPPING: tuple[int, ...] = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
)
# All others are the app's own business, and reach it as they are, but for
# - KILL and STOP, which nobody can handle, and CHLD, which is our own;
# - those that our own doings may cause: PIPE and XFSZ by a write, ILL, FPE, SEGV, BUS,
#   TRAP, SYS and ABRT by a fault, TTIN and TTOU at the terminal.
_PASSED: tuple[int, ...] = (
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGXCPU,
    signal.SIGURG,
    signal.SIGIO,
    signal.SIGPWR,
    signal.SIGWINCH,
    signal.SIGCONT,
    16,  # SIGSTKFLT, which Python has no name for on all platforms
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
HANDLED = (*_STOPPING, *_PASSED, signal.SIGTSTP)


class Forwarding:
    """Hand signals on; `rewritten` maps what is received to what is sent, or 0."""

    def __init__(self, monitor: Monitor, rewritten: Mapping[int, int]) -> None:
        self._monitor = monitor
        self._rewritten = rewritten
        self.terminal: Terminal | None = None  # that we share with the app, if we do

    def install(self, loop: AbstractEventLoop) -> None:
        """Take all signals from here on."""
        received = self._received  # once, and not once for each of the fifty
        for signum in HANDLED:
            # nohup means it
            if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:
                loop.add_signal_handler(signum, received, signum)

    def _received(self, signum: int) -> None:
        sent = self._rewritten.get(signum, signum)
        if not sent:
            return
        if sent == signal.SIGTSTP:
            self._suspend()
        elif signum == signal.SIGTERM and signum not in self._rewritten:
            self._monitor.stop()
        elif signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._monitor.stop(sent)
        elif signum == signal.SIGHUP and signum not in self._rewritten:
            # Rewritten, if only to itself, it is no end but a wish to the app.
            self._monitor.stop(sent)
        else:
            if sent == signal.SIGCONT and self.terminal is not None:
                self.terminal.resume()
            self._monitor.kill(sent)

    def _suspend(self) -> None:
        """Stop the app, and ourselves."""
        if self.terminal is not None:
            self._monitor.kill(signal.SIGTSTP)  # and when it has stopped, so do we
            return
        # In a session without a terminal the kernel lets nobody be stopped by TSTP.
        self._monitor.kill(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
