# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""One drone, one connection: what commands get, print and end with, by real OpenSSH."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from solenoid import drones
from tests.conftest import PATIENCE
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
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


@pytest.fixture
def web(fleet: Fleet) -> Iterator[tuple[Sshd, Proxy, drones.Drone]]:
    """A server, a network before it, and the drone as reached through that."""
    server = fleet.add("web")
    fleet.config.write_text(f"HostKeyAlias [127.0.0.1]:{server.port}\n")
    with Proxy(server.port) as proxy:
        yield server, proxy, replace(server.drone, port=proxy.port)


@pytest.mark.parametrize("how", ["reset", "close", "stall"])
def test_cut_while_sending(
    web: tuple[Sshd, Proxy, drones.Drone], tmp_path: Path, how: str
) -> None:
    """Of a transfer that is cut, or stands still, nothing is left on the drone."""
    server, proxy, drone = web
    local = tmp_path / "local"
    local.write_bytes(os.urandom(1 << 20) * 8)
    there = server.home / "there"
    there.write_text("before")

    async def main() -> None:
        ssh = drones.Ssh(keepalive=0.3)
        async with ssh, ssh.session(drone) as session:
            begun = asyncio.create_task(session.put(local, str(there)))
            if how == "stall":
                await until(lambda: len(list(server.home.iterdir())) == 2)
                proxy.stall()
            else:
                proxy.cut(how, 3 << 20)
            with pytest.raises(drones.SessionError, match="web: ") as caught:
                await begun
            assert caught.value.kind == "lost"
            with pytest.raises(drones.SessionError) as caught:
                await session.run(["true"])
            assert caught.value.kind == "lost"
        if how == "stall":
            proxy.reset()
        await until(lambda: [path.name for path in server.home.iterdir()] == ["there"])

    asyncio.run(main())
    assert there.read_text() == "before"


def test_a_server_that_dies(fleet: Fleet) -> None:
    """A command whose server is killed is lost, not ended."""

    async def act(session: drones.Session) -> None:
        with pytest.raises(drones.SessionError, match="connection was lost") as caught:
            await session.run(["sh", "-c", "kill -9 $PPID; sleep 60"])
        assert caught.value.kind == "lost"

    on(fleet.add("web"), act)


def test_a_command_that_takes_too_long(fleet: Fleet) -> None:
    """A command that is given up sees its input end; the session goes on."""
    server = fleet.add("web")
    mark = server.home / "ended"

    async def act(session: drones.Session) -> None:
        waits = ["sh", "-c", 'cat; echo >"$1"', "sh", str(mark)]
        held = asyncio.create_task(session.run(waits, input=endless()))
        with pytest.raises(drones.SessionError, match="sleep did not end") as c:
            await session.run(["sleep", "60"], timeout=0.2)
        assert c.value.kind == "timeout"
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert (await session.run(["echo", "on"])).stdout == b"on\n"
        await until(mark.exists)

    on(server, act)


async def endless() -> AsyncIterator[bytes]:
    """Write and write."""
    while True:
        yield b"y" * 1000
        await asyncio.sleep(0.01)


def test_what_is_printed(fleet: Fleet) -> None:
    """Output is seen as it comes, all of it, while little is kept."""

    async def act(session: drones.Session) -> None:
        out, err = 0, 0

        def count_out(data: bytes) -> None:
            nonlocal out
            out += len(data)

        def count_err(data: bytes) -> None:
            nonlocal err
            err += len(data)

        flood = "head -c 30000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo end"
        ended = await session.run(
            ["sh", "-c", flood], on_output=count_out, on_error=count_err
        )
        assert (out, err) == (30_000_004, 20_000_000)
        assert ended.dropped == out + err - 2 * 256 * 1024
        assert ended.stdout.endswith(b"\0end\n")

        first = asyncio.Event()
        channel = await session.open(["cat"], on_output=lambda data: first.set())
        channel.write(b"ping\n")
        await first.wait()
        assert not channel.over
        await channel.feed(b"pong\n")
        assert (await channel.wait()).stdout == b"ping\npong\n"
        assert channel.over

    on(fleet.add("web"), act)


def test_input_that_nobody_reads(fleet: Fleet) -> None:
    """A command that ends without reading its input has simply ended."""

    async def act(session: drones.Session) -> None:
        ended = await session.run(["sh", "-c", "exit 5"], input=b"x" * 20_000_000)
        assert ended.status == 5

    on(fleet.add("web"), act)


def test_too_many_commands(fleet: Fleet) -> None:
    """More channels than the server allows are an error that says so."""

    async def act(session: drones.Session) -> None:
        held = await session.open(["cat"])
        with pytest.raises(drones.SessionError, match="opens no channel") as caught:
            await session.run(["true"])
        assert caught.value.kind == "refused"
        held.close()

    on(fleet.add("web", "MaxSessions 1"), act)


def test_forward(fleet: Fleet) -> None:
    """A port that only the drone can reach is reached through the connection."""

    async def act(session: drones.Session) -> None:
        async def answer(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write((await reader.readline()).upper())
            writer.close()

        there = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with there:
            reader, writer = await session.forward(there.sockets[0].getsockname()[1])
            writer.write(b"hello\n")
            assert await reader.readline() == b"HELLO\n"
            writer.close()
        with pytest.raises(drones.SessionError, match="cannot connect to") as caught:
            await session.forward(1)
        assert caught.value.kind == "refused"

    on(fleet.add("web"), act)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens on a drone, which tells us nothing of it."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
