# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Reach a drone, and have an app there to oneself for as long as one is there."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid.drones._lock import lock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from solenoid.drones._inventory import Drone
    from solenoid.drones._lock import Lock
    from solenoid.drones._session import Session
    from solenoid.drones._ssh import Ssh

    # Told two words about what is being done.
    Tell = Callable[[str, str], None]
    Connect = Callable[[Drone, Tell], AbstractAsyncContextManager["Reached"]]


@dataclass(frozen=True, slots=True)
class Reached:
    """A drone we are connected to, and the app's lock there, if it is held."""

    session: Session
    lock: Lock | None = None


def connector(
    ssh: Ssh, *, run_dir: str | None = None, what: str = "", wait: float = 0.0
) -> Connect:
    """Return what connects to drones, and locks the app in `run_dir` for `what`.

    Who has the lock is waited for, up to `wait` seconds.
    """

    @asynccontextmanager
    async def connect(drone: Drone, tell: Tell) -> AsyncIterator[Reached]:
        async with ssh.session(drone) as session:
            if run_dir is None:
                yield Reached(session)
                return
            tell("lock", "")
            async with lock(
                session,
                drone.fill(run_dir),
                what,
                wait=wait,
                on_wait=lambda holder: tell("lock", f"waits for {holder}"),
            ) as held:
                yield Reached(session, held)

    return connect
