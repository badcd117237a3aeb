# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events to `forza listen` over a unix socket, which leaves nothing behind."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN
from tests.contract.test_listen import Listener

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Event
    from tests.contract.conftest import Forza


class UnixListener(Listener):
    """One that listens on a unix socket alone."""

    def __init__(self, forza: Forza, path: Path | str, *args: str) -> None:
        self.forza = forza
        self.program = forza.start(
            "listen", "--unix", path, *args, stdout=subprocess.DEVNULL
        )
        self.said = ""
        self.read_until(f"listening on unix:{path}, events go to ")


def stored(path: Path) -> list[Event]:
    """Return the events in a file."""
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", ["socket", "@"])
def test_from_app_to_file(forza: Forza, tmp_path: Path, name: str) -> None:
    """What an app says arrives, whole and in order, and the socket's file goes."""
    path, events = tmp_path / "socket", tmp_path / "events"
    address = f"@{tmp_path}" if name == "@" else str(path)
    listener = UnixListener(forza, address, "--to", f"file:{events}")
    ended = forza.run(
        *("--to", f"unix:{address}", "--", "python3", CHILDREN / "flood.py", 20_000)
    )
    assert (ended.status, ended.stdout) == (0, b"")
    listener.stop()
    found = stored(events)
    assert sum(event["service"] == "logs/stdout" for event in found) == 20_000
    assert found[-1]["service"] == "health/process/exit"
    assert not path.exists()


@pytest.mark.parametrize("mode", [None, "660", "0606"])
def test_mode(lean_forza: Forza, tmp_path: Path, mode: str | None) -> None:
    """Its owner alone may connect, unless it was told otherwise; whatever the umask."""
    path = tmp_path / "socket"
    before = os.umask(0o027)
    try:
        listener = UnixListener(lean_forza, path, *(("--mode", mode) if mode else ()))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == int(mode or "600", 8)
    listener.stop()


def test_with_a_port(lean_forza: Forza, tmp_path: Path) -> None:
    """Both at once, if both are asked for."""
    path, events = tmp_path / "socket", tmp_path / "events"
    program = lean_forza.start(
        *("listen", "--port", 0, "--unix", path, "--to", f"file:{events}")
    )
    assert program.stderr is not None
    said = program.stderr.readline().decode()
    assert f" and unix:{path}, " in said
    port = said.split("127.0.0.1:")[1].split()[0]
    for url in (f"tcp:127.0.0.1:{port}", f"unix:{path}"):
        ended = lean_forza.run("--to", url, "--", "echo", url)
        assert (ended.status, ended.stderr.count("not delivered")) == (0, 0)
    program.terminate()
    assert lean_forza.wait(program).status == 0
    logs = [e["description"] for e in stored(events) if e["service"] == "logs/stdout"]
    assert logs == [f"tcp:127.0.0.1:{port}\n", f"unix:{path}\n"]


def test_what_a_dead_one_has_left(lean_forza: Forza, tmp_path: Path) -> None:
    """A socket that nobody listens on is replaced; one that somebody does, is not."""
    path = tmp_path / "socket"
    dead = UnixListener(lean_forza, path)
    dead.program.kill()
    dead.program.communicate()
    assert path.exists()
    listener = UnixListener(lean_forza, path)
    ended = lean_forza.run("listen", "--unix", path)
    assert (ended.status, ended.stderr.count("\n")) == (125, 1)
    assert f"cannot listen on unix:{path}: address already in use" in ended.stderr
    assert lean_forza.run("--to", f"unix:{path}", "--", "true").status == 0
    assert "0 stored" not in listener.stop()
    assert not path.exists()


def test_removes_only_its_own(lean_forza: Forza, tmp_path: Path) -> None:
    """A socket that somebody else has put there meanwhile stays."""
    path = tmp_path / "socket"
    listener = UnixListener(lean_forza, path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        listener.stop()
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder", "nowhere"])
def test_no_socket_there(lean_forza: Forza, tmp_path: Path, kind: str) -> None:
    """What is no socket is left alone."""
    path = tmp_path / "there"
    if kind == "file":
        path.write_text("precious")
    elif kind == "link":
        (tmp_path / "precious").write_text("precious")
        path.symlink_to(tmp_path / "precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path = tmp_path / "no" / "folder"
    ended = lean_forza.run("listen", "--unix", path)
    assert (ended.status, ended.stderr.count("\n")) == (125, 1)
    assert f"cannot listen on unix:{path}: " in ended.stderr
    if kind in ("file", "link"):
        assert path.read_text() == "precious"


def test_busy_file_leaves_no_socket(lean_forza: Forza, tmp_path: Path) -> None:
    """Who cannot store listens nowhere."""
    events = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{events}")
    path = tmp_path / "socket"
    ended = lean_forza.run("listen", "--unix", path, "--to", f"file:{events}")
    assert ended.status == 125
    assert not path.exists()
    listener.stop()


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (["--unix"], "--unix needs a value"),
        (["--unix", ""], "names no socket"),
        (["--unix", "@"], "names no socket"),
        (["--unix", "x" * 108], "107 bytes"),
        (["--unix", "a", "--unix", "b"], "twice"),
        (["--unix", "a", "--mode", "9"], "--mode must be"),
        (["--unix", "a", "--mode", "1777"], "--mode must be"),
        (["--unix", "a", "--mode", ""], "--mode must be"),
        (["--unix", "@a", "--mode", "600"], "--mode is for"),
        (["--mode", "600"], "--mode is for"),
    ],
)
def test_usage(lean_forza: Forza, args: list[str], culprit: str) -> None:
    """A slip gets one line that names it."""
    ended = lean_forza.run("listen", *args)
    assert (ended.status, ended.stderr.count("\n")) == (2, 1)
    assert culprit in ended.stderr


def test_spool_and_flush(lean_forza: Forza, tmp_path: Path) -> None:
    """While nobody listens, events wait on disk; flush delivers them, acknowledged."""
    path, events, spool = tmp_path / "socket", tmp_path / "events", tmp_path / "spool"
    args = ("--to", f"unix:{path}", "--spool", spool, "--flush-timeout", 0)
    ended = lean_forza.run(*args, "--", "echo", "hello")
    assert f"events for unix:{path} wait in {spool}" in ended.stderr
    listener = UnixListener(lean_forza, path, "--to", f"file:{events}")
    ended = lean_forza.run("flush", "--spool", spool)
    assert ended.status == 0, ended.stderr
    assert "; 0 left" in ended.stderr
    listener.stop()
    assert stored(events)[-1]["service"] == "health/process/exit"
    again = lean_forza.run("flush", "--spool", spool, "--to", f"unix:{path}")
    assert (again.status, "nothing is left" in again.stderr) == (0, True)
