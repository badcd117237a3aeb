# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Do one thing on many drones over SSH; they need sshd and python3, and no agent.

    inventory = drones.load("drones.toml", only=["web"])
    async with drones.Ssh() as ssh:
        async for result in drones.run(
            inventory.drones, drones.Command(["uptime"]), ssh=ssh
        ):
            print(result.drone, result.state, result.output)

As with `solenoid` itself, a name is loaded when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from solenoid.drones._actions import Command, Restart, Rollback, Stop
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
    from solenoid.drones._logs import Event, read_logs
    from solenoid.drones._look import Look
    from solenoid.drones._place import Place
    from solenoid.drones._result import Result, Step
    from solenoid.drones._rollout import Strategy
    from solenoid.drones._run import Run, run
    from solenoid.drones._session import Completed, Session
    from solenoid.drones._snapshot import Sent, Stored
    from solenoid.drones._ssh import Ssh
    from solenoid.drones._start import Start
    from solenoid.drones._visit import Action, Outcome, StepError, Visit
    from solenoid.drones._wheelhouse import Wheelhouse

__all__ = (
    "Action",
    "App",
    "BootstrapError",
    "Command",
    "CommandError",
    "Completed",
    "Drone",
    "DronesError",
    "Event",
    "Holder",
    "Inventory",
    "InventoryError",
    "Lock",
    "LockLostError",
    "LockedError",
    "Look",
    "Outcome",
    "Place",
    "Probe",
    "Restart",
    "Result",
    "Rollback",
    "Run",
    "Sent",
    "Session",
    "SessionError",
    "Ssh",
    "Start",
    "Step",
    "StepError",
    "Stop",
    "Stored",
    "Strategy",
    "Visit",
    "Wheelhouse",
    "WheelhouseError",
    "break_lock",
    "ensure_solenoid",
    "load",
    "lock",
    "read_logs",
    "run",
)

_HOMES = {
    "Action": "_visit",
    "App": "_inventory",
    "BootstrapError": "_errors",
    "Command": "_actions",
    "CommandError": "_errors",
    "Completed": "_session",
    "Drone": "_inventory",
    "DronesError": "_errors",
    "Event": "_logs",
    "Holder": "_lock",
    "Inventory": "_inventory",
    "InventoryError": "_errors",
    "Lock": "_lock",
    "LockLostError": "_errors",
    "LockedError": "_errors",
    "Look": "_look",
    "Outcome": "_visit",
    "Place": "_place",
    "Probe": "_inventory",
    "Restart": "_actions",
    "Result": "_result",
    "Rollback": "_actions",
    "Run": "_run",
    "Sent": "_snapshot",
    "Session": "_session",
    "SessionError": "_errors",
    "Ssh": "_ssh",
    "Start": "_start",
    "Step": "_result",
    "StepError": "_visit",
    "Stop": "_actions",
    "Stored": "_snapshot",
    "Strategy": "_rollout",
    "Visit": "_visit",
    "Wheelhouse": "_wheelhouse",
    "WheelhouseError": "_errors",
    "break_lock": "_lock",
    "ensure_solenoid": "_bootstrap",
    "load": "_inventory",
    "lock": "_lock",
    "read_logs": "_logs",
    "run": "_run",
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
