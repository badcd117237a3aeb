# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A drone that has only sshd and python3 gets solenoid, whole, beside what it runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from solenoid import drones

if TYPE_CHECKING:
    from tests.solenoid.sshd import Fleet, Sshd


async def ensure(server: Sshd, wheelhouse: drones.Wheelhouse) -> list[str]:
    """Have solenoid on a drone."""
    async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
        return await drones.ensure_solenoid(session, wheelhouse)


def test_install(fleet: Fleet) -> None:
    """A drone gets it once, with all its programs; the next time is one command."""
    server = fleet.add("web")

    async def main() -> None:
        wheelhouse = drones.Wheelhouse()
        async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
            words = await drones.ensure_solenoid(session, wheelhouse)
            ended = await session.run([*words, "--version"], check=True)
            assert ended.stdout.startswith(b"solenoid ")
            base = server.home / "solenoid"
            for name in ("solenoid", "forza", "aeternum"):
                program = base / "current" / "bin" / name
                await session.run([str(program), "--help"], check=True)
            forza = base / "current" / "bin" / "forza"
            ended = await session.run([str(forza), "--", "echo", "hello"], check=True)
            assert b'"description":"hello\\n"' in ended.stdout
        before = server.log.read_text().count("Starting session: command")
        assert await ensure(server, wheelhouse) == words
        assert server.log.read_text().count("Starting session: command") == before + 1

    asyncio.run(main())
