# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A whole deploy by a user who is not root, with sudo and without, and a jump host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.solenoid.drone import SERVER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.sshd import Fleet


class Shop:
    """An app of two versions, and one drone that is reached through a jump host."""

    def __init__(self, fleet: Fleet, folder: Path, sudoers: str) -> None:
        self.server = fleet.add("web", sudoers=sudoers)
        bastion = fleet.add("bastion")
        fleet.config.write_text(
            f"Host web\n HostName 127.0.0.1\n Port {self.server.port}\n"
            f" User deploy\n ProxyJump {bastion.address}\n"
        )
        self.bastion_log = bastion.log
        self.folder, self.app = folder, folder / "shop"
        self.app.mkdir()
        (self.app / "server.js").write_text(SERVER)
        self.inventory = folder / "drones.toml"
        base = ', base = "/mnt/solenoid", sudo = true' if sudoers else ""
        self.inventory.write_text(
            f'[drones]\nweb = {{ host = "web"{base} }}\n'
            '[apps.shop]\nuser = "alice"\nrun_dir = "/mnt/run/shop"\nprobe = "/"\n'
        )

    def do(self, verb: str, *words: str) -> str:
        """Run the program, which has to succeed; return what it prints."""
        command = [sys.executable, "-m", "solenoid", verb, *words]
        command += ["--drones", str(self.inventory)]
        if verb == "deploy":
            # With root there would be a new user for the app.
            asked = "sudo = true" in self.inventory.read_text()
            command += ["--", "--system-user", "nobody"] if asked else []
        else:
            command += ["-a", "shop"]
        state = str(self.folder / "state")
        ended = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": state},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def deploy(self, version: str) -> None:
        """Make the app a version, and deploy it."""
        about = {"name": "shop", "version": version}
        started = {"scripts": {"start": "node server.js"}}
        (self.app / "package.json").write_text(json.dumps({**about, **started}))
        self.do("deploy", str(self.app))

    def status(self) -> dict[str, object]:
        """Return how the app is."""
        found: dict[str, object] = json.loads(self.do("status", "--json"))
        return found


@pytest.mark.parametrize(
    ("sudoers", "user"),
    [("deploy ALL=(root) NOPASSWD: ALL", "nobody"), ("", "deploy")],
    ids=["sudo", "plain"],
)
def test_deploy(fleet: Fleet, tmp_path: Path, sudoers: str, user: str) -> None:
    """Deployed twice and rolled back, by root through sudo, or by the user alone."""
    shop = Shop(fleet, tmp_path, sudoers)
    shop.deploy("1.0.0")
    try:
        assert shop.status()["user"] == user
        shop.deploy("2.0.0")
        assert str(shop.status()["release"]).startswith("2.0.0-")
        shop.do("rollback")
        assert str(shop.status()["release"]).startswith("1.0.0-")
        assert "listening" in shop.do("logs")
        shop.do("break-lock")
    finally:
        shop.do("stop")
    base = "solenoid" if sudoers else ".local/share/solenoid"
    log = (shop.server.home / base / "audit.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["as"] for line in lines} == {"root (deploy)" if sudoers else "deploy"}
    done = [line["what"] for line in lines if line["result"] == "done"]
    assert done == ["deploy", "deploy", "rollback", "stop"]
    assert shop.bastion_log.read_text().count("Accepted publickey") >= 4
