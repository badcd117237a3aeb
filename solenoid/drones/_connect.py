# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Reach a drone, and have an app there to oneself for as long as one is there."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid._errors import AbsentError
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
    """A drone we are connected to, and the app's lock there, if it is held.

    `absent`: there was nothing to lock, since there is no app.
    """

    session: Session
    lock: Lock | None = None
    absent: bool = False


def connector(
    ssh: Ssh,
    *,
    run_dir: str | None = None,
    what: str = "",
    wait: float = 0.0,
    make: bool = True,
) -> Connect:
    """Return what connects to drones, and locks the app in `run_dir` for `what`.

    Who has the lock is waited for, up to `wait` seconds. Without `make` nothing is made
    where there is no run directory.
    """

    @asynccontextmanager
    async def connect(drone: Drone, tell: Tell) -> AsyncIterator[Reached]:
        async with ssh.session(drone) as session:
            if run_dir is None:
                yield Reached(session)
                return
            tell("lock", "")
            held = lock(
                session,
                drone.fill(run_dir),
                what,
                wait=wait,
                make=make,
                on_wait=lambda holder: tell("lock", f"waits for {holder}"),
            )
            async with AsyncExitStack() as stack:
                ours = None
                with suppress(AbsentError):
                    ours = await stack.enter_async_context(held)
                yield Reached(session, ours, absent=ours is None)

    return connect
