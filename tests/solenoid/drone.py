# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the program `solenoid` on this machine, as root or as a plain user."""

from __future__ import annotations

import io
import json
import os
import pwd
import subprocess
import sys
import tarfile
import urllib.request
from typing import TYPE_CHECKING, Any

from solenoid import _privilege
from solenoid._reach import unreachable
from solenoid._restrict import User
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.geteuid() == 0
NOBODY = User("nobody", 65534, 65534)
# What the tests' own environment shall not decide.
_ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"}

SERVER = """\
const http = require('http');
http.createServer((request, response) => {
  response.end(JSON.stringify({
    version: require('./package.json').version, env: process.env, uid: process.getuid(),
    cwd: process.cwd(), pid: process.pid, argv: process.argv,
  }));
}).listen(process.env.PORT || 0, '127.0.0.1', () => console.log('listening'));
"""
BROKEN = "console.log('about to fail');\nthrow new Error('boom');\n"


def snapshot(
    path: Path,
    version: str = "1.0.0",
    server: str = SERVER,
    start: str = "node server.js",
    **files: str,
) -> Path:
    """Make a snapshot as npm pack would; `files` have _ for dots and are added."""
    about = {"name": "shop", "version": version, "scripts": {"start": start}}
    content = {"package.json": json.dumps(about), "server.js": server, **files}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in content.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def large(path: Path, entries: int) -> Path:
    """Make a snapshot with as many entries: of ten, nine are files, half text."""
    about = {"name": "shop", "version": "1.0.0", "scripts": {"start": "node server.js"}}
    folders = entries // 10
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        add("package.json", json.dumps(about).encode())
        add("server.js", SERVER.encode())
        for number in range(folders):
            entry = tarfile.TarInfo(f"package/node_modules/package-{number}/lib")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for number in range(entries - folders - 2):
            folder = f"node_modules/package-{number % folders}/lib"
            data = f"exports.value = {number};\n".encode() * 50 + os.urandom(1000)
            add(f"{folder}/some-module-{number}.js", data)
    return path


def become_plain() -> None:
    """Be a plain user, after fork; what root alone may read is lent, if it must be."""
    own = [sys.executable, os.__file__, __file__, json.__file__]
    _privilege.become(NOBODY, unreachable(NOBODY, own) is not None)


class Drone:
    """One run directory, and whoever runs solenoid on it."""

    def __init__(self, place: Path, name: str = "run", *, root: bool = ROOT) -> None:
        self.place = place
        self.run_dir = place / name
        self.root = root
        self.environ = _ENVIRON
        self.user = NOBODY if ROOT else User("we", os.geteuid(), os.getegid())
        self.user_name = pwd.getpwuid(self.user.uid).pw_name

    @property
    def release(self) -> Path:
        """Return the current release's folder."""
        return (self.run_dir / "snapshot").resolve()

    @property
    def pid(self) -> int:
        """Return what the pidfile says."""
        return int((self.run_dir / "app.pid").read_text())

    def popen(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        """Start solenoid."""
        # A start that says nothing is as before, when this was said.
        if words[0] == "start" and len(words) > 1:
            if self.root:
                words = (*words, "--system-user", NOBODY.name)
            if "--start-timeout" not in words:  # machines may be slow
                words = (*words, "--start-timeout", str(PATIENCE))
        command = [sys.executable, "-m", "solenoid", words[0]]
        command += ["--run-dir", str(self.run_dir), *words[1:]]
        given: dict[str, Any] = {
            "args": command,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": self.environ,
            "cwd": self.place,
            "text": True,
            "preexec_fn": become_plain if ROOT and not self.root else None,
            **more,
        }
        return subprocess.Popen(**given)

    def run(
        self, *words: str, given: str | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run solenoid to its end."""
        if given is not None:
            more["stdin"] = subprocess.PIPE
        with self.popen(*words, **more) as child:
            out, err = child.communicate(given, PATIENCE)
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def start(self, archive: Path, *words: str, **more: Any) -> dict[str, Any]:
        """Start a snapshot, which shall work; return its start event."""
        ended = self.run("start", "--from", str(archive), "-t", "100", *words, **more)
        assert ended.returncode == 0, ended.stderr
        return event_of(ended)

    def status(self) -> dict[str, Any]:
        """Return what `status --json` says."""
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def close(self) -> None:
        """Stop whatever runs."""
        if (self.run_dir / "releases").is_dir():
            ended = self.run("stop")
            assert ended.returncode == 0, ended.stderr


def event_of(ended: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one line of JSON that is all of stdout."""
    (line,) = ended.stdout.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def ask(event: dict[str, Any]) -> dict[str, Any]:
    """Ask the app that has started who it is."""
    url = f"http://127.0.0.1:{event['meta']['port']}/"
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def lives(pid: int) -> bool:
    """Say whether a process has not ended; whoever is to reap it may take its time."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
