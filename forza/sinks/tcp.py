# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events over TCP."""

from __future__ import annotations

from forza.sinks._client import Client, Link
from forza.sinks._dial import dial, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue
    from forza.sinks._client import Attempt, Say


def open_tcp(
    monitor: Monitor, name: str, servers: Sequence[tuple[str, int]], queue: Queue
) -> Client:
    """Send to the first of the servers that answers."""

    def to(host: str, port: int) -> Attempt:
        async def attempt(say: Say) -> Link | None:
            sock = await dial(monitor.loop, host, port, say)
            return None if sock is None else Link(join(host, port), sock)

        return attempt

    return Client(monitor, name, queue, [to(*server) for server in servers])
