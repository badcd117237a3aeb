# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand a command line as it was always written, and say what is wrong with it."""

from __future__ import annotations

import re
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza

SOME_OPTIONS = ("--host", "--port", "--hostname", "--app-user", "--start-log", "--to")
SEVEN = {"cpu", "mem", "logs", "heartbeat", "uptime", "start", "process"}


@pytest.mark.parametrize("option", ["-v", "--version"])
def test_version(forza: Forza, option: str) -> None:
    """The version is one line, as it was, and the status 0."""
    ended = forza.run(option)
    assert ended.status == 0
    assert re.fullmatch(rb"forza \d+\.\d+\.\d+\S*\n", ended.stdout)


def test_version_of_the_app(forza: Forza) -> None:
    """A `-v` among the app's words is the app's, with `--` and without."""
    for words in ("--", "node", "-v"), ("node", "-v"):
        ended = forza.run(*words)
        assert ended.text("logs/stdout").startswith("v")


def test_help(forza: Forza) -> None:
    """The help names every option it is asked for, and shows how by example."""
    ended = forza.run("--help")
    assert ended.status == 0
    assert ended.stderr == ""
    text = ended.stdout.decode()
    for option in SOME_OPTIONS:
        assert option in text
    assert "forza -h 127.0.0.1 -p 1337 -- node app.js" in text
    assert max(map(len, text.splitlines())) <= 88


def test_check_runs_nothing(forza: Forza, tmp_path: Path) -> None:
    """What would be run is printed; nothing is, nor is any server asked."""
    made = tmp_path / "made"
    for options in ((), ("--keep",), ("-h", "127.0.0.1:1", "--nofile", "64")):
        ended = forza.run("--check", *options, "--", "touch", made)
        assert (ended.status, ended.stderr) == (0, "")
        assert ended.stdout.decode() == f"touch {made}\n"
    for words, status in (("--plugin", "none"), 2), (("-p", "0"), 3), ((), 2):
        ended = forza.run(*words, "--check", *(("touch", made) if words else ()))
        assert ended.status == status
        assert ended.stderr.startswith("forza: ")
        assert ended.stdout == b""
    assert not made.exists()


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "no command"),
        (("--",), 2, "no command"),
        (("-h", "127.0.0.1", "--"), 2, "no command"),
        (("--no-such-option", "--", "true"), 2, "--no-such-option"),
        (("-x", "--", "true"), 2, "-x"),
        (("--hostname", "--", "true"), 2, "--hostname"),
        (("--app-user", "--app-name", "a", "--", "true"), 2, "--app-user"),
        (("-p", "--", "true"), 2, "-p"),
        (("--to", "gopher://x", "--", "true"), 2, "gopher"),
        (("--grace", "long", "--", "true"), 2, "long"),
        (("--grace=-1", "--", "true"), 2, "-1"),
        (("--cpu-interval", "x", "--", "true"), 2, "interval"),
        (("--cpu-interval", "0", "--", "true"), 2, "interval"),
        (("--cpu-intervall", "5", "--", "true"), 2, "--cpu-intervall"),
        (("--disk-path", "/", "--", "true"), 2, "--disk-path"),
        (("--plugin", "missing:Plugin", "--", "true"), 2, "missing"),
        (("-p", "0", "--", "true"), 3, "'0'"),
        (("-p", "65536", "--", "true"), 3, "65536"),
        (("-p", "http", "--", "true"), 3, "http"),
        (("--port=", "--", "true"), 3, "port"),
        (("-h", "127.0.0.1:port", "--", "true"), 3, "port"),
        (("-h", "127.0.0.1", "-p", "-5", "--", "true"), 3, "-5"),
        (("--to", "tcp:127.0.0.1:99999", "--", "true"), 3, "99999"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_usage_error(
    lean_forza: Forza, words: tuple[str, ...], status: int, says: str
) -> None:
    """A usage error is one line on stderr that names the culprit; nothing runs."""
    ended = lean_forza.run(*words)
    assert ended.status == status
    assert ended.stdout == b""
    assert ended.stderr.startswith("forza: ")
    assert ended.stderr.count("\n") == 1
    assert says in ended.stderr


def test_unknown_plugin(forza: Forza) -> None:
    """Who asks for a plugin that isn't there is told which are."""
    ended = forza.run("--plugin", "dsik", "--", "true")
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1
    assert "dsik" in ended.stderr
    assert set(re.findall(r"\w+", ended.stderr)) >= SEVEN


def test_chosen_plugins(forza: Forza) -> None:
    """Only the plugins asked for speak."""
    ended = forza.run("--plugin", "logs", "--plugin=process", "--", "echo", "hi")
    assert {event["service"] for event in ended.events} == {
        "health/process/spawn",
        "logs/stdout",
        "health/process/exit",
    }


def test_all_seven(forza: Forza) -> None:
    """By default all seven speak, each at once."""
    program = forza.start(
        *("--", "sh", "-c", "echo out; echo err >&2; read -r _"), stdin=subprocess.PIPE
    )
    ended = forza.wait(program)
    assert {event["service"] for event in ended.events} >= {
        "health/process/spawn",
        "health/process/exit",
        "health/process/start",
        "health/process/heartbeat",
        "health/process/uptime",
        "health/machine/memory",
        "health/machine/cpu",
        "logs/stdout",
        "logs/stderr",
    }


def test_fields(forza: Forza) -> None:
    """Every event has the contract's fields, in its order and of its types."""
    order = ("metric", "time", "host", "description", "service", "meta")
    for event in forza.run("--", "echo", "hi").events:
        assert list(event) == [field for field in order if field in event]
        assert {*order} - {"description"} <= {*event}
        assert isinstance(event["metric"], float)
        assert isinstance(event["time"], float)
        assert isinstance(event["host"], str)
        assert event["meta"]["pid"] > 1


@pytest.mark.parametrize(
    "form",
    [
        "-h HOST -p PORT --",
        "--host HOST --port PORT --",
        "-p PORT -h HOST --",
        "-h HOST -p PORT",
        "-h HOST:PORT --",
        "--host=HOST --port=PORT --",
        "--host=HOST:PORT",
        "-h -p PORT --",
        "-h --port=PORT --",
        "-p PORT",
        "--to tcp:HOST:PORT --",
        "--to=tcp://HOST:PORT",
        "-h localhost -p PORT --",
        "-h HOST -p PORT --hostname=here --app-user u --app-name=n --",
    ],
)
def test_ways_to_name_a_server(
    lean_forza: Forza, server: MetricsServer, form: str
) -> None:
    """Host and port are understood in every form."""
    words = form.replace("HOST", "127.0.0.1").replace("PORT", str(server.port))
    ended = lean_forza.run(*words.split(), "echo", "--port", "-h", "7")
    assert ended.status == 0
    assert ended.stdout == b""
    server.wait_closed()
    assert server.text("logs/stdout") == "--port -h 7\n"


@pytest.mark.parametrize("words", ["-h --", "--host --", "-h 127.0.0.1 --"])
def test_default_port(lean_forza: Forza, words: str) -> None:
    """The port is 1337 unless another is given."""
    try:
        server = MetricsServer(1337)
    except OSError:
        pytest.skip("somebody else has port 1337")
    with server:
        assert lean_forza.run(*words.split(), "echo", "hi").status == 0
        server.wait_closed()
        assert server.text("logs/stdout") == "hi\n"


def test_default_port_and_none_there(lean_forza: Forza) -> None:
    """Nobody at the default port is no error; the app runs."""
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", 1337))
        except OSError:
            pytest.skip("somebody else has port 1337")
        ended = lean_forza.run("-h", "--flush-timeout", 0.1, "--", "sh", "-c", "exit 4")
    assert ended.status == 4


def test_several_sinks(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """Each of several sinks gets everything, stdout too if it is one."""
    path = tmp_path / "events.ndjson"
    ended = forza.run(
        *("-h", server.address, "--to", f"file:{path}", "--to", "stdout:"),
        *("--", "node", CHILDREN / "colours.js"),
    )
    server.wait_closed()
    assert path.read_bytes() == server.data == ended.stdout
    assert len(server.of("logs/stdout")) == 1024


def test_file_is_appended_to(forza: Forza, tmp_path: Path) -> None:
    """A file sink keeps what is there."""
    path = tmp_path / "events.ndjson"
    for word in "first", "second":
        forza.run("--to", f"file://{path}", "--", "echo", word)
    lines = path.read_text().splitlines()
    exits = [n for n, line in enumerate(lines) if "health/process/exit" in line]
    assert len(exits) == 2
    assert any('"first\\n"' in line for line in lines[: exits[0]])
    assert any('"second\\n"' in line for line in lines[exits[0] :])


def test_file_that_cannot_be(forza: Forza, tmp_path: Path) -> None:
    """A file that can't be written is said before the app runs: status 125."""
    url = f"file:{tmp_path}/missing/events.ndjson"
    ended = forza.run("--to", url, "--", "touch", tmp_path / "ran")
    assert ended.status == 125
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_nothing_but_events_on_stdout(forza: Forza, server: MetricsServer) -> None:
    """With a server, stdout is empty; forza's own words are on stderr."""
    ended = forza.run("-h", server.address, "--", "echo", "hi")
    assert ended.stdout == b""
    assert all(line.startswith("forza: ") for line in ended.stderr.splitlines())


def test_lean_runtime_is_what_runs(lean_forza: Forza) -> None:
    """The lean runtime does not have to fall back, or it would say so."""
    assert lean_forza.run("--", "true").stderr == ""
