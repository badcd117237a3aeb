# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""One drone, one connection: what commands get, print and end with, by real OpenSSH."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from solenoid import drones

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.solenoid.sshd import Fleet, Sshd


def on(server: Sshd, act: Callable[[drones.Session], Awaitable[object]]) -> object:
    """Do something in a session with one server."""

    async def main() -> object:
        async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
            return await act(session)

    return asyncio.run(main())


def test_run(fleet: Fleet) -> None:
    """Words arrive as they are; input, both outputs and the status come through."""

    async def act(session: drones.Session) -> None:
        words = ["a b", "c'd", '"', "$HOME", "*", "", "é\n"]
        ended = await session.run(["printf", "%s|", *words])
        assert ended.stdout.decode() == "".join(f"{word}|" for word in words)
        assert ended.status == 0

        ended = await session.run(
            ["sh", "-c", "cat; echo bad >&2; exit 7"], input=b"in" * 500_000
        )
        assert (ended.status, ended.stderr) == (7, b"bad\n")
        assert len(ended.stdout) + ended.dropped == 1_000_000
        assert len(ended.stdout) == 256 * 1024

        ended = await session.run(["sh", "-c", "kill -9 $$"])
        assert ended.status == 137
        with pytest.raises(drones.CommandError, match="web: false failed") as caught:
            await session.run(["false"], check=True)
        assert caught.value.completed.status == 1

    on(fleet.add("web"), act)


def test_one_connection(fleet: Fleet) -> None:
    """Whatever is run, and at once, there was one connection."""
    server = fleet.add("web")

    async def act(session: drones.Session) -> None:
        await asyncio.gather(*(session.run(["true"], check=True) for _ in range(8)))
        for _ in range(8):
            await session.run(["true"], check=True)

    on(server, act)
    assert server.log.read_text().count("Accepted publickey") == 1


def test_put(fleet: Fleet, tmp_path: Path) -> None:
    """A file arrives whole."""
    local = tmp_path / "local"
    local.write_bytes(bytes(range(256)) * 20_000)
    server = fleet.add("web")
    on(server, lambda session: session.put(local, str(server.home / "there")))
    assert (server.home / "there").read_bytes() == local.read_bytes()
    assert [path.name for path in server.home.iterdir()] == ["there"]
