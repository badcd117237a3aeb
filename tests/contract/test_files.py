# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Events in files: rotated, moved away, killed; no line lost, none cut in two."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza

FLOOD = (sys.executable, "-S", CHILDREN / "flood.py")


def logs(data: bytes) -> list[str]:
    """Return the app's lines; each line of the file must be an event."""
    events = [orjson.loads(line) for line in data.splitlines()]
    return [e["description"] for e in events if e["service"] == "logs/stdout"]


def rotated(path: Path) -> list[Path]:
    """Return the files of that name, the oldest first."""
    found = path.parent.glob(f"{path.name}.*")
    numbers = sorted((int(file.suffix[1:]) for file in found), reverse=True)
    assert numbers == list(range(len(numbers), 0, -1))
    return [*(path.with_name(f"{path.name}.{n}") for n in numbers), path]


def test_rotation(forza: Forza, tmp_path: Path) -> None:
    """A flood is in the files as it was in the app, and none is larger than said."""
    path = tmp_path / "events"
    plain = forza.run("--", *FLOOD, 30_000)
    ended = forza.run("--to", f"file:{path}?max=256K&keep=200", "--", *FLOOD, 30_000)
    assert ended.status == 0
    files = rotated(path)
    assert len(files) > 10
    assert all(file.stat().st_size <= 256 << 10 for file in files)
    found = [line for file in files for line in logs(file.read_bytes())]
    assert found == logs(plain.stdout)


def test_moved_away_in_a_flood(forza: Forza, tmp_path: Path) -> None:
    """What logrotate does loses nothing."""
    path = tmp_path / "events"
    program = forza.start(
        *("--to", f"file:{path}", "--uptime-interval", 0.05, "--"),
        *("sh", "-c", "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done; cat"),
        stdin=-1,
    )
    moved = 0
    deadline = time.monotonic() + PATIENCE
    while moved < 3:
        assert time.monotonic() < deadline
        if path.exists() and path.stat().st_size:
            moved += 1
            path.rename(tmp_path / f"moved.{moved}")
        time.sleep(0.01)
    forza.wait(program)
    files = [*(tmp_path / f"moved.{n + 1}" for n in range(moved)), path]
    data = b"".join(file.read_bytes() for file in files if file.exists())
    assert logs(data) == [f"{number}\n" for number in range(1, 3001)]


@pytest.mark.parametrize("query", ["", "?max=64K&keep=900"])
def test_killed(forza: Forza, tmp_path: Path, query: str) -> None:
    """Killed at any instant, it leaves whole lines but for the last, and the next
    start puts an end to that."""
    path = tmp_path / "events"
    for turn in range(4):
        program = forza.start(
            *("--to", f"file:{path}{query}", "--"), *FLOOD, 10_000_000
        )
        before = len(list(tmp_path.iterdir()))
        deadline = time.monotonic() + PATIENCE
        while not path.exists() or (
            path.stat().st_size < 100_000 * (turn + 1)
            if not query
            else len(list(tmp_path.iterdir())) < before + 3
        ):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        program.kill()
        program.communicate()
    forza.run("--to", f"file:{path}{query}", "--", "true")
    broken = 0
    for file in rotated(path):
        data = file.read_bytes()
        assert data.endswith(b"\n")
        for line in data.splitlines():
            try:
                orjson.loads(line)
            except orjson.JSONDecodeError:
                broken += 1
    assert broken <= 4


def test_bad_options(forza: Forza, tmp_path: Path) -> None:
    """A slip in the URL is found before the app runs."""
    ended = forza.run("--to", f"file:{tmp_path / 'x'}?max=lots", "--", "echo", "no")
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1
    assert "'lots'" in ended.stderr
    assert list(tmp_path.iterdir()) == []
