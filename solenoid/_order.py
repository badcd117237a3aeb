# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Decide whether a new release starts before the old one ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid._release import current
from solenoid._rundir import START_LOG, RunDir
from solenoid._theirs import json_object, read_tail

if TYPE_CHECKING:
    from solenoid._app import App, Order
    from solenoid._errors import StartError

_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"
_EVENT_MOST = 1 << 20
_IN_USE = ("EADDRINUSE", "ddress already in use")


def clashes(error: StartError) -> bool:
    """Say whether an app has not started because another has its port."""
    return any(word in error.output for word in _IN_USE)


def order_for(place: RunDir, app: App) -> Order:
    """Return in which order to switch: the new one first only if no port can clash."""
    if app.order != "auto":
        return app.order
    name = current(place.path)
    # A platform's apps get the next port if theirs is in use; whether that is wanted,
    # it has to say.
    if name is None or (app.user is not None and app.name is not None):
        return "stop-first"
    event = json_object(read_tail(place.release(name) / START_LOG, _EVENT_MOST))
    try:
        port = event["meta"]["port"]
        with open(_EPHEMERAL, encoding="ascii") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError, KeyError, TypeError):
        return "stop-first"
    # Most probably the kernel has chosen it, and will choose another.
    moved = "asked" in event["meta"]
    return "start-first" if low <= port <= high and not moved else "stop-first"
