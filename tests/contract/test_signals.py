# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Pass signals on as an init does: each that can be, as it is, and once."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forza._forwarding import HANDLED
from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

TERM, INT, HUP, QUIT, CONT = 15, 2, 1, 3, 18
STOPPING = (TERM, INT, HUP, QUIT)
PASSED = sorted({*map(int, HANDLED)} - {*STOPPING, CONT, int(signal.SIGTSTP)})
TELLS = (sys.executable, "-S", str(CHILDREN / "signals.py"))


def got(server: MetricsServer) -> list[int]:
    """Return the signals that the app has told of, in order."""
    words = server.text("logs/stdout").split()
    return [int(number) for number in words[2::2]]


def state(pid: int) -> str:
    """Return a process's state, as R, S, T or Z."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.01)


def app_pid(server: MetricsServer) -> int:
    """Return the app's pid, once it is ready."""
    server.wait_for("logs/stdout", containing="ready")
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    return pid


def test_all_but_what_cannot_be() -> None:
    """What is not handled is KILL, STOP and CHLD, and what a process does to itself."""
    rest = {signal.Signals(n).name for n in range(1, 32) if n not in HANDLED}
    assert rest == {
        *("SIGKILL", "SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGXFSZ", "SIGTTIN", "SIGTTOU"),
        *("SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS"),
    }


def test_each_as_it_is(lean_forza: Forza, server: MetricsServer) -> None:
    """Every signal that can be passed on is, one after the other, and no other."""
    program = lean_forza.start("-h", server.address, "--", *TELLS)
    app_pid(server)
    for number in (*PASSED, CONT):
        os.kill(program.pid, number)
        server.wait_for("logs/stdout", containing=f"got {number}\n")
    assert got(server) == [*PASSED, CONT]
    program.kill()


@pytest.mark.parametrize("number", STOPPING)
def test_stopping_signals(
    lean_forza: Forza, server: MetricsServer, number: int
) -> None:
    """The app is asked to end by the signal that came, and may continue if stopped."""
    program = lean_forza.start("-h", server.address, "--", *TELLS, "CONT")
    app_pid(server)
    os.kill(program.pid, number)
    assert lean_forza.wait(program).status == 5
    assert set(got(server)) <= {number, CONT}
    assert got(server)[-1] == CONT


@pytest.mark.parametrize(
    ("options", "received", "sent"),
    [
        ("--stop-signal QUIT", TERM, QUIT),
        ("--stop-signal QUIT", INT, INT),
        ("--stop-signal QUIT --signal TERM=USR1", TERM, 10),
        ("--signal TERM=INT", TERM, INT),
        ("--signal INT=TERM --signal TERM=RTMIN+1", INT, TERM),
        ("--signal INT=TERM --signal TERM=RTMIN+1", TERM, 35),
        ("--signal QUIT=12", QUIT, 12),
    ],
)
def test_rewritten_end(
    lean_forza: Forza, server: MetricsServer, options: str, received: int, sent: int
) -> None:
    """What asks forza to end asks the app in its own language, and grace begins."""
    program = lean_forza.start(
        *options.split(), "--grace", 0.2, "-h", server.address, "--", *TELLS
    )
    app_pid(server)
    os.kill(program.pid, received)
    assert lean_forza.wait(program).status == 128 + signal.SIGKILL
    assert sorted(got(server)) == sorted([sent, CONT])  # a batch comes in any order
    assert server.events[-1]["meta"]["reason"] == "grace"


@pytest.mark.parametrize(
    ("options", "received", "sent"),
    [
        ("--signal HUP=HUP", HUP, [HUP]),
        ("--signal HUP=USR1", HUP, [10]),
        ("--signal HUP=", HUP, []),
        ("--signal TERM=", TERM, []),
        ("--signal USR1=TERM", 10, [TERM]),
        ("--signal WINCH=", 28, []),
        ("--signal RTMAX=WINCH", 64, [28]),
    ],
)
def test_rewritten_and_nothing_more(
    lean_forza: Forza,
    server: MetricsServer,
    options: str,
    received: int,
    sent: list[int],
) -> None:
    """Other signals are rewritten, or kept back, and begin no grace."""
    program = lean_forza.start(
        *options.split(), "--grace", 0, "-h", server.address, "--", *TELLS
    )
    app_pid(server)
    os.kill(program.pid, received)
    os.kill(program.pid, signal.SIGUSR2)
    server.wait_until(lambda: len(got(server)) > len(sent), "signals")
    assert sorted(got(server)) == sorted([*sent, 12])
    program.kill()


def test_whole_group(lean_forza: Forza, server: MetricsServer) -> None:
    """A signal reaches the app's children, too, as from a terminal."""
    script = "trap 'echo outer' USR1; (trap 'echo inner' USR1; echo ready; %s) & %s"
    waits = "while :; do sleep .01; done"
    program = lean_forza.start(
        "-h", server.address, "--", "sh", "-c", script % (waits, waits)
    )
    app_pid(server)
    program.send_signal(signal.SIGUSR1)
    server.wait_for("logs/stdout", containing="outer")
    server.wait_for("logs/stdout", containing="inner")
    program.terminate()
    assert lean_forza.wait(program).status == 128 + signal.SIGTERM


def test_suspended_and_continued(lean_forza: Forza, server: MetricsServer) -> None:
    """SIGTSTP stops the app and forza, SIGCONT continues both, again and again."""
    program = lean_forza.start("-h", server.address, "--", *TELLS, "TERM")
    app = app_pid(server)
    for count in 1, 2:
        program.send_signal(signal.SIGTSTP)
        wait_until(lambda: state(program.pid) == "T", "stop of forza")
        wait_until(lambda: state(app) == "T", "stop of the app")
        program.send_signal(signal.SIGCONT)
        server.wait_for("logs/stdout", count, containing=f"got {CONT}\n")
        assert state(app) != "T"
    program.terminate()
    assert lean_forza.wait(program).status == 5
    assert got(server)[:2] == [CONT, CONT]


def test_nohup(lean_forza: Forza, server: MetricsServer) -> None:
    """Started with SIGHUP ignored, forza ignores it, and the app is not told."""
    program = lean_forza.start(
        *("-h", server.address, "--", *TELLS),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    app_pid(server)
    program.send_signal(signal.SIGHUP)
    program.send_signal(signal.SIGUSR1)
    server.wait_for("logs/stdout", containing="got 10")
    assert got(server) == [10]
    program.kill()


def test_signals_of_before(lean_forza: Forza, server: MetricsServer) -> None:
    """Those that come before forza is ready are kept, and passed on."""
    program = lean_forza.start("-h", server.address, "--", *TELLS, "TERM", "CONT")
    wait_until(
        lambda: "SigBlk:\t0000000000000000" not in status(program.pid), "blocked signal"
    )
    program.terminate()
    assert lean_forza.wait(program).status in (5, 128 + TERM)
    assert server.of("health/process/exit")


def status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()
