# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Try again and again until something accepts a connection."""

from __future__ import annotations

import _socket

from forza.ready import address
from forza.sinks import _dial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Awaitable, Callable

    from forza.plugins.start import Start

# Between two tries an eighth of the app's age passes, within these bounds.
_SHARE, _SHORTEST, _LONGEST = 8, 0.05, 1.0
# Who has not answered by then is asked anew.
PATIENCE = 5.0


async def watch(start: Start, value: str) -> None:
    """Tell `start` when a connection to HOST:PORT is accepted."""
    host, port = address("tcp", value)

    async def try_once() -> bool:
        sock = await connect(start.monitor.loop, host, port)
        if sock is not None:
            sock.close()
        return sock is not None

    await repeat(start, "tcp", try_once)


async def repeat(
    start: Start, kind: str, try_once: Callable[[], Awaitable[bool]]
) -> None:
    """Try until it works, or nobody waits for it any more."""
    monitor = start.monitor
    while not start.reported:
        if await try_once():
            start.hear(kind)
            return
        pause = min(max(monitor.clock() / _SHARE, _SHORTEST), _LONGEST)
        await monitor.sleep(pause)


async def connect(
    loop: AbstractEventLoop, host: str, port: int
) -> _socket.socket | None:
    """Return a connected socket, or None if nobody accepts on any address."""
    for family, place in await _addresses(loop, host, port):
        try:
            return await _dial.connect(loop, family, place, PATIENCE)
        except OSError:  # refused; no IPv6 here, or no descriptor is left
            pass
    return None


async def _addresses(
    loop: AbstractEventLoop, host: str, port: int
) -> list[tuple[int, tuple[object, ...]]]:
    # The usual ones without a resolver, which takes a thread.
    if host == "localhost":
        return [(2, ("127.0.0.1", port)), (10, ("::1", port))]
    if ":" in host:
        return [(10, (host, port))]
    if host.replace(".", "").isdigit():
        return [(2, (host, port))]
    try:
        found = await loop.getaddrinfo(host.encode(), port, type=_socket.SOCK_STREAM)
    except OSError:
        return []
    return [(family, place) for family, _, _, _, place in found]
