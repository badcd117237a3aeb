# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Fetch by S3 over a line that cuts, stalls, corrupts; and with URLs too old."""

from __future__ import annotations

import asyncio
import os
import time
import urllib.error
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from tests.conftest import PATIENCE
from tests.solenoid.conftest import BUCKET
from tests.solenoid.servers import Line, presigned, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.solenoid.servers import S3Server

MIB = 1 << 20
DATA = os.urandom(MIB) * 21 + b"and the end"
URL = f"s3://{BUCKET}/faults.tgz"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are tested by their number, not by waiting."""
    monkeypatch.setattr("solenoid._retry._FIRST_PAUSE", 0.001)


@pytest.fixture
def line(rclone: S3Server, tmp_path: Path) -> Iterator[Line]:
    """The way to a server that checks signatures, and has the object."""
    (tmp_path / "in").write_bytes(DATA)
    asyncio.run(solenoid.push(tmp_path / "in", URL, options=rclone.options))
    (tmp_path / "in").unlink()
    made = Line(int(rclone.endpoint.rpartition(":")[2]))
    yield made
    made.close()


def fetch(
    line: Line, rclone: S3Server, tmp_path: Path, **more: Any
) -> solenoid.Fetched:
    """Fetch over the line."""
    options = {**rclone.options, "endpoint": f"http://127.0.0.1:{line.port}"}
    to = tmp_path / "out"
    return asyncio.run(solenoid.fetch(URL, to, options=options, **more))


def test_cut(line: Line, rclone: S3Server, tmp_path: Path) -> None:
    """Cut every 5 MB, it comes, whole."""
    line.cut_after, line.cuts = 5 * MIB, 6
    fetched = fetch(line, rclone, tmp_path, connections=1)
    assert (tmp_path / "out").read_bytes() == DATA
    assert fetched.digest_from == "metadata"
    assert line.cuts < 3


def test_busy(line: Line, rclone: S3Server, tmp_path: Path) -> None:
    """503 and the like are asked again, and not for ever."""
    line.fail = [503, 500, 503]
    fetch(line, rclone, tmp_path)
    assert (tmp_path / "out").read_bytes() == DATA
    (tmp_path / "out").unlink()
    line.fail, line.served = [503] * 99, 0
    with pytest.raises(solenoid.TransientError, match=r"503.*\(3 attempts\)"):
        fetch(line, rclone, tmp_path, attempts=3)
    assert line.served == 3
    assert os.listdir(tmp_path) == []


def test_stalled(line: Line, rclone: S3Server, tmp_path: Path) -> None:
    """A line on which nothing comes is left for another."""
    line.stall_after = 2 * MIB
    fetch(line, rclone, tmp_path, stall=1.0, connections=1)
    assert (tmp_path / "out").read_bytes() == DATA
    assert line.stall_after is None


def test_corrupted(line: Line, rclone: S3Server, tmp_path: Path) -> None:
    """One flipped bit is found, and nothing is left."""
    line.flip_at = 3 * MIB
    with pytest.raises(solenoid.DigestError, match="SHA-256 is"):
        fetch(line, rclone, tmp_path)
    assert os.listdir(tmp_path) == []


def test_expired(line: Line, rclone: S3Server, tmp_path: Path) -> None:
    """A presigned URL that is too old is refused at once, and said to be so."""
    link = presigned(rclone, BUCKET, "faults.tgz", seconds=1)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            read(link)
        except urllib.error.HTTPError:
            break
        time.sleep(0.1)
    with pytest.raises(
        solenoid.AccessError, match=r"AccessDenied: .*server's time"
    ) as caught:
        asyncio.run(solenoid.fetch(link, tmp_path / "out"))
    assert "Signature=" not in str(caught.value)
    assert os.listdir(tmp_path) == []
