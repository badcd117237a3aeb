# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold what all connections to drones share: settings, known keys, jump hosts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from solenoid.drones._errors import DronesError
from solenoid.drones._session import Session

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from asyncssh import SSHClientConnection

    from solenoid.drones._dial import Dialler
    from solenoid.drones._inventory import Drone


class Ssh:
    """The way to drones, while it is entered; closes the jump hosts' connections.

    `config` is read instead of ~/.ssh/config, `known_hosts` instead of what that
    says. `accept_new` trusts a host that was never seen and writes its key down; one
    whose key has changed is refused all the same. At most `at_once` connections are
    being made at a time, each within `connect_timeout` seconds. After `keepalive`
    seconds of silence, three times, a drone is taken for lost.
    """

    def __init__(
        self,
        *,
        config: str | None = None,
        known_hosts: str | None = None,
        accept_new: bool = False,
        at_once: int = 16,
        connect_timeout: float = 20.0,
        keepalive: float = 15.0,
    ) -> None:
        self.config = config
        self.known_hosts = known_hosts
        self.accept_new = accept_new
        self.at_once = at_once
        self.connect_timeout = connect_timeout
        self.keepalive = keepalive
        # By this the drones' locks know our run from all others.
        self.run = os.urandom(8).hex()
        # Locks that were held when the connection broke, and until when the drone may
        # not know of it.
        self.lost_locks: dict[tuple[str, str], float] = {}
        self._dialler: Dialler | None = None

    async def __aenter__(self) -> Self:
        """Raises DronesError if asyncssh is not installed."""
        try:
            from solenoid.drones._dial import Dialler
        except ModuleNotFoundError as error:
            if error.name != "asyncssh":
                raise
            raise DronesError(
                "drones need asyncssh, which is not installed: "
                "pip install 'forza-solenoid[ssh]'",
                blame="user",
            ) from None
        self._dialler = Dialler(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._dialler is not None:
            dialler, self._dialler = self._dialler, None
            await dialler.close()

    def session(self, drone: Drone) -> Session:
        """Return the drone's session, to be entered."""
        return Session(self, drone)

    async def connect(self, drone: Drone) -> SSHClientConnection:
        """Make a connection, which the caller closes. Raises SessionError."""
        if self._dialler is None:
            raise RuntimeError("Ssh is not entered")
        return await self._dialler.connect(drone)
