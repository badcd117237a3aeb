# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whoever waits is told for what."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import pytest

from solenoid._console import Console
from solenoid.drones import _progress
from solenoid.drones._errors import SessionError
from solenoid.drones._inventory import Drone
from solenoid.drones._result import Result, Step
from solenoid.drones._ssh import Ssh
from solenoid.drones.commands import _waiting
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from pathlib import Path


class Out(io.StringIO):
    """Text, and an event that is set when a line has come."""

    def __init__(self) -> None:
        super().__init__()
        self.came = asyncio.Event()

    def write(self, text: str) -> int:
        """Take a line."""
        self.came.set()
        return super().write(text)


def test_plain_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time without a line, one says which drones are at what."""
    monkeypatch.setattr(_progress, "SILENCE", 0.01)

    async def main() -> None:
        out = Out()
        lines = _progress.Lines(out, 3)
        for name in ("web1", "web2", "web3"):
            lines.step(Step(name, "connect"))
        lines.step(Step("web2", "lock", "waits for al@a"))
        lines.result(Result("web1", "done"))
        out.came.clear()
        await asyncio.wait_for(out.came.wait(), PATIENCE)
        lines.close()
        told = out.getvalue().splitlines()
        assert told[0] == "[1/3] web1: done"
        assert told[1] == "waiting for web2 (lock waits for al@a), web3 (connect)"

    asyncio.run(main())


def test_saying(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What takes long is named, again and again, and not when it is over."""
    monkeypatch.setattr(_waiting, "EVERY", 0.02)

    async def main() -> None:
        async with _waiting.saying(Console(), "packing shop"):
            await asyncio.sleep(0.2)
        said = capsys.readouterr().err.splitlines()
        assert said[0] == "info: still packing shop, for 0 s"
        await asyncio.sleep(0.1)
        assert not capsys.readouterr().err

    asyncio.run(main())


def test_a_configuration_that_hangs(tmp_path: Path) -> None:
    """A command in ~/.ssh/config that does not end is an error after the time-out."""
    config = tmp_path / "config"
    config.write_text('Match exec "sleep 3"\nUser nobody\n')

    async def main() -> None:
        async with Ssh(config=str(config), connect_timeout=0.2) as ssh:
            with pytest.raises(SessionError, match="cannot be read within") as e:
                await ssh.connect(Drone("web", "127.0.0.1"))
            assert e.value.kind == "timeout"

    asyncio.run(main())
