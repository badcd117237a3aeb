# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""From a snapshot to a running app, and what becomes of the one before it."""

from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.solenoid.drone import BROKEN, SERVER, ask, event_of, lives, snapshot
from tests.solenoid.servers import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.drone import Drone


def test_embedded(drone: Drone, place: Path) -> None:
    """No root, no S3, no configuration: a snapshot, a folder, and the app runs."""
    event = drone.start(snapshot(place / "a.tgz"))
    assert event["service"] == "health/process/start"
    assert event["metric"] == 1
    said = ask(event)
    assert said["version"] == "1.0.0"
    assert said["uid"] == drone.user.uid
    assert said["cwd"] == str(drone.release / "package")
    env = said["env"]
    assert env["HOME"] == said["cwd"]
    assert env["TMPDIR"] == env["TEMP"] == str(drone.release / ".tmp")
    assert env["NODE_ENV"] == "production"
    assert env["USER"] == drone.user_name
    assert env["PATH"].startswith(f"{said['cwd']}/node_modules/.bin:")
    # The contract's layout: by links, the current release's.
    for name in ("start.log", "forza.log", "aeternum.state", "events.ndjson"):
        assert (drone.run_dir / name).exists(), name
    assert json.loads((drone.run_dir / "start.log").read_text()) == event
    assert (drone.run_dir / "snapshot" / "package" / "server.js").exists()
    assert not (drone.run_dir / "snapshot.tgz").exists()
    text = (drone.run_dir / "app.pid").read_text()
    assert text == str(drone.status()["keeper"])
    for path in (drone.run_dir, *drone.run_dir.rglob("*")):
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o022, path


def test_life(drone: Drone, place: Path) -> None:
    """start, status, restart, stop, status, start again: each does what it says."""
    event = drone.start(snapshot(place / "a.tgz"), "-e", '{"NAME": "value"}')
    first = ask(event)
    assert first["env"]["NAME"] == "value"
    running = drone.status()
    assert (running["running"], running["state"]) == (True, "running")
    assert running["start"] == event
    assert running["version"] == "1.0.0"
    plain = drone.run("status")
    assert plain.returncode == 0
    assert f"port {event['meta']['port']}" in plain.stdout

    restarted = drone.run("restart")
    assert restarted.returncode == 0, restarted.stderr
    again = ask(event_of(restarted))
    assert again["pid"] != first["pid"]
    assert again["env"]["NAME"] == "value"
    assert drone.pid == running["keeper"]

    stopped = drone.run("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert not lives(again["pid"])
    assert not lives(running["keeper"])
    assert not (drone.run_dir / "app.pid").exists()
    ended = drone.run("status")
    assert ended.returncode == 1
    assert "stopped" in ended.stdout
    assert drone.run("stop").returncode == 0
    assert drone.run("restart").returncode == 25

    # What is there starts as it was, its variables too.
    once_more = drone.run("start")
    assert once_more.returncode == 0, once_more.stderr
    assert ask(event_of(once_more))["env"]["NAME"] == "value"


ORDERS = ["start-first", "stop-first"]


@pytest.mark.parametrize("order", ORDERS)
def test_switch_and_back(drone: Drone, place: Path, order: str) -> None:
    """A new release takes over; one that does not start never does."""
    before = drone.start(snapshot(place / "a.tgz"))
    old = ask(before)
    after = drone.start(snapshot(place / "b.tgz", "1.1.0"), "--order", order)
    assert ask(after)["version"] == "1.1.0"
    assert not lives(old["pid"])
    runs = drone.status()
    broken = snapshot(place / "c.tgz", "1.2.0", BROKEN)
    failed = drone.run("start", "--from", str(broken), "--order", order)
    assert failed.returncode == 22
    assert event_of(failed)["metric"] == 0
    assert "boom" in event_of(failed)["description"]
    assert "app: Error: boom" in failed.stderr
    assert f"release {runs['release']} runs" in failed.stderr
    assert "(blame: user)" in failed.stderr
    now = drone.status()
    assert now["release"] == runs["release"]
    assert now["running"] is True
    assert now["failed"].startswith("1.2.0-")
    assert "status 1" in now["why"]
    assert ask(now["start"])["version"] == "1.1.0"
    assert (now["keeper"] == runs["keeper"]) is (order == "start-first")
    assert drone.pid == now["keeper"]


def test_a_port_of_its_own(drone: Drone, place: Path) -> None:
    """Where the port is fixed the old release makes room, and comes back to it."""
    port = str(free_port())
    words = ("-e", json.dumps({"PORT": port}))
    drone.start(snapshot(place / "a.tgz"), *words)
    after = drone.start(snapshot(place / "b.tgz", "1.1.0"), *words)
    assert after["meta"]["port"] == int(port)
    assert ask(after)["version"] == "1.1.0"
    broken = snapshot(place / "c.tgz", "1.2.0", BROKEN)
    failed = drone.run("start", "--from", str(broken), *words, "--json")
    assert failed.returncode == 22
    said = json.loads(failed.stdout)
    assert said["ok"] is False
    assert (said["step"], said["blame"], said["status"]) == ("start", "user", 22)
    assert "boom" in said["output"]
    assert said["running"].startswith("1.1.0-")
    assert ask(after)["version"] == "1.1.0"


def test_time_out(drone: Drone, place: Path) -> None:
    """An app that does not get anywhere is ended; what it said is told."""
    idle = "console.log('thinking'); setInterval(() => {}, 1000);\n"
    archive = snapshot(place / "a.tgz", server=idle)
    words = ("start", "--from", str(archive), "--start-timeout", "0.5")
    ended = drone.run(*words, "--json")
    assert ended.returncode == 21
    said = json.loads(ended.stdout)
    assert said["output"] == "thinking\n"
    assert said["error"] == "the app had not started after 0.5 s"
    assert said["running"] is None
    assert drone.status()["running"] is False
    # As the original's: the caller reads the metric.
    legacy = drone.run(*words, "--legacy-exit")
    assert legacy.returncode == 0
    assert event_of(legacy)["metric"] == 0
    missing = drone.run("start", "--from", "file:./none.tgz", "--legacy-exit")
    assert missing.returncode == 1


def test_as_before(drone: Drone, place: Path) -> None:
    """A release that is there starts as it was, unless there is a word on how."""
    pidfile = place / "run" / "named.pid"
    archive = snapshot(place / "a.tgz")
    words = ("-u", "alice", "-a", "shop", "-p", str(pidfile), "-e", '{"A": "1"}')
    drone.start(archive, *words)
    again = drone.run("start")
    assert again.returncode == 0, again.stderr
    event = event_of(again)
    assert event["meta"]["app"] == {"user": "alice", "name": "shop"}
    assert ask(event)["env"]["A"] == "1"
    assert pidfile.read_text() == str(drone.status()["keeper"])
    other = drone.run("start", "-e", '{"A": "2"}')
    assert ask(event_of(other))["env"]["A"] == "2"
    assert "app" not in event_of(other)["meta"]
    assert not pidfile.exists()
    assert drone.pid == drone.status()["keeper"]


def test_not_started_yet(one: Drone, place: Path) -> None:
    """An app that hangs after a restart is not said to be well."""
    hangs = (
        "const fs = require('fs');\n"
        "if (fs.existsSync('hang')) setInterval(() => {}, 1000);\n"
        "else { fs.writeFileSync('hang', '');\n" + SERVER + "}\n"
    )
    archive = snapshot(place / "a.tgz", server=hangs)
    one.start(archive, "--start-timeout", "1")
    failed = one.run("restart")
    assert failed.returncode == 21
    assert event_of(failed)["meta"]["reason"] == "timeout"
    said = one.run("status")
    assert "it has not started: timeout" in said.stdout
