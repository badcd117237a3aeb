# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read keepers' state files: show them, or tell their keepers something.

A state file outlives its keeper. Whether that lives is what the file's lock says, not
the pid in it, which may be somebody else's by now.
"""

from __future__ import annotations

import json
import os
import sys
from time import time

from forza import _state
from forza._errors import EXIT_PARKED, EXIT_USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal

SIGNALS = {
    "resume": signal.SIGUSR2,
    "restart": signal.SIGUSR1,
    "stop": signal.SIGTERM,
}
RUNNING = ("running", "restarting")
_TRIES = 20
PARKED = "parked"
LOST = "lost"
_NONE = type(None)
_FIELDS: dict[str, tuple[type, ...]] = {
    "state": (str,),
    "since": (int, float, _NONE),
    "reason": (str, _NONE),
    "keeper": (int, _NONE),
    "pid": (int, _NONE),
    "restarts": (int,),
    "failures": (int,),
    "next": (int, float, _NONE),
    "last": (dict, _NONE),
}
STARTING = '{"state": "starting", "since": null, "reason": null}'


def tell(verb: str, words: list[str], program: str = "aeternum") -> int:
    """Do what a verb of the program's asks for; return the status to leave with."""
    try:
        return _tell(verb, words)
    except StatusError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return error.status


class StatusError(Exception):
    """What was asked for can't be done; `status` is what to leave with."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def _tell(verb: str, words: list[str]) -> int:
    options = [word for word in words if word.startswith("-")]
    places = [word for word in words if not word.startswith("-")]
    wrong = [word for word in options if verb != "status" or word != "--json"]
    if wrong:
        see = "try 'aeternum --help'"
        raise StatusError(f"unknown option {wrong[0]}; {see}", EXIT_USAGE)
    if verb != "status" and not places:
        what = "a pidfile, a state file or a folder"
        raise StatusError(f"{verb} needs {what}", EXIT_USAGE)
    paths = []
    for place in places or ["."]:
        found = _find(place)
        if not found:
            raise StatusError(f"there is no state file: {place}")
        paths += found
    states = [load(path) for path in paths]
    if verb == "status":
        show(states, as_json=bool(options))
        if any(state["state"] == PARKED for state in states):
            return EXIT_PARKED
        return 0 if all(state["running"] for state in states) else 1
    failed = []
    for state in states:  # one that is gone is no reason to leave out the others
        try:
            _signal(verb, state)
        except StatusError as error:
            failed.append(str(error))
    if failed:
        raise StatusError("; ".join(failed))
    return 0


def load(path: str) -> dict[str, Any]:
    """Return what a state file says, and what can be told from it."""
    name = os.path.basename(path).removesuffix(".state")
    state: dict[str, Any] = {"name": name, "path": os.path.abspath(path)}
    try:
        data, held = _state.read(path)
        # The very first thing that a keeper does is to hold the file.
        state |= _checked(json.loads(data or STARTING if held else data))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no state file"
        state |= {"state": "unknown", "since": None, "reason": reason.lower()}
        held = False
    if not held and state.get("keeper"):
        # It did not live to say so: nobody knows better than the file's own time.
        state |= {
            "state": LOST,
            "reason": f"the keeper is gone, pid {state['keeper']}",
            "keeper": None,
            "pid": None,
            "next": None,
        }
    state["running"] = held and state["state"] in RUNNING
    return state


def _checked(found: object) -> dict[str, Any]:
    """Return a state as it was read. Raises ValueError for what no keeper writes.

    Whoever may write to the folder may have written it, for us to show or to signal.
    """
    if not isinstance(found, dict):
        raise ValueError(found)
    found = {name: found[name] for name in found if name in _FIELDS}
    for name, value in found.items():
        if not isinstance(value, _FIELDS[name]) or isinstance(value, bool):
            raise ValueError(name)
        if isinstance(value, str):
            found[name] = "".join(c if c.isprintable() else "?" for c in value)
    if (last := found.get("last")) is not None:
        numbers = [last.get(name, "") for name in ("at", "code", "signal", "uptime")]
        if not all(isinstance(n, int | float | None) for n in numbers):
            raise ValueError(last)
    if not found.get("state"):
        raise ValueError(found)
    return found


def show(states: list[dict[str, Any]], *, as_json: bool) -> None:
    """Print one line for each."""
    if as_json:
        for state in states:
            print(json.dumps(state))  # noqa: T201
        return
    width = max((len(state["name"]) for state in states), default=0)
    for state in states:
        print(f"{state['name']:{width}}  {sentence(state, time())}")  # noqa: T201


def sentence(state: dict[str, Any], now: float) -> str:
    """Say how it goes: what it does, since when, and if it does not run, why."""
    words = [state["state"]]
    if state["since"] is not None and state["state"] != LOST:
        words.append(f"for {_span(now - state['since'])}")
    if state.get("pid"):
        words.append(f"pid {state['pid']}")
    if state.get("reason"):
        words.append(state["reason"])
    if state.get("next") is not None:
        words.append(f"next start in {_span(state['next'] - now)}")
    if state.get("keeper"):
        words.append(f"keeper {state['keeper']}")
    if restarts := state.get("restarts"):
        words.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
    last = state.get("last")
    if last:
        end = f"status {last['code']}"
        if last["signal"]:
            end = f"signal {last['signal']}"
        words.append(f"last end {_span(now - last['at'])} ago with {end}")
    return ", ".join(words)


def _span(seconds: float) -> str:
    left = max(0, round(seconds))
    days, hours, minutes = left // 86400, left % 86400 // 3600, left % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left % 60} s" if minutes else f"{left} s"


def _find(place: str) -> list[str]:
    """Return the state files that a pidfile, a state file or a folder stands for."""
    if os.path.isdir(place):
        names = sorted(name for name in os.listdir(place) if name.endswith(".state"))
        return [os.path.join(place, name) for name in names]
    if place.endswith(".state"):
        return [place] if os.path.exists(place) else []
    beside = _state.beside(place)
    if os.path.exists(beside):
        return [beside]
    return [place] if os.path.exists(place) else []


def _holds(pid: int, path: str) -> bool:
    """Say whether it is this process that has the file open, not only who says so."""
    folder = f"/proc/{pid}/fd"
    for _ in range(_TRIES):  # the keeper may be about to replace it
        try:
            file = os.stat(path)
            for name in os.listdir(folder):
                try:
                    if os.path.samestat(os.stat(f"{folder}/{name}"), file):
                        return True
                except FileNotFoundError:
                    continue
        except PermissionError:  # then we may not signal it either
            return True
        except OSError:
            return False
    return False


def _signal(verb: str, state: dict[str, Any]) -> None:
    name, keeper = state["name"], state.get("keeper")
    if keeper is None:
        raise StatusError(f"{name} has no keeper: {state['reason'] or state['state']}")
    # While the lock is held, the pid is the keeper's; the pidfd then stays with it.
    try:
        pidfd = os.pidfd_open(keeper)
    except ProcessLookupError:
        raise StatusError(f"{name} has no keeper any more") from None
    try:
        if load(state["path"]).get("keeper") != keeper or not _holds(
            keeper, state["path"]
        ):
            raise StatusError(f"{name} has no keeper any more")
        signal.pidfd_send_signal(pidfd, SIGNALS[verb])
    except OSError as error:
        reason = str(error.strerror).lower()
        raise StatusError(f"cannot signal the keeper of {name}: {reason}") from None
    finally:
        os.close(pidfd)
