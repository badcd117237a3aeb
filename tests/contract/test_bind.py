# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Move an app from a port that it may not have to the next that it may."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import CHILDREN, MetricsServer
from tests.contract.conftest import PLAIN, needs_hook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.conftest import Forza

JS = CHILDREN / "listens.js"
pytestmark = needs_hook


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on, on all addresses."""
    with socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
    ) as s:
        yield s.getsockname()[1]


def listen(
    forza: Forza,
    server: MetricsServer,
    *words: str | Path | float,
    options: str = "",
    **settings: Any,
) -> dict[str, Any]:
    """Run a command that listens; return the meta of its start event."""
    program = forza.start(
        *("-h", server.address, "--start-timeout", 60),
        *(*options.split(), "--"),
        *words,
        stdin=subprocess.PIPE,
        **settings,
    )
    (start,) = server.wait_for("health/process/start")
    assert forza.wait(program).status == 0
    server.wait_closed()
    assert server.of("health/process/start") == [start]
    assert server.of("health/process/listen") == []
    assert start["metric"] == 1
    meta: dict[str, Any] = start["meta"]
    return meta


@pytest.mark.parametrize("host", ["", "0.0.0.0", "127.0.0.1", "::1"])
def test_low_port(forza: Forza, server: MetricsServer, host: str) -> None:
    """For a plain user 80 becomes 1024, or the next that is free, without an option;
    the address stays."""
    meta = listen(forza, server, "node", JS, 80, *[host][: bool(host)], **PLAIN)
    assert 1024 <= meta["port"] < 1034
    assert meta["asked"] == 80
    assert meta["address"] == (host or "::")
    assert server.text("logs/stdout") == "bound 80\n"


def test_python_sees_the_port_it_has(forza: Forza, server: MetricsServer) -> None:
    """Only node is shown the port that it wanted."""
    script = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 81));"
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    meta = listen(forza, server, sys.executable, "-c", script, **PLAIN)
    assert server.text("logs/stdout") == f"{meta['port']}\n"
    assert meta["asked"] == 81


def test_low_port_behind_npm(
    lean_forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """The hook, and what it has to say, come through npm and its shell."""
    script = {"scripts": {"start": f"node {JS} 80"}}
    (tmp_path / "package.json").write_text(json.dumps(script))
    command = ("npm", "--prefix", tmp_path, "start")
    meta = listen(lean_forza, server, *command, **PLAIN)
    assert meta["port"] >= 1024
    assert meta["asked"] == 80


def test_low_port_of_a_cluster(lean_forza: Forza, server: MetricsServer) -> None:
    """The workers of node's cluster accept the port that they share."""
    program = lean_forza.start(
        *("-h", server.address, "--", "node", CHILDREN / "cluster.js", 80),
        stdin=subprocess.PIPE,
        **PLAIN,
    )
    (start,) = server.wait_for("health/process/start")
    assert start["meta"]["port"] >= 1024
    server.wait_for("logs/stdout", 2, containing="worker on 80")
    lean_forza.wait(program)
    assert "refused" not in server.text("logs/stdout")


def test_low_port_of_a_thread(forza: Forza, server: MetricsServer) -> None:
    """A worker thread's port is moved, too."""
    meta = listen(forza, server, "node", JS, "thread", 80, "127.0.0.1", **PLAIN)
    assert meta["asked"] == 80


def test_port_in_use(forza: Forza, server: MetricsServer, taken: int) -> None:
    """If asked to, a port in use becomes the next."""
    meta = listen(forza, server, "node", JS, taken, options="--bind-hook on")
    assert meta["port"] > taken
    assert meta["asked"] == taken


def test_port_in_use_on_a_platform(
    forza: Forza, server: MetricsServer, taken: int
) -> None:
    """A platform, which names user and app, need not ask."""
    options = "--app-user maciej --app-name truth"
    meta = listen(forza, server, "node", JS, taken, options=options)
    assert meta["port"] > taken


@pytest.mark.parametrize("options", ["", "--bind-hook off"])
def test_port_in_use_is_an_error(
    forza: Forza, server: MetricsServer, taken: int, options: str
) -> None:
    """Else it is the app's to know that its port is in use, a plain user's too."""
    program = forza.start(
        *("-h", server.address),
        *options.split(),
        *("--", "node", JS, taken),
        stdin=subprocess.PIPE,
        **PLAIN,
    )
    server.wait_for("logs/stdout", containing="refused EADDRINUSE")
    forza.wait(program)


def test_hook_off(forza: Forza, server: MetricsServer) -> None:
    """Without the hook a plain user's app may not have port 80, and hears so."""
    program = forza.start(
        *("-h", server.address, "--bind-hook", "off", "--", "node", JS, 80),
        stdin=subprocess.PIPE,
        **PLAIN,
    )
    server.wait_for("logs/stdout", containing="refused EACCES")
    forza.wait(program)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_bind_any(forza: Forza, server: MetricsServer, host: str) -> None:
    """If asked to, the app listens on all addresses whatever it says."""
    meta = listen(forza, server, "node", JS, 0, host, options="--bind-any")
    assert meta["address"] == ("::" if ":" in host else "0.0.0.0")
    assert "asked" not in meta


def test_own_preloaded_library(forza: Forza, server: MetricsServer) -> None:
    """What the user preloads stays; without need, nothing of ours is added."""
    env = {"LD_PRELOAD": "libc.so.6"}
    show = ("sh", "-c", "echo $LD_PRELOAD")
    for options, count in ("on", 2), ("off", 1):
        forza.run("-h", server.address, "--bind-hook", options, "--", *show, env=env)
        server.wait_closed()
        said = server.text("logs/stdout").splitlines()[-1]
        assert len(said.split(":")) == count
        assert said.endswith("libc.so.6")


def test_ipc_of_a_forked_node(forza: Forza, server: MetricsServer) -> None:
    """What is said of ports never gets into the channel between two nodes."""
    script = f"""
      const child = require('child_process').fork({str(JS)!r}, ['80'],
        {{stdio: ['pipe', 1, 2, 'ipc']}})
      child.on('message', (m) => console.log('strange', m))
      child.on('error', (e) => console.log('strange', e))
      process.stdin.on('end', () => child.stdin.end()).resume()
    """
    meta = listen(forza, server, "node", "-e", script, **PLAIN)
    assert meta["asked"] == 80
    assert server.text("logs/stdout") == "bound 80\n"


def test_hook_that_was_not_built(forza: Forza) -> None:
    """Without it, who insists gets one clear line, and others go on."""
    env = {"FORZA_NATIVE": "no"}
    ended = forza.run("--bind-hook", "on", "--", "echo", "ran", env=env)
    assert ended.status == 125
    assert ended.stdout == b""
    assert ended.stderr.count("\n") == 1
    assert "bind hook" in ended.stderr
    assert "compiler" in ended.stderr
    assert forza.run("--", "true", env=env, **PLAIN).status == 0
