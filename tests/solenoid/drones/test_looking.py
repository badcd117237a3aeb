# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""See what apps say and how they are on real drones, running or not."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

from solenoid.drones._logs import Event, _in_order
from tests.conftest import PATIENCE
from tests.solenoid.drone import SERVER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.drones.operator import Operator

NAMES = ("web1", "web2", "web3")
TALKS = SERVER + "console.error('to err'); console.log('more');\n"


def test_logs(operator: Operator) -> None:
    """What three apps have said is one stream, each line with its drone and stream."""
    operator.version("1.0.0", TALKS)
    operator.deploy()
    ended = operator.run("logs", "-a", "shop")
    assert ended.returncode == 0, ended.stderr
    found = [line.split(None, 4) for line in ended.stdout.splitlines()]
    assert {line[0] for line in found} == set(NAMES)
    for name in NAMES:
        said = [(line[3], line[4]) for line in found if line[0] == name]
        assert sorted(said) == [
            ("err", "to err"),
            ("out", "listening"),
            ("out", "more"),
        ]
    assert [line[1:3] for line in found] == sorted(line[1:3] for line in found)
    with operator.popen("logs", "-a", "shop", "-f") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()  # it has seen enough, and says so when more comes
        operator.results("restart", "-a", "shop", "--only", "web1")
        assert child.wait(PATIENCE) == 0
    ended = operator.run("logs", "-a", "shop", "-n", "1", "--only", "web2")
    assert len(ended.stdout.splitlines()) == 1
    ended = operator.run("logs", "-a", "shop", "--all", "--json", "--only", "web2")
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert {event["drone"] for event in events} == {"web2"}
    assert "health/process/start" in {event["service"] for event in events}
    # What cannot be read is said, and costs the others nothing.
    operator.results("stop", "-a", "shop", "--only", "web3")
    shutil.rmtree(operator.run_dir("web3") / "releases")
    ended = operator.run("logs", "-a", "shop")
    assert ended.returncode == 30
    assert "web3: no app in" in ended.stderr
    assert {line.split()[0] for line in ended.stdout.splitlines()} == {"web1", "web2"}


def test_logs_that_are_followed(operator: Operator) -> None:
    """What comes is shown as it comes, the next release's too, and once."""
    operator.deploy()
    with operator.popen("logs", "-a", "shop", "-f", "--json", "-n", "0") as child:
        try:
            assert child.stdout is not None
            # Whoever follows is there when the drones have a process that reads.
            operator.version("2.0.0", SERVER.replace("'listening'", "'here I am'"))
            operator.deploy()
            lines = (json.loads(line) for line in child.stdout)
            here = {}
            for event in lines:
                if event["description"] == "here I am\n":
                    assert event["drone"] not in here
                    here[event["drone"]] = event
                if set(here) == set(NAMES):
                    break
        finally:
            child.send_signal(signal.SIGINT)
        child.stdout.read()
        assert child.wait(PATIENCE) == 130
    assert len({event["meta"]["boot"] for event in here.values()}) == 3


def test_status(operator: Operator) -> None:
    """Apps that run and those that do not, and why, by their files alone."""
    operator.deploy()
    operator.results("stop", "-a", "shop", "--only", "web2")
    server = operator.drones["web3"]
    operator.version("2.0.0", "process.exit(3);\n")
    operator.deploy("--only", "web3", status=31)
    ended = operator.run("status", "-a", "shop")
    assert ended.returncode == 30
    said = dict(line.split(None, 1) for line in ended.stdout.splitlines())
    assert "running for" in said["web1"]
    assert "port" in said["web1"]
    assert "stopped" in said["web2"]
    assert "running for" in said["web3"]
    assert "2.0.0" in said["web3"]
    assert "has failed" in said["web3"]
    assert str(server.folder.name) == "web3"


def test_status_of_fifty(operator: Operator, tmp_path: Path) -> None:
    """Fifty apps on a drone are looked at by one command, whether they run or not."""
    operator.deploy("--only", "web1")
    operator.results("stop", "-a", "shop", "--only", "web1")
    apps = operator.place / "apps"
    for number in range(50):
        shutil.copytree(
            operator.run_dir("web1"), apps / f"app{number:02}", symlinks=True
        )
    log = operator.drones["web1"].log
    before = log.read_text().count("Starting session: command")
    ended = operator.run("status", "--run-dir", str(apps), "--only", "web1", "--json")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 31
    assert len(lines) == 50
    assert {line["state"] for line in lines} == {"stopped"}
    assert log.read_text().count("Starting session: command") == before + 1


def test_order() -> None:
    """Events of several drones come out by their times, however they came in."""

    async def main() -> None:
        inbox: asyncio.Queue[Event | None] = asyncio.Queue()
        times = [3.0, 1.0, 2.0, 2.5, 1.5]
        for number, at in enumerate(times):
            inbox.put_nowait(Event(at, number, "web", {}))
        inbox.put_nowait(None)
        found = [event.time async for event in _in_order(inbox, follow=False)]
        assert found == sorted(times)

    asyncio.run(main())


def test_a_link_leads_nowhere(operator: Operator, tmp_path: Path) -> None:
    """An app that makes its events a link does not get others' files read."""
    operator.deploy("--only", "web1")
    operator.results("stop", "-a", "shop", "--only", "web1")
    secret = tmp_path / "secret"
    secret.write_text('{"time": 1, "service":"logs/stdout", "description": "key"}\n')
    events = operator.run_dir("web1") / "snapshot" / "events.ndjson"
    events.unlink()
    os.symlink(secret, events)
    ended = operator.run("logs", "-a", "shop", "--only", "web1")
    assert "key" not in ended.stdout


def test_events_that_an_app_has_forged(operator: Operator) -> None:
    """They neither end what others see, nor do anything to the terminal."""
    operator.version("1.0.0", TALKS)
    operator.deploy("--only", "web1,web2")
    operator.results("stop", "-a", "shop", "--only", "web1,web2")
    compact = json.JSONEncoder(separators=(",", ":")).encode
    event = {"time": 1, "service": "logs/stdout", "description": "said"}
    forged = [
        compact(event | {"meta": "none"}),
        compact(event | {"meta": {"seq": []}}),
        compact(event | {"time": 1e300}),
        '{"service":"logs/stdout","a":' + "[" * 100_000,
        compact(event | {"service": "logs/stdout\x1b]0;x\x07", "description": "a"}),
        compact(event | {"description": "half \ud800"}),
    ]
    with (operator.run_dir("web1") / "snapshot" / "events.ndjson").open("a") as file:
        file.write("\n".join(forged) + "\n")
    for words in ([], ["--json"]):
        ended = operator.run("logs", "-a", "shop", "--only", "web1,web2", *words)
        assert ended.returncode == 0, ended.stderr
        assert "web2" in ended.stdout
        assert "half" in ended.stdout
        assert "\x1b" not in ended.stdout
