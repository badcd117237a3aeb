# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Do one thing on many drones over SSH; they need sshd and python3, and no agent.

    inventory = drones.load("drones.toml", only=["web"])
    async with drones.Ssh() as ssh, ssh.session(inventory.drones[0]) as session:
        print((await session.run(["uptime"])).stdout.decode())

As with `solenoid` itself, a name is loaded when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from solenoid.drones._bootstrap import ensure_solenoid
    from solenoid.drones._errors import (
        BootstrapError,
        CommandError,
        DronesError,
        InventoryError,
        LockedError,
        LockLostError,
        SessionError,
        WheelhouseError,
    )
    from solenoid.drones._inventory import App, Drone, Inventory, Probe, load
    from solenoid.drones._lock import Holder, Lock, break_lock, lock
    from solenoid.drones._session import Completed, Session
    from solenoid.drones._ssh import Ssh
    from solenoid.drones._wheelhouse import Wheelhouse

__all__ = (
    "App",
    "BootstrapError",
    "CommandError",
    "Completed",
    "Drone",
    "DronesError",
    "Holder",
    "Inventory",
    "InventoryError",
    "Lock",
    "LockLostError",
    "LockedError",
    "Probe",
    "Session",
    "SessionError",
    "Ssh",
    "Wheelhouse",
    "WheelhouseError",
    "break_lock",
    "ensure_solenoid",
    "load",
    "lock",
)

_HOMES = {
    "App": "_inventory",
    "CommandError": "_errors",
    "Completed": "_session",
    "Drone": "_inventory",
    "DronesError": "_errors",
    "Holder": "_lock",
    "Inventory": "_inventory",
    "InventoryError": "_errors",
    "Lock": "_lock",
    "LockLostError": "_errors",
    "LockedError": "_errors",
    "Probe": "_inventory",
    "Session": "_session",
    "SessionError": "_errors",
    "Ssh": "_ssh",
    "BootstrapError": "_errors",
    "WheelhouseError": "_errors",
    "Wheelhouse": "_wheelhouse",
    "ensure_solenoid": "_bootstrap",
    "break_lock": "_lock",
    "load": "_inventory",
    "lock": "_lock",
}


if not TYPE_CHECKING:  # where a slip in a name shall be found

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'solenoid.drones' has no attribute '{name}'")
        home = __import__(f"solenoid.drones.{_HOMES[name]}", None, None, [name])
        value: object = getattr(home, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
