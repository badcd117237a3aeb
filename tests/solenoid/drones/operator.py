# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Play the operator: a folder with an app, an inventory of real drones, the program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import SERVER, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.solenoid.sshd import Fleet, Sshd

# On drones that are one machine, root's apps are somebody's who is there already; and
# an app that has lived for a tenth of a second lives.
_AS = ("--system-user", "nobody") if os.geteuid() == 0 else ()
OPTIONS = ("-t", "100", *_AS)


class Operator:
    """Whoever deploys, in `folder`.

    The drones' run directories are in `place`; their solenoid, which is the same for
    all tests, in `bases`.
    """

    def __init__(self, folder: Path, place: Path, bases: Path, fleet: Fleet) -> None:
        self.folder, self.place, self.fleet = folder, place, fleet
        self.bases = bases
        self.drones: dict[str, Sshd] = {}
        self.ports: dict[str, int] = {}
        self.app = folder / "shop"
        self.app.mkdir()
        self.version("1.0.0")
        self.inventory = folder / "drones.toml"
        # Whatever is beside us is not for the drones to find, nor for us.
        kept = ("PATH", "HOME", "XDG_CACHE_HOME", "LANG")
        self.environ = {k: v for k, v in os.environ.items() if k in kept}
        self.environ["XDG_STATE_HOME"] = str(folder / "state")
        self.environ["PYTHONPATH"] = str(ROOT)

    def add(self, *names: str) -> None:
        """Start drones, and have them in the inventory."""
        node = shutil.which("node")
        assert node is not None
        path = f"{os.path.dirname(node)}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        for name in names:
            home = self.fleet.folder / name / "home"
            keys = self.keys(name)
            self.drones[name] = self.fleet.add(
                name, f"SetEnv HOME={home} PATH={path}", f"AuthorizedKeysFile {keys}"
            )
            shutil.copy(self.fleet.folder / "authorized_keys", keys)
        self.write()

    def keys(self, name: str) -> Path:
        """Return where a drone has the keys that it knows."""
        return self.fleet.folder / f"{name}.keys"

    def write(self, *lines: str) -> None:
        """Write the inventory, with more lines for the app."""
        made = ["[drones]"]
        for name, server in self.drones.items():
            drone = server.drone
            where = {"port": self.ports.get(name, server.port), "user": drone.user}
            about = {"host": drone.host, **where, "base": str(self.bases / name)}
            about["srv"] = str(self.place / name)
            shown = ", ".join(f"{key} = {json.dumps(v)}" for key, v in about.items())
            made.append(f"{name} = {{{shown}}}")
        made += ["[apps.shop]", 'user = "alice"', 'run_dir = "{srv}/shop"', *lines]
        self.inventory.write_text("\n".join(made) + "\n")

    def version(self, version: str, server: str = SERVER, **files: str) -> None:
        """Make the app another version."""
        about = {"name": "shop", "version": version}
        about["scripts"] = {"start": "node server.js"}  # type: ignore[assignment]
        (self.app / "package.json").write_text(json.dumps(about))
        (self.app / "server.js").write_text(server)
        for name, text in files.items():
            (self.app / name).write_text(text)

    def popen(self, verb: str, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start the program."""
        command = [sys.executable, "-m", "solenoid", verb, "--drones"]
        command += [str(self.inventory), *words]
        if verb in ("start", "deploy"):
            command += ["--", *OPTIONS]
        given: dict[str, Any] = {
            "cwd": self.folder,
            "env": self.environ,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **more,
        }
        return subprocess.Popen(command, **given)

    def run(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        with self.popen(verb, *words) as child:
            try:
                out, err = child.communicate(timeout=2 * PATIENCE)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGABRT)
                raise
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def results(
        self, verb: str, *words: str, status: int = 0
    ) -> dict[str, dict[str, Any]]:
        """Run the program with --json; return the last word on each drone."""
        ended = self.run(verb, "--json", *words)
        assert ended.returncode == status, ended.stderr + ended.stdout
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        self.summary: dict[str, Any] = lines.pop()
        assert self.summary["status"] == status
        return {line["drone"]: line for line in lines}

    def deploy(self, *words: str, status: int = 0) -> dict[str, dict[str, Any]]:
        """Deploy the app as it is now."""
        return self.results("deploy", str(self.app), *words, status=status)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return how the app is on each drone, by the drones' own files."""
        ended = self.run("status", "-a", "shop", "--json")
        lines = map(json.loads, ended.stdout.splitlines())
        return {line["drone"]: line for line in lines}

    def versions(self, names: Sequence[str] = ()) -> dict[str, str | None]:
        """Ask the app on each drone which version it is; None where none runs."""
        found: dict[str, str | None] = {}
        for name, status in self.status().items():
            if not names or name in names:
                why = status.get("error")
                found[name] = None if why == "there is no app" else why
                if status.get("running"):
                    found[name] = ask(status["start"])["version"]
        return found

    def run_dir(self, name: str) -> Path:
        """Return the app's run directory on a drone."""
        return self.place / name / "shop"

    def close(self) -> None:
        """Stop all apps."""
        self.ports.clear()
        self.write()
        with self.popen("stop", "-a", "shop", "--wait", "2m") as child:
            child.communicate()
