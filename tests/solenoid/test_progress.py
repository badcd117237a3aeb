# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Bars and the like: on a terminal, and nowhere else."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from solenoid._console import size_of
from tests.solenoid.drone import Drone, large, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def installs(place: Path) -> Path:
    """Make a snapshot with something to install, and no registry to ask."""
    about = {"name": "shop", "version": "1.0.0", "dependencies": {"dep": "file:dep"}}
    packages = {
        "": about,
        "dep": {"version": "1.0.0"},
        "node_modules/dep": {"resolved": "dep", "link": True},
    }
    lock = {**about, "lockfileVersion": 3, "requires": True, "packages": packages}
    start = {"scripts": {"start": "node server.js"}}
    return snapshot(
        place / "installs.tgz",
        **{
            "package.json": json.dumps({**about, **start}),
            "package-lock.json": json.dumps(lock),
            "dep/package.json": '{"name": "dep", "version": "1.0.0"}',
        },
    )


def on_a_terminal(run: Callable[..., Any]) -> tuple[int, str]:
    """Run something whose stderr is a terminal; return its status and what it shows."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    try:
        with run(stderr=theirs, stdout=subprocess.DEVNULL) as child:
            os.close(theirs)
            while piece := _read(ours):
                shown += piece
            status = child.wait()
    finally:
        os.close(ours)
    return status, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # all who had the other end have closed it
        return b""


def test_a_start_on_a_terminal(one: Drone, place: Path) -> None:
    """How far fetch and unpack are; of npm, how long it has been at it."""
    archive = installs(place)
    words = ("start", "--from", str(archive), "-t", "100")
    status, shown = on_a_terminal(lambda **how: one.popen(*words, **how))
    assert status == 0, shown
    size = re.escape(size_of(archive.stat().st_size))
    for step in ("fetch", "unpack"):
        assert re.search(rf"{step} \[=+\] {size} of {size}\r\n", shown), step
    assert re.search(r"[-|/\\] install \d+ s", shown)
    # What is drawn is wiped, or its line ended, before anything else is said.
    assert not re.search(r"install \d+ s[^\r]*(info|warn|error): ", shown)
    assert (one.release / "package" / "node_modules" / "dep").exists()


def test_a_start_elsewhere(one: Drone, place: Path) -> None:
    """A log has lines, and no bars."""
    ended = one.run("start", "--from", str(installs(place)), "-t", "100")
    assert ended.returncode == 0
    assert not re.search(r"[\r\033]|install \d+ s", ended.stderr)


@pytest.mark.parametrize("to", ["file", "http"])
def test_push(one: Drone, place: Path, request: pytest.FixtureRequest, to: str) -> None:
    """How far it is, whatever the storage."""
    archive = large(place / "a.tgz", 100)
    url = f"{place}/b.tgz"
    if to == "http":
        url = f"{request.getfixturevalue('web').url}/b.tgz"
    size = re.escape(size_of(archive.stat().st_size))
    shown = _pushed(one, str(archive), url)
    assert re.search(rf"push \[=+\] {size} of {size}\r\n", shown)


def _pushed(drone: Drone, *words: str) -> str:
    command = [sys.executable, "-m", "solenoid", "push", *words]

    def run(**how: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=drone.environ, **how)

    status, shown = on_a_terminal(run)
    assert status == 0, shown
    return shown


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (8411, "8.4 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (2 << 30, "2147.5 MB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """No size is 0.0 of anything."""
    assert size_of(size) == text
