# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""See where an app listens, whatever it is written in and whoever has started it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Event
    from tests.contract.conftest import Forza

CC = shutil.which(os.environ.get("CC", "cc"))
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")
JS = CHILDREN / "listens.js"


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that no preloaded library can reach."""
    path = tmp_path_factory.mktemp("static") / "listens"
    assert CC is not None
    subprocess.run([CC, "-static", "-o", path, CHILDREN / "listens.c"], check=True)
    return path


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder where `npm start` starts the node child on a free port."""
    script = {"scripts": {"start": f"node {JS} 0 127.0.0.1"}}
    (tmp_path / "package.json").write_text(json.dumps(script))
    return tmp_path


def started(forza: Forza, server: MetricsServer, *command: str | Path | float) -> Event:
    """Run a command that listens; return its only start event, once it has ended."""
    program = forza.start(
        *("-h", server.address, "--start-timeout", 60, "--"),
        *command,
        stdin=subprocess.PIPE,
    )
    (start,) = server.wait_for("health/process/start")
    assert forza.wait(program).status == 0
    server.wait_closed()
    assert server.of("health/process/start") == [start]
    assert start["metric"] == 1
    assert start["meta"]["ready"] == "port"
    return start


def test_node(forza: Forza, server: MetricsServer) -> None:
    """A node of today listens on `::`, on any free port if it asks for 0."""
    start = started(forza, server, "node", JS, 0)
    (bound,) = server.wait_for("logs/stdout", containing="bound")
    assert bound["description"] == f"bound {start['meta']['port']}\n"
    assert start["meta"]["address"] == "::"
    assert server.of("health/process/listen") == []


def test_python(forza: Forza, server: MetricsServer) -> None:
    """Python's own server listens on 0.0.0.0."""
    port = free_port()
    program = forza.start(
        *("-h", server.address, "--start-timeout", 60),
        *("--", sys.executable, "-m", "http.server", port),
    )
    (start,) = server.wait_for("health/process/start")
    assert start["meta"]["port"] == port
    assert start["meta"]["address"] == "0.0.0.0"
    program.terminate()
    forza.wait(program)


@needs_cc
def test_static(forza: Forza, server: MetricsServer, static: Path) -> None:
    """A static program is seen as any other."""
    port = free_port()
    assert started(forza, server, static, port)["meta"]["port"] == port


def test_npm_start(
    lean_forza: Forza, server: MetricsServer, package: Path, tmp_path: Path
) -> None:
    """Behind npm, which starts a shell, which starts node."""
    start = started(lean_forza, server, "npm", "--prefix", package, "start")
    assert start["meta"]["address"] == "127.0.0.1"
    (bound,) = server.wait_for("logs/stdout", containing="bound")
    assert bound["description"] == f"bound {start['meta']['port']}\n"


def test_shell_npm_start(
    lean_forza: Forza, server: MetricsServer, package: Path
) -> None:
    """And behind one more shell."""
    command = f"npm --prefix {package} start; :"
    assert started(lean_forza, server, "sh", "-c", command)["meta"]["port"]


def test_cluster(forza: Forza, server: MetricsServer) -> None:
    """The workers of a cluster share one socket, and so there is one event."""
    port = free_port()
    program = forza.start(
        *("-h", server.address, "--", "node", CHILDREN / "cluster.js", port),
        stdin=subprocess.PIPE,
    )
    (start,) = server.wait_for("health/process/start")
    assert (start["metric"], start["meta"]["port"]) == (1, port)
    server.wait_for("logs/stdout", 2, containing=f"worker on {port}")
    forza.wait(program)
    server.wait_closed()
    assert len(server.of("health/process/start")) == 1
    assert server.of("health/process/listen") == []


def test_worker_thread(forza: Forza, server: MetricsServer) -> None:
    """A thread's socket is its process's."""
    start = started(forza, server, "node", JS, "thread", 0, "127.0.0.1")
    assert start["meta"]["address"] == "127.0.0.1"


def test_further_sockets(forza: Forza, server: MetricsServer) -> None:
    """Of several, the first is the start, and the others are told as listening."""
    ports = {free_port(), free_port()}
    words = " + ".join(map(str, ports)).split()
    start = started(forza, server, "node", JS, *words)
    told = [start, *server.of("health/process/listen")]
    seen = {event["meta"]["port"] for event in told}
    assert seen <= ports
    assert len(seen) == len(told)


@needs_cc
@pytest.mark.parametrize("name", ["/PATH/app.sock", "@ABSTRACT", "app.sock"])
def test_unix(
    forza: Forza, server: MetricsServer, static: Path, tmp_path: Path, name: str
) -> None:
    """A unix socket is told by its path, a relative one by the whole of it; one in the
    abstract namespace begins with @."""
    name = name.replace("/PATH", str(tmp_path)).replace("ABSTRACT", forza.mark)
    shell = f'cd {tmp_path} && exec {static} "$0"'
    start = started(forza, server, "sh", "-c", shell, name)
    expected = str(tmp_path / name) if "sock" in name else name
    assert start["meta"]["path"] == expected
    assert "port" not in start["meta"]


@needs_cc
def test_tcp_is_preferred(forza: Forza, server: MetricsServer, static: Path) -> None:
    """Who has a unix socket and then a TCP port has started with the port."""
    port = free_port()
    start = started(forza, server, static, f"@{forza.mark}", port)
    assert start["meta"]["port"] == port
    (listen,) = server.of("health/process/listen")
    assert listen["meta"]["path"] == f"@{forza.mark}"


def test_strangers(forza: Forza, server: MetricsServer) -> None:
    """Others' sockets, older and newer ones, are not the app's."""
    script = "read -r _; echo done"
    program = forza.start(
        *("-h", server.address, "--start-timeout", 1),
        *("--", "sh", "-c", script),
        stdin=subprocess.PIPE,
    )
    server.wait_for("health/process/spawn")
    with socket.create_server(("127.0.0.1", 0)):
        (start,) = server.wait_for("health/process/start")
    assert (start["metric"], start["meta"]["reason"]) == (0, "timeout")
    forza.wait(program)
    server.wait_closed()
    assert server.of("health/process/listen") == []


def test_udp_alone_is_no_start(forza: Forza, server: MetricsServer) -> None:
    """A UDP port is nothing that others can connect to."""
    script = "require('dgram').createSocket('udp4').bind(0); process.stdin.resume()"
    program = forza.start(
        *("-h", server.address, "--start-timeout", 0.5, "--", "node", "-e", script),
        stdin=subprocess.PIPE,
    )
    (start,) = server.wait_for("health/process/start")
    assert start["metric"] == 0
    program.terminate()
    forza.wait(program)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can see a setuid program's")
@needs_cc
def test_setuid(forza: Forza, server: MetricsServer, static: Path) -> None:
    """A program that changes its user is seen where forza may see it: as root."""
    port = free_port()
    setuid = static.with_name("setuid")
    shutil.copy(static, setuid)
    shutil.chown(setuid, 65534)
    setuid.chmod(0o4755)
    assert started(forza, server, setuid, port)["meta"]["port"] == port
