# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold forza to the suite of the program it succeeds, case by case.

That suite has nine cases. Two more, on fail-over, were in the suite once.
"""

from __future__ import annotations

import socket
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import CHILDREN, MetricsServer
from tests.contract.conftest import PLAIN, needs_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.conftest import Forza


@pytest.fixture
def dead() -> Iterator[list[str]]:
    """Five addresses that refuse: the ports are taken, but nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(5)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        yield [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]


def test_hostname(forza: Forza, server: MetricsServer) -> None:
    """`--hostname` is the `host` of every event."""
    forza.run(
        *("-h", "127.0.0.1", "-p", server.port, "--hostname", "drone-7.example"),
        *("--", "node", CHILDREN / "quits.js"),
    )
    events = server.wait_closed()
    assert {event["host"] for event in events} == {"drone-7.example"}
    assert len(events) > 5


def test_coloured_lines(forza: Forza, server: MetricsServer) -> None:
    """1024 coloured lines on each stream arrive whole, before the socket ends."""
    forza.run("-h", server.address, "--", "node", CHILDREN / "colours.js")
    server.wait_closed()
    out = [f'\033[32mout {n}\033[39m "quoted" \\ back\n' for n in range(1024)]
    err = [f"\033[1;31merr {n}\033[0m\ttab\n" for n in range(1024)]
    assert [event["description"] for event in server.of("logs/stdout")] == out
    assert [event["description"] for event in server.of("logs/stderr")] == err


def listen(
    forza: Forza, server: MetricsServer, *words: str | int, **settings: Any
) -> dict[str, Any]:
    """Start a node that listens as told; return the meta of its start event."""
    program = forza.start(
        *("-h", server.address, "--app-user", "maciej", "--app-name", "truth"),
        *("--", "node", CHILDREN / "listens.js", *words),
        stdin=subprocess.PIPE,
        **settings,
    )
    (start,) = server.wait_for("health/process/start")
    forza.wait(program)
    server.wait_closed()
    assert server.of("health/process/start") == [start]
    assert start["metric"] == 1
    meta: dict[str, Any] = start["meta"]
    assert meta["app"] == {"user": "maciej", "name": "truth"}
    return meta


def test_any_port(forza: Forza, server: MetricsServer) -> None:
    """An app that listens on port 0 has started with the port that it gets."""
    meta = listen(forza, server, 0)
    assert server.text("logs/stdout") == f"bound {meta['port']}\n"


@needs_hook
def test_port_80(forza: Forza, server: MetricsServer) -> None:
    """An ordinary user's port 80 becomes 1024, or the next that is free."""
    assert 1024 <= listen(forza, server, 80, **PLAIN)["port"] < 1034


@pytest.mark.parametrize("before", [(), ("udp",)], ids=["alone", "after a UDP bind"])
def test_port_5333(
    forza: Forza, server: MetricsServer, before: tuple[str, ...]
) -> None:
    """Another port is the app's if it is free; a UDP bind before is not told."""
    with socket.socket() as sock:
        free = sock.connect_ex(("127.0.0.1", 5333)) != 0
    meta = listen(forza, server, *before, 5333)
    assert meta["port"] == 5333 or not free
    assert server.of("health/process/listen") == []


def test_missing_script(forza: Forza, server: MetricsServer) -> None:
    """An app whose script is missing has not started, and node's words say why."""
    ended = forza.run("-h", server.address, "--", "node", CHILDREN / "missing.js")
    server.wait_closed()
    (start,) = server.of("health/process/start")
    assert start["metric"] == 0
    assert "Cannot find module" in start["description"]
    assert "missing.js" in start["description"]
    assert ended.status == 1


def test_premature_quit(forza: Forza, server: MetricsServer) -> None:
    """An app that quits after a second has not started; its output is told exactly."""
    ended = forza.run("-h", server.address, "--", "node", CHILDREN / "quits.js")
    server.wait_closed()
    (start,) = server.of("health/process/start")
    assert start["metric"] == 0
    assert start["description"] == "100 ms\n500 ms\n"
    assert ended.status == 0


def test_app_user_and_name(forza: Forza, server: MetricsServer) -> None:
    """User and name of the app are in every event, the start event not excepted."""
    forza.run(
        *("-h", server.address, "--app-user", "maciej", "--app-name", "truth"),
        *("--", "node", CHILDREN / "missing.js"),
    )
    events = server.wait_closed()
    assert len(server.of("health/process/start")) == 1
    for event in events:
        assert event["meta"]["app"] == {"user": "maciej", "name": "truth"}


@pytest.mark.parametrize("only", ["--app-user", "--app-name"])
def test_half_an_app(forza: Forza, server: MetricsServer, only: str) -> None:
    """With only one of the two, no event says anything about the app."""
    forza.run("-h", server.address, only, "truth", "--", "true")
    assert all("app" not in event["meta"] for event in server.wait_closed())


def test_dead_servers(forza: Forza, server: MetricsServer, dead: list[str]) -> None:
    """Five servers refuse; the sixth gets everything."""
    hosts = [word for address in [*dead, server.address] for word in ("-h", address)]
    forza.run(*hosts, "--", CHILDREN / "echoes.sh")
    server.wait_closed()
    assert len(server.connections) == 1
    assert len(server.of("health/process/spawn")) == 1
    assert server.text("logs/stdout") == "ready\n"
    assert server.events[-1]["service"] == "health/process/exit"


def test_server_gone(forza: Forza, server: MetricsServer) -> None:
    """A server that hangs up is replaced by the next, which gets all the rest."""
    with MetricsServer() as second:
        program = forza.start(
            *("-h", server.address, "-h", second.address),
            *("--", CHILDREN / "echoes.sh"),
            stdin=subprocess.PIPE,
        )
        server.wait_for("logs/stdout", containing="ready")
        assert second.connections == []
        server.hang_up()
        second.wait_connected()
        assert program.stdin is not None
        program.stdin.write(b"".join(b"line %d\n" % n for n in range(100)))
        assert forza.wait(program).status == 0
        second.wait_closed()
        rest = [event["description"] for event in second.of("logs/stdout")]
        assert rest[-100:] == [f"line {n}\n" for n in range(100)]
        assert second.events[-1]["service"] == "health/process/exit"
