# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name what can go wrong between the operator and a drone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from solenoid._errors import Blame, SolenoidError

if TYPE_CHECKING:
    from solenoid.drones._inventory import Drone
    from solenoid.drones._lock import Holder
    from solenoid.drones._session import Completed

# unreachable: no such name, no route, refused, or a server that hangs up at once
# host-key:    unknown, changed, revoked
# auth:        none of our keys will do
# timeout:     nothing was said for too long, while connecting or while running
# lost:        the connection broke
# refused:     the server will not open another channel
Kind = Literal["unreachable", "host-key", "auth", "timeout", "lost", "refused"]


class DronesError(SolenoidError):
    """Any failure of working with many drones."""

    step = "drones"


class InventoryError(DronesError):
    """The inventory cannot be understood; the message names the file and the key."""

    step = "inventory"
    blame: Blame = "user"


class SessionError(DronesError):
    """A drone could not be reached, or not any longer; `kind` says why."""

    step = "connect"

    def __init__(self, drone: Drone, kind: Kind, message: str) -> None:
        super().__init__(f"{drone.name}: {message}")
        self.drone = drone
        self.kind: Kind = kind


class CommandError(DronesError):
    """A command that had to succeed has not; `completed` has its last words."""

    step = "command"

    def __init__(self, drone: Drone, message: str, completed: Completed) -> None:
        super().__init__(f"{drone.name}: {message}")
        self.drone = drone
        self.completed = completed


class LockedError(DronesError):
    """Somebody else has the lock: `holder`."""

    step = "lock"

    def __init__(self, drone: Drone, message: str, holder: Holder | None) -> None:
        super().__init__(f"{drone.name}: {message}")
        self.drone = drone
        self.holder = holder


class LockLostError(DronesError):
    """The lock is ours no more: it was broken, or the drone has not heard of us."""

    step = "lock"

    def __init__(self, drone: Drone, message: str) -> None:
        super().__init__(f"{drone.name}: {message}")
        self.drone = drone


class WheelhouseError(DronesError):
    """What a drone needs to run solenoid could not be gathered here."""

    step = "wheelhouse"


class BootstrapError(DronesError):
    """solenoid could not be put on a drone; what was there before is there."""

    step = "bootstrap"

    def __init__(self, drone: Drone, message: str) -> None:
        super().__init__(f"{drone.name}: {message}")
        self.drone = drone
