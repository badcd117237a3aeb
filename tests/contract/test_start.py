# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Learn that the app has started, if it has, and pass it on once."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza


def test_port(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """`port=N` on descriptor 3 is a start; the start log gets just that line."""
    log = tmp_path / "start.log"
    log.write_text("of an earlier life\n")
    program = forza.start(
        *("-h", server.address, "--start-log", log),
        *("--", CHILDREN / "port.sh", 5333),
        stdin=subprocess.PIPE,
    )
    (start,) = server.wait_for("health/process/start")
    assert start["metric"] == 1
    assert start["meta"]["port"] == 5333
    assert orjson.loads(log.read_bytes()) == start
    assert forza.wait(program).status == 0
    server.wait_closed()
    assert server.of("health/process/start") == [start]
    assert log.read_bytes().count(b"\n") == 1


def test_further_ports(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """A second port is news, but no second start."""
    log = tmp_path / "start.log"
    forza.run(
        *("-h", server.address, "--start-log", log),
        *("--", CHILDREN / "port.sh", 5333, 5334),
    )
    server.wait_closed()
    (start,) = server.of("health/process/start")
    (listen,) = server.of("health/process/listen")
    assert (start["meta"]["port"], listen["meta"]["port"]) == (5333, 5334)
    assert orjson.loads(log.read_bytes()) == start


def test_start_log_of_a_failure(
    forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """The start log of an app that never starts says so, with the app's output."""
    log = tmp_path / "start.log"
    forza.run(
        *("-h", server.address, "--start-log", log),
        *("--", "sh", "-c", "echo no luck >&2; exit 4"),
    )
    server.wait_closed()
    (start,) = server.of("health/process/start")
    assert start["metric"] == 0
    assert start["description"] == "no luck\n"
    assert orjson.loads(log.read_bytes()) == start
    assert log.read_bytes().count(b"\n") == 1


def test_start_log_without_a_server(forza: Forza, tmp_path: Path) -> None:
    """The start log is written even if no server ever listens."""
    log = tmp_path / "start.log"
    ended = forza.run(
        *("-h", "127.0.0.1:1", "--flush-timeout", 0, "--start-log", log),
        *("--", CHILDREN / "port.sh", 80),
    )
    assert ended.status == 0
    assert orjson.loads(log.read_bytes())["meta"]["port"] == 80


def test_too_late(forza: Forza, server: MetricsServer) -> None:
    """An app that is too slow has failed to start; if it does after all, it is late."""
    program = forza.start(
        *("-h", server.address, "--start-timeout", 0.2),
        *("--", "sh", "-c", "echo slow; read -r _; echo port=80 >&3"),
        stdin=subprocess.PIPE,
    )
    (late,) = server.wait_for("health/process/start")
    assert late["metric"] == 0
    assert late["description"] == "slow\n"
    assert program.stdin is not None
    program.stdin.write(b"\n")
    forza.wait(program)
    server.wait_closed()
    assert server.of("health/process/start") == [late]
    (after_all,) = server.of("health/process/late")
    assert (after_all["metric"], after_all["meta"]["port"]) == (1, 80)


def test_output_so_far_is_bounded(forza: Forza, server: MetricsServer) -> None:
    """The output told with a failed start is its last 64 KiB."""
    script = "head -c 300000 /dev/zero | tr '\\0' x; echo the end"
    forza.run("-h", server.address, "--", "sh", "-c", script)
    server.wait_closed()
    (start,) = server.of("health/process/start")
    assert len(start["description"]) == 64 * 1024
    assert start["description"].endswith("xxx" + "the end\n")


@pytest.mark.parametrize("place", ["missing/start.log", "."])
def test_start_log_that_cannot_be(forza: Forza, tmp_path: Path, place: str) -> None:
    """A start log that can't be written is said before the app runs: status 125."""
    ended = forza.run("--start-log", tmp_path / place, "--", "touch", tmp_path / "ran")
    assert ended.status == 125
    assert ended.stderr.startswith("forza: ")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert ended.stdout == b""
