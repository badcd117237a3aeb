# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let an app send metrics of its own, by node's `process.send`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza

# A plugin that says what other messages it gets.
PLUGIN = """
class Hears:
    def __init__(self, monitor, options):
        self.monitor = monitor

    async def run(self):
        pass

    def ipc_data(self, data):
        self.monitor.send("heard", 1.0, data.decode())
"""


def test_metrics(forza: Forza, server: MetricsServer) -> None:
    """A message with a service and a metric is an event, with all it brought."""
    forza.run("-h", server.address, "--", "node", CHILDREN / "sends.js")
    server.wait_closed()
    (queue,) = server.of("app/queue")
    assert queue["metric"] == 12.5
    assert queue["description"] == "jobs"
    assert queue["meta"]["shard"] == "a"
    assert queue["meta"]["boot"] == server.events[0]["meta"]["boot"]
    (odd,) = server.of('app/ünï "x"')
    assert odd["metric"] == -1
    (last,) = server.of("app/last")
    assert last["metric"] == 0
    assert server.events.index(queue) < server.events.index(last)
    assert server.events[-1]["service"] == "health/process/exit"


def test_other_messages(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """Any other message is for the plugins' `ipc_data`."""
    (tmp_path / "hears.py").write_text(PLUGIN)
    forza.run(
        *("-h", server.address, "--plugin", "all", "--plugin", "hears:Hears"),
        *("--", "node", CHILDREN / "sends.js"),
        env={"PYTHONPATH": str(tmp_path)},
    )
    server.wait_closed()
    heard = [event["description"] for event in server.of("heard")]
    assert heard == ['{"hello":"plugin"}', '"only text"']


def test_without_a_channel(forza: Forza) -> None:
    """An app that is not asked to has no channel, and no trace of one."""
    script = "console.log(typeof process.send, process.connected)"
    ended = forza.run("--ipc", "no", "--", "node", "-e", script)
    assert ended.text("logs/stdout") == "undefined undefined\n"
    ended = forza.run("--", "node", "-e", script)
    assert ended.text("logs/stdout") == "function true\n"


def test_channel_does_not_keep_node_alive(forza: Forza) -> None:
    """A node app with nothing left to do ends, channel or not."""
    assert forza.run("--", "node", "-e", "process.send({service: 'a'})").status == 0


@pytest.mark.parametrize(
    "words",
    [
        r"\377\376\n\000\n{\n{}\n[]\nnull\n",
        r"port=\nport=x\nport=-1\nport=0\nport=65536\nport=99999999999999999999\n",
        r"""{"service":"","metric":1}\n{"service":"a","metric":"1"}\n{"service":7}\n""",
        r"""{"service":"a","metric":true}\n{"service":"a","metric":null}\n""",
        r"""{"service":"a","metric":1e999}\n{"service":"a","metric":NaN}\n""",
        r"""{"service":"\\ud800","metric":1}\n{"service":"a" "metric":1}\n""",
        r"%0300000d",
        r"""{"service":"a","metric":1,"x":"%0300000d"}\n""",
    ],
    ids=[
        "no JSON and no objects",
        "ports that are none",
        "a service or metric missing",
        "a metric that is no number",
        "a number that JSON has not",
        "no service, no JSON",
        "too long and without an end",
        "too long",
    ],
)
@pytest.mark.parametrize("ipc", ["yes", "no"])
def test_nonsense(forza: Forza, ipc: str, words: str) -> None:
    """Nonsense on descriptor 3 harms nobody and starts nothing."""
    ended = forza.run("--ipc", ipc, "--", "sh", "-c", 'printf "$0" >&3; echo ok', words)
    assert ended.status == 0
    assert ended.text("logs/stdout") == "ok\n"
    assert ended.of("a") == []
    (start,) = ended.of("health/process/start")
    assert start["metric"] == 0
    assert ended.events[-1]["service"] == "health/process/exit"
    assert ended.stderr == ""


@pytest.mark.parametrize(
    "service",
    [
        *("health/process/exit", "health/process/start", "health/process/memory"),
        *("health/machine/cpu", "telemetry/dropped", "logs/stdout", "logs/stderr"),
    ],
)
def test_nobody_else_is_forza(lean_forza: Forza, service: str) -> None:
    """What forza itself tells of an app, the app cannot."""
    said = f'{{"service":"{service}","metric":42,"description":"forged"}}'
    own = '{"service":"logs/audit","metric":43}'
    script = f"echo '{said}' >&3; echo '{own}' >&3; exit 7"
    ended = lean_forza.run("--", "sh", "-c", script)
    assert ended.status == 7
    assert [e["metric"] for e in ended.of("logs/audit")] == [43]
    assert all(e.get("description") != "forged" for e in ended.events)
    (last,) = ended.of("health/process/exit")
    assert last["meta"]["code"] == 7
