# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""End as the app ends, and see to it that the app ends as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forza._options import signal_number as number_of
from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza

STOPPING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")


@pytest.mark.parametrize("status", [0, 1, 7, 42, 122, 255])
def test_exit_status(forza: Forza, status: int) -> None:
    """The app's status is forza's, and the last event has it."""
    ended = forza.run("--", "sh", "-c", f"exit {status}")
    assert ended.status == status
    last = ended.events[-1]
    assert last["service"] == "health/process/exit"
    assert last["description"] == str(status)
    assert last["meta"]["code"] == status
    assert last["meta"]["reason"] == "exit"
    assert ended.stderr == ""


@pytest.mark.parametrize(
    "name", ["TERM", "KILL", "SEGV", "ABRT", "HUP", "USR1", "PIPE"]
)
def test_term_signal(forza: Forza, name: str) -> None:
    """A signal that ends the app is 128 + its number, and the last event names it."""
    ended = forza.run("--", CHILDREN / "dies.sh", name)
    number = signal.Signals[f"SIG{name}"].value
    assert ended.status == 128 + number
    last = ended.events[-1]
    assert last["service"] == "health/process/exit"
    assert last["description"] == str(128 + number)
    assert last["meta"]["signal"] == f"SIG{name}"
    assert last["meta"]["reason"] == f"signal:{name}"
    assert "code" not in last["meta"]
    assert ended.text("logs/stdout") == f"about to get SIG{name}\n"


def test_order_of_the_last_words(forza: Forza) -> None:
    """Spawn is first of the life cycle, all output precedes start 0, exit is last."""
    ended = forza.run("--", "sh", "-c", "echo one; echo two >&2; exit 3")
    services = [event["service"] for event in ended.events]
    assert services.count("health/process/exit") == 1
    assert services[-2:] == ["health/process/start", "health/process/exit"]
    spawn = services.index("health/process/spawn")
    assert spawn < min(services.index("logs/stdout"), services.index("logs/stderr"))
    assert ended.events[-2]["metric"] == 0


def test_seq_and_boot(forza: Forza) -> None:
    """Of one monitor's events boot is the same, and seq counts without gaps from 1."""
    ended = forza.run("--", "node", CHILDREN / "colours.js")
    assert len({event["meta"]["boot"] for event in ended.events}) == 1
    numbers = [event["meta"]["seq"] for event in ended.events]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == list(range(1, numbers[-1] + 1))
    again = forza.run("--", "true")
    assert again.events[0]["meta"]["boot"] != ended.events[0]["meta"]["boot"]


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program"])
def test_not_found(forza: Forza, command: str) -> None:
    """A program that isn't there: 127, one line, an exit event and no spawn."""
    ended = forza.run("--", command, "argument")
    assert ended.status == 127
    assert ended.stderr.count("\n") == 1
    assert command in ended.stderr
    assert ended.of("health/process/spawn") == []
    (last,) = ended.of("health/process/exit")
    assert ended.events[-1] == last
    assert last["description"] == "127"
    assert last["meta"]["reason"] == "not found"


@pytest.mark.parametrize("kind", ["file", "folder", "interpreter"])
def test_not_executable(forza: Forza, tmp_path: Path, kind: str) -> None:
    """A file that can't be run: 126 (127 if what it names is missing), in words."""
    path = tmp_path / "program"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_text("#!/no/such/interpreter\n")
        path.chmod(0o755 if kind == "interpreter" else 0o644)
    ended = forza.run("--", path)
    expected = 127 if kind == "interpreter" else 126
    assert ended.status == expected
    assert ended.stderr.count("\n") == 1
    assert str(path) in ended.stderr
    assert ended.of("health/process/spawn") == []
    assert ended.events[-1]["service"] == "health/process/exit"
    assert ended.events[-1]["description"] == str(expected)


@pytest.mark.parametrize("name", STOPPING)
def test_stopping_signal(forza: Forza, server: MetricsServer, name: str) -> None:
    """The app gets the signal, and its last words and its status are passed on."""
    program = forza.start("-h", server.address, "--", "node", CHILDREN / "stops.js")
    server.wait_for("logs/stdout", containing="listening")
    program.send_signal(signal.Signals[name])
    ended = forza.wait(program)
    server.wait_closed()
    assert server.text("logs/stdout") == f"listening\ngot {name}\n"
    assert server.text("logs/stderr") == "closed\n"
    assert server.events[-1]["service"] == "health/process/exit"
    assert server.events[-1]["description"] == "3"
    assert ended.status == 3


def test_stopping_signal_that_nobody_handles(
    forza: Forza, server: MetricsServer
) -> None:
    """An app without a handler ends by the signal, and forza says so."""
    program = forza.start("-h", server.address, "--", "sleep", 1000)
    server.wait_for("health/process/spawn")
    program.terminate()
    assert forza.wait(program).status == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_grace(forza: Forza, server: MetricsServer, name: str) -> None:
    """An app that takes no notice is killed when its grace is over."""
    program = forza.start(
        *("-h", server.address, "--grace", 0.5),
        *("--", sys.executable, CHILDREN / "stubborn.py"),
    )
    server.wait_for("logs/stdout", containing="ready")
    program.send_signal(signal.Signals[name])
    server.wait_for("logs/stdout", containing=f"ignored {name}")
    assert forza.wait(program).status == 128 + signal.SIGKILL
    server.wait_closed()
    last = server.events[-1]
    assert last["service"] == "health/process/exit"
    assert last["meta"]["signal"] == "SIGKILL"


def test_second_signal(forza: Forza, server: MetricsServer) -> None:
    """A second SIGTERM does not wait for a grace of an hour."""
    program = forza.start(
        *("-h", server.address, "--grace", 3600),
        *("--", sys.executable, CHILDREN / "stubborn.py"),
    )
    server.wait_for("logs/stdout", containing="ready")
    program.terminate()
    server.wait_for("logs/stdout", containing="ignored SIGTERM")
    program.terminate()
    assert forza.wait(program).status == 128 + signal.SIGKILL


def test_whole_group_is_stopped(forza: Forza, server: MetricsServer) -> None:
    """The app's own children do not outlive it."""
    script = "sleep 1000 & sleep 1000 & echo ready; wait"
    program = forza.start("-h", server.address, "--", "sh", "-c", script)
    server.wait_for("logs/stdout", containing="ready")
    program.terminate()
    forza.wait(program)
    assert dict(forza.descendants()) == {}


def test_dead_server_does_not_hold_up_the_end(forza: Forza) -> None:
    """With no server at all the app runs, and forza leaves with its status."""
    ended = forza.run(
        *("-h", "127.0.0.1:1", "--flush-timeout", 0.2, "--", "sh", "-c", "exit 9")
    )
    assert ended.status == 9


def test_stdout_gone(forza: Forza) -> None:
    """A reader that leaves does not end the app: no SIGPIPE, the app's own status."""
    read, write = os.pipe()
    program = forza.start(
        *("--", CHILDREN / "echoes.sh"), stdin=subprocess.PIPE, stdout=write
    )
    os.close(write)
    os.read(read, 1)
    os.close(read)
    assert program.stdin is not None
    program.stdin.write(b"into the void\n" * 100)
    assert forza.wait(program).status == 0


# All that end a process by default, 16 being SIGSTKFLT.
PASSED = [
    *("USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "16"),
    *map(str, range(signal.SIGRTMIN, signal.SIGRTMAX + 1)),
]


@pytest.mark.parametrize("name", PASSED)
def test_signal_that_is_passed_on(
    lean_forza: Forza, server: MetricsServer, name: str
) -> None:
    """What forza has no use for is the app's business, and may be its end."""
    number = number_of(name)
    program = lean_forza.start("-h", server.address, "--", "sleep", 1000)
    server.wait_for("health/process/heartbeat")
    os.kill(program.pid, number)
    assert lean_forza.wait(program).status == 128 + number
    assert server.of("health/process/exit")


def test_talkative_grandchild(forza: Forza, server: MetricsServer) -> None:
    """Somebody who goes on talking after the app's end does not keep forza: if it
    did, the test would wait for the flush time-out, which is longer than it may."""
    program = forza.start(
        *("-h", server.address, "--flush-timeout", 1000, "--"),
        *("sh", "-c", "(while sleep .05; do echo t; done) & echo over; exit 7"),
    )
    assert forza.wait(program).status == 7
    server.wait_for("logs/stdout", containing="over\n")
