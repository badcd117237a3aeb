# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be understood by godot, the metrics server that forza was written for.

This is the real one, 0.7.10 from npm. It asks for node 0.10 or 0.12, but its TCP
server runs on today's; it is installed once, into `tests/.cache`.
"""

from __future__ import annotations

import fcntl
import subprocess
from typing import IO, TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN, PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Event
    from tests.contract.conftest import Forza

VERSION = "0.7.10"
CACHE = ROOT / "tests" / ".cache" / "godot"


class Godot:
    """A running godot, and the events that its reactors have seen."""

    def __init__(self, output: IO[bytes]) -> None:
        self._output = output
        self.port: int = orjson.loads(output.readline())["port"]

    def events_until(self, service: str) -> list[Event]:
        """Return the events up to the first of `service`."""
        events: list[Event] = []
        for line in self._output:
            events.append(orjson.loads(line))
            if events[-1]["service"] == service:
                return events
        raise AssertionError(f"no {service} in {events}")


@pytest.fixture(scope="session")
def package() -> Path:
    """The folder of the installed godot."""
    folder = CACHE / "node_modules" / "godot"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two test runs in one checkout do not install into the same folder at once.
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "package.json").exists():
            (CACHE / "package.json").write_text('{"private": true}\n')
            done = subprocess.run(
                ["npm", "install", "--no-audit", "--no-fund", f"godot@{VERSION}"],
                cwd=CACHE,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def godot(package: Path) -> Iterator[Godot]:
    """A godot of one's own, listening."""
    # It is old: what node thinks of its use of Buffer is not to be heard.
    command = ["node", "--no-deprecation", str(CHILDREN / "godot.js"), str(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            yield Godot(server.stdout)
        finally:
            server.terminate()
            server.wait(PATIENCE)


def test_godot(forza: Forza, godot: Godot) -> None:
    """Each event reaches godot's reactors, in order and as it was written.

    godot's parser emits an object twice if what it reads ends between the object and
    its newline, which no sender of more than a segment can prevent: such a repeat
    follows at once.
    """
    program = forza.start(
        *(
            "-h",
            "127.0.0.1",
            "-p",
            godot.port,
            "--hostname",
            "drone",
            "--to",
            "stdout:",
        ),
        *("--app-user", "maciej", "--app-name", "truth"),
        *("--", "node", CHILDREN / "colours.js"),
    )
    received = godot.events_until("health/process/exit")
    ended = forza.wait(program)
    # Its clone keeps the order of keys, and JavaScript's 1.0 is 1: equal all the same.
    once = [
        event for n, event in enumerate(received) if n == 0 or event != received[n - 1]
    ]
    assert once == ended.events
    assert sum(event["service"] == "logs/stdout" for event in once) == 1024
    assert all(type(event["host"]) is str for event in received)


def test_godot_and_any_text(forza: Forza, godot: Godot) -> None:
    """Text of every kind, and lines longer than a segment, arrive as they were."""
    texts = [
        "é日本\U0001f600",
        "\u2028",
        '"quoted\\',
        "\x00\x07\x1b[1m\x7f",
        "x" * 50_000,
    ]
    script = f"for (const t of {orjson.dumps(texts).decode()}) console.log(t)"
    program = forza.start("-h", f"127.0.0.1:{godot.port}", "--", "node", "-e", script)
    received = godot.events_until("health/process/exit")
    forza.wait(program)
    described = [e["description"] for e in received if e["service"] == "logs/stdout"]
    assert described == [f"{text}\n" for text in texts]
