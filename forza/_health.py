# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say in-band how forza itself is: what sinks hold back, what the monitor takes."""

from __future__ import annotations

import os
from time import time

from forza._files import Kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from forza._monitor import Monitor
    from forza.sinks import Sink

# Looked at with the plugins' readings, which wake the monitor anyway; said if a sink
# was connected or disconnected since the last look, and of all every twelfth time.
_LOOK_SECONDS = 5.0
_SAY_EVERY = 12
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Health:
    """Send `telemetry/sink` and `telemetry/process`: first after 5 s, then each minute.

    The first look, at the start, would find nothing connected yet.
    """

    __slots__ = ("_connected", "_monitor", "_sinks", "_statm")

    def __init__(self, monitor: Monitor, sinks: Sequence[Sink]) -> None:
        self._monitor = monitor
        self._sinks = sinks
        self._connected: dict[Sink, bool] = {}
        self._statm = Kept("/proc/self/statm")

    async def run(self) -> None:
        """Look until cancelled."""
        looks = -1
        try:
            async for _ in self._monitor.every(_LOOK_SECONDS):
                looks += 1
                if looks:
                    self._look(of_all=looks % _SAY_EVERY == 1)
        finally:
            self._statm.close()

    def _look(self, *, of_all: bool) -> None:
        for sink in self._sinks:
            connected, queue = sink.connected, sink.queue
            if not of_all and self._connected.get(sink) == connected:
                continue
            self._connected[sink] = connected
            since = sink.since()
            self._monitor.send(
                "telemetry/sink",
                float(connected),
                meta={
                    "sink": sink.name,
                    "lag": round(max(0.0, time() - since), 3) if since else 0.0,
                    "buffered": queue.size - queue.spooled,
                    "spooled": queue.spooled,
                },
                lifecycle=True,
            )
        if of_all:
            _, resident, shared = self._statm.read().split()[:3]
            pages = int(resident)
            self._monitor.send(
                "telemetry/process",
                float(pages * _PAGE_BYTES),
                meta={"anonymous": (pages - int(shared)) * _PAGE_BYTES},
            )
