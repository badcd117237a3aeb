# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The original's command line: ~/.solenoidconf, S3, -u -a -v -e -p -m -r -t -o."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from tests.conftest import MetricsServer
from tests.solenoid.conftest import BUCKET, CACHE, npm_package
from tests.solenoid.drone import ROOT, Drone, ask, event_of, lives, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.servers import S3Server

APP = ("-u", "alice", "-a", "shop", "-v", "1.2.0")


class Configured(Drone):
    """A drone whose run directory, storage and servers are in ~/.solenoidconf."""

    def __init__(self, place: Path, config: dict[str, Any]) -> None:
        super().__init__(place)
        home = place / "home"
        home.mkdir()
        home.chmod(0o755)
        text = json.dumps({**config, "runDir": str(self.run_dir)})
        (home / ".solenoidconf").write_text(text)
        self.home = home

    def as_ever(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run solenoid as scripts did: without a run directory among the words."""
        if ROOT and words[0] == "start":
            words = (*words, "--system-user", "nobody", "--start-timeout", "60")
        command = [sys.executable, "-m", "solenoid", *words]
        environ = {"HOME": str(self.home), "AWS_EC2_METADATA_DISABLED": "true"}
        with self.popen(
            "start", args=command, env={**self.environ, **environ}, **more
        ) as child:
            out, err = child.communicate(timeout=60)
        return subprocess.CompletedProcess(command, child.returncode, out, err)


def test_as_ever(place: Path, moto: S3Server, server: MetricsServer) -> None:
    """A snapshot in S3, servers in the configuration, the keeper's pid in a file."""
    archive = snapshot(place / "a.tgz", "1.2.0")
    url = f"s3://{BUCKET}/alice-shop-1.2.0.tgz"
    asyncio.run(solenoid.push(archive, url, options=moto.options))
    config = {
        "storage": {**moto.options, "provider": "amazon", "container": BUCKET},
        "instruments": [{"host": "127.0.0.1", "port": server.port}],
    }
    drone = Configured(place, config)
    pidfile = place / "shop.pid"
    common = (*APP, "-p", str(pidfile), "-r", "6", "-t", "100", "-m", "2000")
    # `start` alone never downloads.
    absent = drone.as_ever("start", *common)
    assert absent.returncode == 25
    assert "no release 1.2.0" in absent.stderr
    try:
        ended = drone.as_ever("start", "-o", *common, "-e", '{"GREETING": "hello"}')
        assert ended.returncode == 0, ended.stderr
        event = event_of(ended)
        assert event["meta"]["app"] == {"user": "alice", "name": "shop"}
        assert ask(event)["env"]["GREETING"] == "hello"
        assert pidfile.read_text() == str(drone.status()["keeper"])
        (sent,) = server.wait_for("health/process/start")
        assert sent == event
        assert server.wait_for("logs/stdout", containing="listening")

        keeper = int(pidfile.read_text())
        restarted = drone.as_ever("restart", "-p", str(pidfile))
        assert restarted.returncode == 0, restarted.stderr
        assert int(pidfile.read_text()) == keeper
        # The release is there, so that it starts without the storage.
        again = drone.as_ever("start", *common)
        assert again.returncode == 0, again.stderr
        assert not lives(keeper)
        # What was not given again is as it was.
        assert ask(event_of(again))["env"]["GREETING"] == "hello"
        keeper = int(pidfile.read_text())
        stopped = drone.as_ever("stop", "-p", str(pidfile))
        assert (stopped.returncode, stopped.stdout) == (0, "")
        assert not pidfile.exists()
        assert not lives(keeper)
    finally:
        drone.close()


def test_what_is_wrong(place: Path) -> None:
    """Bad variables, a bad configuration, no configuration: each by its name."""
    drone = Configured(place, {})
    bad = drone.as_ever("start", *APP, "-e", "{canary")
    assert bad.returncode == 17
    assert "--app-env is not JSON" in bad.stderr
    assert "canary" not in bad.stderr
    none = drone.as_ever("start", "-o", *APP)
    assert none.returncode == 2
    assert "storage" in none.stderr
    assert drone.as_ever("start", "-o", "-u", "alice").returncode == 2
    assert drone.as_ever("start", "-m", "two").returncode == 2
    (drone.home / ".solenoidconf").write_text("{")
    broken = drone.as_ever("start", *APP)
    assert broken.returncode == 10
    assert ".solenoidconf is not JSON" in broken.stderr
    assert drone.as_ever("start", *APP, "--legacy-exit").returncode == 1


@pytest.mark.parametrize("shipped", [True, False], ids=["shipped", "installed"])
def test_express(one: Drone, place: Path, shipped: bool) -> None:
    """A real express app, its node_modules in the snapshot or installed by npm ci."""
    modules = npm_package(CACHE / "express", "express@4.21.2")
    folder = place / "package"
    folder.mkdir()
    about = {
        "name": "shop",
        "version": "1.0.0",
        "scripts": {"start": "node server.js"},
        "engines": {"node": ">= 12"},
        "dependencies": {"express": "4.21.2"},
    }
    (folder / "package.json").write_text(json.dumps(about))
    (folder / "server.js").write_text(
        "const app = require('express')();\n"
        "app.get('/', (request, response) => response.json({ uid: process.getuid() }));"
        "\napp.listen(0, '127.0.0.1');\n"
    )
    if shipped:
        subprocess.run(["cp", "-a", str(modules), str(folder)], check=True)
    else:
        words = ["npm", "install", "--package-lock-only", "--no-audit", "--no-fund"]
        subprocess.run(words, cwd=folder, check=True, capture_output=True)
    archive = place / "express.tgz"
    subprocess.run(["tar", "-czf", archive, "-C", place, "package"], check=True)
    ended = one.run("start", "--from", str(archive), "-t", "100")
    assert ended.returncode == 0, ended.stderr
    assert ("installing dependencies" in ended.stderr) is not shipped
    assert ask(event_of(ended)) == {"uid": one.user.uid}
