# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Try again and again until something accepts a connection."""

from __future__ import annotations

import _socket
from errno import EINPROGRESS

from forza._wait import settle, wait
from forza.ready import address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
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
        kind = _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        try:
            sock = _socket.socket(family, kind)
        except OSError:  # no IPv6 here, or no descriptor is left
            continue
        try:
            if await _connect(loop, sock, place):
                return sock
        except OSError:  # whoever has accepted it has hung up
            pass
        except BaseException:
            sock.close()
            raise
        sock.close()
    return None


async def _connect(
    loop: AbstractEventLoop, sock: _socket.socket, place: tuple[object, ...]
) -> bool:
    code = sock.connect_ex(place)
    if code not in (0, EINPROGRESS):
        return False
    if code and not await writable(loop, sock):
        return False
    if sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
        return False
    # A port that nobody listens on may be the one this socket itself was given; then
    # it is connected to itself.
    return bool(sock.getsockname() != sock.getpeername())


async def writable(loop: AbstractEventLoop, sock: _socket.socket) -> bool:
    """Wait until the socket takes data; say whether it does in time."""
    future: Future[None] = loop.create_future()
    loop.add_writer(sock.fileno(), settle, future)
    try:
        return await wait(loop, future, PATIENCE)
    finally:
        loop.remove_writer(sock.fileno())


async def readable(loop: AbstractEventLoop, sock: _socket.socket) -> bool:
    """Wait until the socket has data; say whether it has in time."""
    future: Future[None] = loop.create_future()
    loop.add_reader(sock.fileno(), settle, future)
    try:
        return await wait(loop, future, PATIENCE)
    finally:
        loop.remove_reader(sock.fileno())


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
