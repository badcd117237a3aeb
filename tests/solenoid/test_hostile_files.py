# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""An app that writes what it likes where solenoid reads: it is still stopped."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

import solenoid
from tests.solenoid.drone import Drone, lives, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DEEP = "[" * 60_000
_FORGED = {
    "since": "yesterday",
    "next": 1e300,
    "restarts": "many",
    "last": "words",
    "pid": [],
    "state": {},
    "reason": {"a": "b"},
}


@pytest.mark.parametrize("content", [_DEEP, json.dumps(_FORGED)], ids=["deep", "odd"])
def test_the_state_file(one: Drone, place: Path, content: str) -> None:
    """While the keeper holds it, and once it is gone."""
    one.start(snapshot(place / "a.tgz"))
    state, keeper = one.release / "aeternum.state", one.pid
    said = json.loads(state.read_text())
    # In place: it is the file that the keeper holds.
    state.write_text(content)
    ended = one.run("status")
    assert "Traceback" not in ended.stderr
    assert one.release.name in ended.stdout
    state.write_text(json.dumps(said))
    assert one.run("stop").returncode == 0
    assert not lives(keeper)
    state.write_text(content)
    for words in (["stop"], ["status"], ["releases"]):
        assert "Traceback" not in one.run(*words).stderr


def test_a_fifo_everywhere(one: Drone, place: Path) -> None:
    """Nobody waits for what nobody writes."""
    one.start(snapshot(place / "a.tgz"))
    folder, pidfile = one.release, one.run_dir / "app.pid"
    assert one.run("stop").returncode == 0
    names = ["aeternum.state", "start.log", "forza.log", "package/package.json"]
    for path in (*(folder / name for name in names), pidfile):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    assert one.run("stop").returncode == 0
    assert one.run("status").returncode == 1
    ended = one.run("start", "-t", "100")  # not just as before
    assert ended.returncode == 14
    assert "cannot read package.json: not a file" in ended.stderr


def test_links_of_an_app(one: Drone, place: Path) -> None:
    """A package.json that leads to what has no end, or is somebody else's."""
    one.start(snapshot(place / "a.tgz"))
    assert one.run("stop").returncode == 0
    about = one.release / "package" / "package.json"
    other = place / "other.json"
    other.write_bytes(about.read_bytes())
    about.unlink()
    for target in ("/dev/zero", str(other)):
        about.symlink_to(target)
        ended = one.run("start", "-t", "100")  # not just as before
        assert ended.returncode == 14
        assert "cannot read package.json" in ended.stderr
        about.unlink()
    (about.parent / "inside.json").write_bytes(other.read_bytes())
    about.symlink_to("inside.json")
    assert one.run("start", "-t", "100").returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        lambda: _DEEP,
        lambda: " " * (5 << 20) + "{}",
        lambda: json.dumps({"scripts": {"start": "node a\0b"}}),
        lambda: json.dumps({"scripts": {"start": "node \ud800"}}),
    ],
    ids=["deep", "large", "nul", "half"],
)
def test_package_json(tmp_path: Path, text: Callable[[], str]) -> None:
    """Each is a PackageError."""
    (tmp_path / "package.json").write_text(text())
    with pytest.raises(solenoid.PackageError):
        asyncio.run(solenoid.read_package(tmp_path))


@pytest.mark.parametrize("text", [_DEEP, '{"A": "\\ud800"}'], ids=["deep", "half"])
def test_variables(one: Drone, place: Path, text: str) -> None:
    """One line says so, and nothing runs."""
    archive = snapshot(place / "a.tgz")
    ended = one.run("start", "--from", str(archive), "-e", text)
    assert ended.returncode == 17
    assert "Traceback" not in ended.stderr


def test_codes_for_the_terminal(one: Drone, place: Path) -> None:
    """What an app says before it fails is shown, and does nothing to a terminal."""
    code = "console.error('\\u001b]0;mine\\u0007'); process.exit(1);\n"
    archive = snapshot(place / "a.tgz", "1.0.0", code)
    ended = one.run("start", "--from", str(archive), "-t", "100")
    assert ended.returncode == 21
    assert "\\x1b]0;mine" in ended.stderr
    assert "\x1b" not in ended.stderr + (one.run_dir / "solenoid.log").read_text()
