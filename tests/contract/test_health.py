# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Learn from the events themselves how forza is, and what its sinks hold back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.conftest import MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza


def test_health(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """Of each sink it is told whether it is connected, and what waits for it; and of
    forza how much memory it takes. A sink that goes away is told by the others."""
    away = MetricsServer()
    away.close()
    program = forza.start(
        *("-h", server.address, "--to", f"tcp:{away.address}"),
        *("--to", f"file:{tmp_path / 'events'}", "--", "sleep", 1000),
    )
    told = {e["meta"]["sink"]: e for e in server.wait_for("telemetry/sink", 3)}
    here, gone = told[f"tcp:{server.address}"], told[f"tcp:{away.address}"]
    file = told[f"file:{tmp_path / 'events'}"]
    assert (here["metric"], gone["metric"], file["metric"]) == (1, 0, 1)
    assert here["meta"]["lag"] < gone["meta"]["lag"]
    assert 0 < gone["meta"]["lag"] < time.time() - server.events[0]["time"] + 0.01
    assert gone["meta"]["buffered"] > 1000
    assert file["meta"]["lag"] == file["meta"]["buffered"] == 0
    assert {e["meta"]["spooled"] for e in told.values()} == {0}
    (own,) = server.wait_for("telemetry/process")
    assert own["metric"] > own["meta"]["anonymous"] > 1 << 20
    with MetricsServer(port=away.port) as back:
        # It is said to the one that is back, too, and only of that one.
        (event,) = back.wait_for("telemetry/sink", 4)[3:]
        assert event["meta"]["sink"] == f"tcp:{away.address}"
        assert event["metric"] == 1
        program.terminate()
        forza.wait(program)
    server.wait_closed()
    assert len(server.of("telemetry/sink")) == 4


def test_health_of_a_spool(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """What waits on disk is told apart from what waits in memory, and how old it is."""
    away = MetricsServer()
    away.close()
    program = forza.start(
        *("--spool", tmp_path, "-h", server.address, "--to", f"tcp:{away.address}"),
        *("--flush-timeout", 0.1, "--", "sleep", 1000),
    )
    told = {e["meta"]["sink"]: e for e in server.wait_for("telemetry/sink", 2)}
    meta = told[f"tcp:{away.address}"]["meta"]
    assert meta["spooled"] > 1000
    assert meta["buffered"] == 0
    assert 0 < meta["lag"] < time.time() - server.events[0]["time"] + 0.01
    program.terminate()
    forza.wait(program)
