# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Drones in this very process: real SSH servers whose commands are functions."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncssh

from solenoid.drones._inventory import Drone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Answer = tuple[int, str, str]


@dataclass
class Scripted:
    """A drone whose app is made of variables.

    `script` may answer a command of its own; `asked` has all that came, by verb.
    """

    name: str
    port: int = 0
    release: str | None = "1"
    running: bool = True
    fail_start: str = ""
    digest: str = ""  # of the snapshot that was started last
    boots: int = 0  # how often something was started
    hold: asyncio.Event | None = None  # a change waits for it, once it has begun
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    returned: asyncio.Event = field(default_factory=asyncio.Event)  # a second time
    app_port: int = 0
    script: Callable[[list[str], str], Awaitable[Answer | None]] | None = None
    asked: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    server: asyncssh.SSHAcceptor | None = None
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    connected: int = 0
    _made: int = 1
    _tried: bool = False

    def drone(self) -> Drone:
        """Return it as the operator knows it."""
        return Drone(self.name, "127.0.0.1", self.port, "operator")

    def verbs(self, *which: str) -> list[str]:
        """Return which of these it was asked for, in order."""
        return [verb for verb in self.asked if verb in which]

    def cut(self) -> None:
        """Break all connections to it, as a dead router would, only sooner."""
        for connection in self.connections:
            connection.abort()
        self.connections.clear()

    async def answer(self, words: list[str], read: Callable[[], Any]) -> Answer:
        """Do as a solenoid does, as far as a rollout can see."""
        if words[:2] == ["/bin/sh", "-c"] and words[6] == "busy":
            busy = self.hold is not None and not self.hold.is_set()
            return 0, json.dumps({"busy": busy and self.begun.is_set()}), ""
        if words[0] != "solenoid":
            self.asked.append(words[0])
            if self.script is not None:
                found = await self.script(words, await read())
                if found is not None:
                    return found
            return 0, "", ""
        verb = words[1]
        self.asked.append(verb)
        self.words.append(words)
        self.inputs.append(await read() if "-" in words else "")
        if self.script is not None:
            found = await self.script(words, self.inputs[-1])
            if found is not None:
                return found
        if verb == "status":
            return self._status()
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        if verb == "start":
            return self._start(words)
        self.boots += 1
        if verb == "stop":
            self.running = False
        elif verb == "rollback":
            if len(words) < 3 or words[2].startswith("-"):
                self.release = str(int(self.release or 1) - 1)
            else:
                self.release = words[2]
            self.running = True
        return 0, json.dumps(self._event()), ""

    def _status(self) -> Answer:
        if self.release is None:
            said = {"ok": False, "step": "find", "error": "no app in /run"}
            return 25, json.dumps(said), ""
        failed = {"failed": "9", "why": "no port"} if self._tried else {}
        said = {"release": self.release, "running": self.running, **failed}
        said |= {"sha256": self.digest, "start": self._event()}
        return (0 if self.running else 1), json.dumps(said), ""

    def _event(self) -> dict[str, object]:
        meta = {"port": self.app_port, "boot": self.boots}
        return {"service": "health/process/start", "metric": 1, "meta": meta}

    def _start(self, words: list[str]) -> Answer:
        if self.fail_start:
            self._tried = True
            said = {
                "ok": False,
                "step": "start",
                "blame": "user",
                "error": "no port within 15 s",
                "output": self.fail_start,
                "status": 22,
                "running": self.release if self.running else None,
            }
            return 22, json.dumps(said), "error: start\n"
        self._made += 1
        self.release, self.running = str(self._made), True
        self.boots += 1
        if "--sha256" in words:
            self.digest = words[words.index("--sha256") + 1]
        return 0, json.dumps(self._event()), "info: started\n"


class _Server(asyncssh.SSHServer):
    def __init__(self, drone: Scripted) -> None:
        self._drone = drone

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._drone.connected += 1
        if self._drone.connected > 1:
            self._drone.returned.set()
        self._drone.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return False

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True  # asyncssh connects it to the port that was asked for


async def _process(drone: Scripted, process: asyncssh.SSHServerProcess[str]) -> None:
    words = shlex.split(process.command or "")

    async def read() -> str:
        return str(await process.stdin.read())

    with suppress(asyncssh.Error, BrokenPipeError, ConnectionError):
        status, out, err = await drone.answer(words, read)
        process.stdout.write(f"{out}\n" if out else "")
        process.stderr.write(err)
        process.exit(status)


@asynccontextmanager
async def scripted(*names: str) -> AsyncIterator[dict[str, Scripted]]:
    """Run a drone for each name; a name may be of one that is to be switched off."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    drones = {name: Scripted(name) for name in names}
    async with AsyncExitStack() as stack:
        for drone in drones.values():
            drone.server = await asyncssh.listen(
                "127.0.0.1",
                0,
                server_factory=lambda drone=drone: _Server(drone),
                process_factory=lambda process, drone=drone: _process(drone, process),
                server_host_keys=[key],
            )
            drone.port = drone.server.get_port()
            stack.callback(drone.server.close)
        yield drones
        for drone in drones.values():
            drone.cut()
