# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make connections: ~/.ssh/config, host keys, jump hosts, and no storm of them."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import TYPE_CHECKING

import asyncssh

from solenoid.drones._errors import SessionError
from solenoid.drones._inventory import Drone, parse_address
from solenoid.drones._known_hosts import SYSTEM, USER, KnownHosts
from solenoid.drones._ssh_config import named, read_options

if TYPE_CHECKING:
    from typing import NoReturn

    from asyncssh import SSHClientConnection, SSHClientConnectionOptions, SSHKey

    from solenoid.drones._errors import Kind
    from solenoid.drones._ssh import Ssh

# A server with too many callers at its door (MaxStartups) hangs up on some, at
# random, and does not say why. It is called again after pauses of up to these seconds.
_PAUSES = (0.25, 0.5, 1.0, 2.0, 4.0)


class Dialler:
    """Makes the connections of one run."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh = ssh
        self._turns = asyncio.Semaphore(ssh.at_once)
        self._known: dict[tuple[tuple[str, ...], tuple[str, ...]], KnownHosts] = {}
        self._jumps: dict[str, asyncio.Task[SSHClientConnection]] = {}
        # Which of them is reached through which.
        self._through: dict[str, str] = {}

    async def connect(
        self, drone: Drone, via: str | None = None, jump: str | None = None
    ) -> SSHClientConnection:
        """Connect to a drone. Raises SessionError, which names what is wrong.

        `via` are jump hosts, instead of those that the configuration has; `jump` is
        what the drone is called as one itself.
        """
        try:
            # A `Match exec` in it, or a name server, may take for ever.
            async with asyncio.timeout(self._ssh.connect_timeout):
                options = await read_options(drone, self._ssh.config)
        except TimeoutError:
            within = f"within {self._ssh.connect_timeout:g} s"
            raise SessionError(
                drone, "timeout", f"the SSH configuration cannot be read {within}"
            ) from None
        tunnel = await self._tunnel(drone, options, via, jump)
        for pause in (*_PAUSES, None):
            try:
                async with self._turns, asyncio.timeout(self._ssh.connect_timeout):
                    return await self._attempt(drone, options, tunnel)
            except TimeoutError:
                within = f"within {self._ssh.connect_timeout:g} s"
                raise SessionError(
                    drone, "timeout", f"{_at(options)} does not answer {within}"
                ) from None
            except (asyncssh.ConnectionLost, ConnectionResetError) as error:
                if pause is None:
                    times = f"{len(_PAUSES) + 1} times"
                    raise SessionError(
                        drone,
                        "unreachable",
                        f"{_at(options)} hangs up at once, {times}",
                    ) from error
                await asyncio.sleep(random.uniform(0, pause))
        raise AssertionError("the last attempt returns or raises")

    async def close(self) -> None:
        """Close the connections to jump hosts."""
        tasks = [*self._jumps.values()]
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, BaseException):
                ended.close()
        self._jumps.clear()

    # --- One connection -----------------------------------------------------------

    async def _attempt(
        self,
        drone: Drone,
        options: SSHClientConnectionOptions,
        tunnel: SSHClientConnection | None,
    ) -> SSHClientConnection:
        known = self._known_hosts(options)
        client = _Client(known, options, accept_new=self._ssh.accept_new)
        interval = options.config.get("ServerAliveInterval") or self._ssh.keepalive
        try:
            return await asyncssh.connect(
                drone.host,
                drone.port if drone.port is not None else (),
                config=None,
                options=options,
                tunnel=tunnel,
                known_hosts=known.match,
                client_factory=lambda: client,
                keepalive_interval=interval,
            )
        except (asyncssh.ConnectionLost, ConnectionResetError):
            raise
        except (asyncssh.Error, OSError, ValueError) as error:
            _fail(drone, options, error, client)

    def _known_hosts(self, options: SSHClientConnectionOptions) -> KnownHosts:
        key = (
            named(options, "UserKnownHostsFile", USER),
            named(options, "GlobalKnownHostsFile", SYSTEM),
        )
        if self._ssh.known_hosts is not None:
            key = ((self._ssh.known_hosts,), key[1])
        if key not in self._known:
            self._known[key] = KnownHosts(*key)
        return self._known[key]

    # --- Jump hosts ---------------------------------------------------------------

    async def _tunnel(
        self,
        drone: Drone,
        options: SSHClientConnectionOptions,
        via: str | None,
        jump: str | None,
    ) -> SSHClientConnection | None:
        found = options.tunnel if via is None else via
        if not isinstance(found, str) or found.lower() in ("", "none"):
            return None
        try:
            _, host, port = _hop(found)
        except ValueError as error:
            raise SessionError(drone, "unreachable", f"ProxyJump: {error}") from None
        # `Host *` with ProxyJump is meant for all hosts but the jump host.
        if via is None and host == drone.host and port in (None, options.port):
            return None
        if jump is not None:
            self._check_way(drone, jump, found)
        task = self._jumps.get(found)
        if task is None or _useless(task):
            task = asyncio.create_task(self._jump(found))
            self._jumps[found] = task
        try:
            # All drones behind it share it: one that is given up takes none with it.
            return await asyncio.shield(task)
        except SessionError as error:
            raise SessionError(drone, error.kind, f"jump host {error}") from error

    def _check_way(self, drone: Drone, jump: str, through: str) -> None:
        """Let no two jump hosts wait for each other."""
        self._through[jump] = through
        while through in self._through:
            through = self._through[through]
            if through == jump:
                raise SessionError(
                    drone, "unreachable", f"jump host {jump} is behind itself"
                )

    async def _jump(self, spec: str) -> SSHClientConnection:
        user, host, port = _hop(spec)
        before, _, last = spec.rpartition(",")
        return await self.connect(Drone(last, host, port, user), before or None, spec)


class _Client(asyncssh.SSHClient):
    """Decides on keys that known_hosts does not have, and remembers what it was."""

    def __init__(
        self,
        known: KnownHosts,
        options: SSHClientConnectionOptions,
        *,
        accept_new: bool,
    ) -> None:
        self.known = known
        self.accept_new = accept_new
        # An alias is written down as it is, without a port.
        self._by_alias = options.host_key_alias is not None
        self.refused: str | None = None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: SSHKey
    ) -> bool:
        """Trust a host that nothing is known of, if so told. Never a changed key."""
        place = None if self._by_alias else port
        shown = key.get_fingerprint()
        if not self.known.is_new(host, place):
            self.refused = (
                f"the host key of {host} has CHANGED to {shown}: somebody may be "
                f"listening in, or it was installed anew; if you know that it was, "
                f"remove the old key by ssh-keygen -R '{self.known.name(host, place)}'"
            )
        elif not self.accept_new:
            self.refused = (
                f"the host key of {host} is not known ({shown}): connect once by ssh, "
                f"or use --accept-new"
            )
        else:
            try:
                self.known.add(host, place, key)
                return True
            except OSError as error:
                self.refused = f"cannot write the key of {host} down: {error}"
        return False


def _hop(spec: str) -> tuple[str | None, str, int | None]:
    """Take the last of the jump hosts apart."""
    return parse_address(spec.rpartition(",")[2].removeprefix("ssh://"))


def _useless(task: asyncio.Task[SSHClientConnection]) -> bool:
    if not task.done():
        return False
    return task.cancelled() or bool(task.exception()) or task.result().is_closed()


def _at(options: SSHClientConnectionOptions) -> str:
    return f"{options.host}:{options.port}"


def _fail(
    drone: Drone,
    options: SSHClientConnectionOptions,
    error: Exception,
    client: _Client,
) -> NoReturn:
    """Say in one line what was wrong."""
    at = _at(options)
    if client.refused is not None:
        raise SessionError(drone, "host-key", client.refused) from error
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        raise SessionError(drone, "host-key", f"{at}: {error.reason}") from error
    if isinstance(error, asyncssh.KeyExchangeFailed):
        raise SessionError(
            drone, "host-key", f"no agreement with {at}: {error.reason}"
        ) from error
    if isinstance(error, asyncssh.PermissionDenied):
        raise SessionError(
            drone, "auth", f"{options.username}@{at} takes none of our keys"
        ) from error
    if isinstance(error, asyncssh.ChannelOpenError):
        raise SessionError(
            drone, "unreachable", f"the jump host cannot reach {at}: {error.reason}"
        ) from error
    if isinstance(error, asyncssh.DisconnectError):
        kind: Kind = "auth" if "authentication" in error.reason else "unreachable"
        raise SessionError(
            drone, kind, f"{at} ended the connection: {error.reason}"
        ) from error
    if isinstance(error, socket.gaierror):
        raise SessionError(
            drone, "unreachable", f"cannot find {options.host}: {error.strerror}"
        ) from error
    if isinstance(error, OSError) and error.errno:
        raise SessionError(
            drone, "unreachable", f"cannot connect to {at}: {os.strerror(error.errno)}"
        ) from error
    raise SessionError(
        drone, "unreachable", f"cannot connect to {at}: {error}"
    ) from error
