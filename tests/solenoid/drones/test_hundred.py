# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A hundred drones, some of them bad: the others get it, and a retry is for the bad."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from solenoid.cli import _main
from solenoid.drones._record import last_run, state_home
from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drones.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMES = [f"web{number:03}" for number in range(100)]
DEAD = NAMES[10:60:10]
FAILING = [NAMES[7], NAMES[55], NAMES[99]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home; the state is kept below it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@asynccontextmanager
async def hundred(home: Path) -> AsyncIterator[dict[str, Scripted]]:
    """Run the drones, and write the inventory of them."""
    async with scripted(*NAMES) as drones:
        lines = ["[defaults]", 'host = "127.0.0.1"', "[drones]"]
        lines += [f"{name} = {{port = {one.port}}}" for name, one in drones.items()]
        (home / "drones.toml").write_text("\n".join(lines) + "\n")
        yield drones


async def run(home: Path, *words: str) -> tuple[int, list[dict[str, object]], str]:
    """Run the program beside the drones; return status, JSON lines and stderr."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "solenoid", "run", "--drones", "drones.toml"),
        *("--accept-new", "--json", *words, "--", "greet", "all"),
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 4 * PATIENCE)
    assert child.returncode is not None
    lines = [json.loads(line) for line in out.splitlines()]
    return child.returncode, lines, err.decode()


async def refuse(words: list[str], said: str) -> tuple[int, str, str]:
    """Be a drone on which nothing works."""
    return 3, "", "no such luck\n"


async def greet(words: list[str], said: str) -> tuple[int, str, str]:
    """Be a drone that answers."""
    return 0, "hello", ""


def test_ninety_two_of_a_hundred(home: Path) -> None:
    """Five are unreachable, three fail: 92 succeed; a retry touches the other eight."""

    async def main() -> None:
        async with hundred(home) as drones:
            for name in DEAD:
                server = drones[name].server
                assert server is not None
                server.close()
            for name in FAILING:
                drones[name].script = refuse
            status, lines, err = await run(home)
            assert status == 30, err
            summary = lines.pop()
            assert summary["summary"] == "92 done, 8 failed"
            bad = {line["drone"]: line for line in lines if not line["ok"]}
            assert set(bad) == {*DEAD, *FAILING}
            assert all(bad[name]["step"] == "connect" for name in DEAD)
            assert all(bad[name]["error"] == "greet: status 3" for name in FAILING)
            assert all(bad[name]["output"] == "no such luck\n" for name in FAILING)
            before = {name: drone.connected for name, drone in drones.items()}
            assert sum(before.values()) == 95
            for name in FAILING:
                drones[name].script = None
            status, lines, err = await run(home, "--retry-failed")
            assert status == 30, err
            assert {line["drone"] for line in lines[:-1]} == {*DEAD, *FAILING}
            touched = {
                name
                for name, drone in drones.items()
                if drone.connected != before[name]
            }
            assert touched == set(FAILING)
            status, lines, err = await run(home, "--retry-failed")
            assert status == 31
            assert {line["drone"] for line in lines[:-1]} == set(DEAD)

    asyncio.run(main())


def test_stops_early(home: Path) -> None:
    """With a limit it ends long before all have failed, and says who was spared."""

    async def main() -> None:
        async with hundred(home) as drones:
            for drone in drones.values():
                drone.script = refuse
            status, lines, _ = await run(
                home, "--max-fail", "10%", "--batch", "5", "--parallel", "5"
            )
            assert status == 31
            assert lines[-1]["stopped"] == "11 failed, and 10 may"
            states = [line["state"] for line in lines[:-1]]
            assert states.count("untouched") == 85
            assert states.count("failed") == 15
            assert sum(bool(drone.connected) for drone in drones.values()) == 15

    asyncio.run(main())


def test_nobody_reads_it(home: Path) -> None:
    """A reader that hangs up, and a state that cannot be kept, do not end a change."""

    async def main() -> None:
        async with hundred(home) as drones:
            (home / "state").write_text("not a folder")
            command = (
                f"{sys.executable} -m solenoid run --drones drones.toml --accept-new"
                " --json -- greet all | head -n 1; exit ${PIPESTATUS[0]}"
            )
            child = await asyncio.create_subprocess_exec(
                *("bash", "-c", command),
                cwd=home,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            out, err = await asyncio.wait_for(child.communicate(), 4 * PATIENCE)
            assert child.returncode == 0, err
            assert len(out.splitlines()) == 1
            assert b"this run is not written down" in err
            assert all(drone.asked == ["greet"] for drone in drones.values())

    asyncio.run(main())


def test_on_a_terminal(home: Path) -> None:
    """A terminal has a bar that moves, failures above it, and then the table."""

    async def main() -> None:
        async with hundred(home) as drones:
            for drone in drones.values():
                drone.script = greet
            drones["web007"].script = refuse
            ours, theirs = pty.openpty()
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "solenoid", "run", "--drones", "drones.toml"),
                *("--accept-new", "--", "greet", "all"),
                cwd=home,
                env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "70"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=theirs,
            )
            os.close(theirs)
            reading = asyncio.create_task(asyncio.to_thread(read_all, ours))
            out, _ = await asyncio.wait_for(child.communicate(), 4 * PATIENCE)
            said = await reading
            assert child.returncode == 30
            heard, _, table = out.decode().partition("DRONE")
            assert heard.startswith("web000, web001, web002, web003, web004 and 94")
            assert heard.endswith("more:\n  | hello\n")
            rows = [line.split() for line in ("DRONE" + table).splitlines()]
            assert rows[0][:2] == ["DRONE", "STATE"]
            assert [row[0] for row in rows[1:]] == NAMES
            assert "web007: failed" in said
            assert "\x1b[J" in said
            assert " of 100" in said
            # What moved is gone: after the last clearing there is no bar.
            assert "[#" not in said.rpartition("\x1b[J")[2]
            assert "  | no such luck" in said

    asyncio.run(main())


def read_all(terminal: int) -> str:
    """Read what is written to a terminal until nobody has it any more."""
    said = b""
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 1 << 16):
            said += data
    os.close(terminal)
    return said.decode()


def test_record(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed deployer has left says who had begun; nothing to retry is said."""
    assert _main(["run", "--drones", "web1", "--retry-failed", "--", "true"]) == 2
    assert "there is no earlier run to retry: web1" in capsys.readouterr().err
    state_home().mkdir(parents=True)
    lines = [
        '{"verb": "run", "scope": "web1 true", "drones": ["a", "b", "c", "d"]}',
        '{"drone": "a", "begun": true}',
        '{"drone": "b", "begun": true}',
        '{"drone": "a", "state": "done"}',
        '{"drone": "c", "sta',
    ]
    (state_home() / "20260101T000000.0Z-run-1.jsonl").write_text("\n".join(lines))
    last = last_run("run", "web1 true")
    assert last is not None
    assert last.unfinished == ("b", "c", "d")
    assert last_run("start", "web1 true") is None
    assert last_run("run", "web2 true") is None
