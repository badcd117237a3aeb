# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell whoever has started forza, or a keeper, that the app runs; reboots, too."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza._unit import INITS, PATH
from tests.conftest import PATIENCE, ROOT
from tests.contract.test_aeternum import (
    STAYS,
    Aeternum,
    aeternum,
    children_of,
    lean_aeternum,
    line,
    parent_of,
    wait_until,
    written_pid,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.contract.conftest import Forza

__all__ = ("aeternum", "lean_aeternum")  # fixtures

SAYS_READY = ("sh", "-c", "echo up; exec sleep 1000")
NASTY = ("a b", 'say "100%"', "$HOME", "back\\slash", "it's", "", "semi;colon")


class Manager:
    """A service manager's end of sd_notify."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.bind(path)
        self.environ = {"NOTIFY_SOCKET": path.replace("\0", "@", 1)}

    def wait_for(self, text: str) -> list[str]:
        """Return what is said up to the first line that is this one."""
        said: list[str] = []
        while text not in said:
            said += self.socket.recv(4096).decode().split("\n")
        return said


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A manager that listens on a path, and one in the abstract namespace."""
    path = str(tmp_path / "notify")
    made = Manager(path if request.param == "path" else f"\0{path}")
    yield made
    made.socket.close()


# ---- As systemd is told


def test_ready_of_forza(forza: Forza, manager: Manager) -> None:
    """READY=1 comes once the app has started, and not from the app."""
    program = forza.start(
        *("--ready", "log=up", "--", "sh", "-c"),
        'echo "socket: $NOTIFY_SOCKET."; read line; echo up; exec sleep 1000',
        stdin=subprocess.PIPE,
        env=manager.environ,
    )
    while b"socket: ." not in (said := line(program).encode()):
        assert b"logs/stdout" not in said
    manager.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        manager.socket.recv(1)
    manager.socket.settimeout(PATIENCE)
    assert program.stdin is not None
    program.stdin.write(b"\n")
    program.stdin.flush()
    manager.wait_for("READY=1")
    program.terminate()


def test_ready_of_a_kept_forza(aeternum: Aeternum, manager: Manager) -> None:
    """The monitor says READY, again after a restart; the keeper what becomes of it."""
    program = aeternum.keep(
        *("--", "forza", "--ready", "log=up", "--", *SAYS_READY),
        stdout=subprocess.DEVNULL,
        env=manager.environ,
    )
    manager.wait_for("READY=1")
    program.send_signal(signal.SIGUSR1)
    assert "STATUS=restarting" in manager.wait_for("READY=1")
    program.terminate()
    assert "STATUS=stopping" in manager.wait_for("STOPPING=1")
    assert aeternum.wait(program).status == 0


def test_ready_of_a_kept_command(lean_aeternum: Aeternum, manager: Manager) -> None:
    """A command that is not forza is ready when it runs; why it does not is told."""
    script = 'echo "socket: $NOTIFY_SOCKET."; exit 3'
    program = lean_aeternum.keep(
        "--park", "1/60", "--", "sh", "-c", script, env=manager.environ
    )
    assert line(program) == "socket: ."
    said = manager.wait_for("STATUS=parked, exited with 3, the last of 1 ends in 60 s")
    assert "READY=1" in said
    program.terminate()


# ---- By a descriptor


def start_with_fd(program: Any, *words: Any, **options: Any) -> tuple[Any, Any]:
    """Start with `N` in the words replaced by a pipe's end; return our end, too."""
    readable, writable = os.pipe()
    try:
        told = [str(writable) if word == "N" else word for word in words]
        started = program.start(*told, pass_fds=(writable,), **options)
    finally:
        os.close(writable)
    return started, os.fdopen(readable, "rb")


def test_ready_fd(forza: Forza) -> None:
    """One line, the start event, and then the end; nothing of it is the app's."""
    program, told = start_with_fd(
        *(forza, "--ready-fd", "N", "--ready", "log=up", "--"),
        *("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; echo up; exec sleep 1000"),
    )
    with told:
        event = orjson.loads(told.read())
    assert (event["service"], event["metric"]) == ("health/process/start", 1)
    program.terminate()
    assert forza.wait(program).text("logs/stdout") == "0 1 2 3 4 up\n"


def test_ready_fd_of_what_fails(forza: Forza) -> None:
    """It is a start event with metric 0."""
    program, told = start_with_fd(
        *(forza, "--ready-fd", "N", "--", "sh", "-c", "echo no >&2; exit 4")
    )
    with told:
        event = orjson.loads(told.read())
    assert (event["metric"], event["description"]) == (0, "no\n")
    assert forza.wait(program).status == 4


def test_ready_fd_through_a_keeper(aeternum: Aeternum, tmp_path: Path) -> None:
    """It is for the first monitor; later ones have nobody to tell."""
    pidfile = tmp_path / "app.pid"
    program, told = start_with_fd(
        *(aeternum, "start", "-p", pidfile, "--", "forza", "--ready-fd", "N"),
        *("--ready", "log=up", "--", *SAYS_READY),
    )
    keeper = int(aeternum.wait(program).stdout)
    aeternum._detached.append(keeper)
    with told:
        assert orjson.loads(told.read())["metric"] == 1
    first = written_pid(pidfile)
    os.kill(keeper, signal.SIGUSR1)
    second = written_pid(pidfile, after=first)
    assert children_of(keeper) == [second]


def test_ready_fd_when_the_monitor_is_killed(
    lean_aeternum: Aeternum, tmp_path: Path
) -> None:
    """Whoever waits sees the end without a word, though the keeper goes on."""
    pidfile = tmp_path / "app.pid"
    program, told = start_with_fd(
        *(lean_aeternum, "run", "-p", pidfile, "--", "forza", "--ready-fd", "N"),
        *("--ready", "log=never", "--", *STAYS),
    )
    monitor = written_pid(pidfile)
    os.kill(monitor, signal.SIGKILL)
    with told:
        assert told.read() == b""
    written_pid(pidfile, after=monitor)
    program.terminate()


@pytest.mark.parametrize("number", ["2", "987", "x", "-1", "9" * 30])
def test_ready_fd_that_is_none(lean_forza: Forza, number: str) -> None:
    """A number that is no open descriptor is a usage error."""
    ended = lean_forza.run("--ready-fd", number, "--", "true")
    assert ended.status == 2
    assert "--ready-fd must be an open descriptor from 3" in ended.stderr


# ---- After a reboot


def test_systemd_unit(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """systemd finds nothing to say about it, whatever the words are."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze")
    words = ("-p", tmp_path / "web.pid", "--", "forza", "-h", "--", "sh", *NASTY)
    ended = lean_aeternum.run("unit", *words, cwd=tmp_path)
    assert (ended.status, ended.stderr) == (0, "")
    text = ended.stdout.decode()
    assert "Type=notify\nNotifyAccess=all\n" in text
    assert f"\nWorkingDirectory={tmp_path}\n" in text
    assert '"say \\"100%%\\"" "$$HOME" "back\\\\slash" "it\'s" "" "semi;colon"' in text
    path = tmp_path / "web.service"
    path.write_text(text)
    said = subprocess.run([verify, "verify", path], capture_output=True, check=False)
    assert (said.returncode, said.stdout) == (0, b"")
    assert b"web.service" not in said.stderr
    assert os.listdir(tmp_path) == ["web.service"]


def test_cron_line(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """What cron makes of the line starts just that command, just there."""
    pidfile, log = tmp_path / "app.pid", tmp_path / "log"
    script = 'pwd; for word; do printf "<%s>\\n" "$word"; done; exec sleep 1000'
    words = ("-p", "app.pid", "-o", "log", "--", "sh", "-c", script, "sh", *NASTY)
    ended = lean_aeternum.run("unit", "--cron", *words, cwd=tmp_path)
    (text,) = ended.stdout.decode().splitlines()
    when, _, command = text.partition(" ")
    assert when == "@reboot"
    assert "%" not in command.replace("\\%", "")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(
        ["sh", "-c", command.replace("\\%", "%")], env=environ, check=True, cwd="/"
    )
    lean_aeternum._detached.append(parent_of(written_pid(pidfile)))
    expected = "".join(f"<{word}>\n" for word in NASTY)
    wait_until(lambda: log.read_text() == f"{tmp_path}\n{expected}", "the words")


def test_openrc_script(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """It is a shell script whose words, evaluated as openrc does, are the command."""
    words = ("-p", "app.pid", "--", "sh", *NASTY)
    ended = lean_aeternum.run("unit", "--openrc", *words, cwd=tmp_path)
    script = tmp_path / "app"
    script.write_bytes(ended.stdout)
    show = f'. {script}; eval "set -- $command_args"; printf "<%s>\\n" "$@"; pwd'
    said = subprocess.run(
        ["sh", "-c", show], capture_output=True, text=True, check=True
    )
    expected = "".join(f"<{word}>\n" for word in ("run", *map(str, words)))
    assert expected in said.stdout
    assert said.stderr == ""


@pytest.mark.parametrize("init", INITS)
def test_path_of_a_unit(lean_aeternum: Aeternum, tmp_path: Path, init: str) -> None:
    """It is a service's usual one, and where the app is; nothing of a shell's own."""
    engine = tmp_path / "engine"
    engine.mkdir()
    (engine / "app").write_text("")
    (engine / "app").chmod(0o755)
    environ = {"PATH": f"/home/me/bin:{engine}:{os.environ['PATH']}:/opt/odd"}
    for words, first in (
        (("sh",), ""),
        (("/bin/sh",), ""),
        (("no-such-command",), ""),
        (("app",), f"{engine}:"),
        (("forza", "-h", "--", "app"), f"{engine}:"),
    ):
        ended = lean_aeternum.run("unit", init, "--", *words, env=environ)
        assert (ended.status, ended.stderr) == (0, "")
        (path,) = re.findall(rb'PATH=([^\s"]+)', ended.stdout)
        assert path.decode() == first + PATH


def test_unit_needs_a_command(lean_aeternum: Aeternum) -> None:
    """Mistakes are found before they are in a unit."""
    for words in ("--cron",), ("--", "forza", "--no-such", "--", "true"):
        ended = lean_aeternum.run("unit", *words)
        assert (ended.status, ended.stdout) == (2, b"")
        assert ended.stderr.count("\n") == 1
