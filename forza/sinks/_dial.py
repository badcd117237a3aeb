# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make connections: names looked up each time, all addresses tried, none waited for."""

from __future__ import annotations

import os
from _socket import (
    IPPROTO_TCP,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_SNDBUF,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    socket,
)
from errno import ECONNREFUSED, EINPROGRESS, ETIMEDOUT

from forza._wait import end, ready, settle, wait
from forza.sinks._names import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task
    from collections.abc import Callable, Coroutine, Iterable
    from typing import Any, Protocol, TypeVar

    from forza.sinks._names import Address

    class Closable(Protocol):
        def close(self) -> None: ...

    Made = TypeVar("Made", bound=Closable)
    Target = TypeVar("Target")

_CONNECT_TIMEOUT = 10.0
# An address that has not answered by then is not waited for: the next is tried too.
_STAGGER = 0.25
_LONG = 3600.0
_KEEPALIVE_IDLE = 60
_UNACKED_MS = 120_000
# What the kernel holds is held here as well, until it is acknowledged: so large a
# buffer takes 0.75 MB of a server that stalls.
SEND_BUFFER = 512 * 1024


async def first(
    loop: AbstractEventLoop,
    attempt: Callable[[Target], Coroutine[Any, Any, Made | None]],
    targets: Iterable[Target],
    stagger: float,
) -> Made | None:
    """Attempt one target after another, not waiting for one more than `stagger` s.

    Return what the first attempt that succeeds has made; the others are undone.
    """
    left = list(targets)[::-1]
    running: list[Task[Made | None]] = []
    news: Future[None] = loop.create_future()

    def ended(_: object) -> None:
        settle(news)

    try:
        while left or running:
            if left:
                task = loop.create_task(attempt(left.pop()))
                task.add_done_callback(ended)
                running.append(task)
            await wait(loop, news, stagger if left else _LONG)
            news = loop.create_future()
            for task in [task for task in running if task.done()]:
                running.remove(task)
                made = task.result()
                if made is not None:
                    return made
    finally:
        for task in running:
            await end(loop, task)
            if task.done() and not task.cancelled() and (made := task.result()):
                made.close()
    return None


async def dial(
    loop: AbstractEventLoop, host: str, port: int, say: Callable[[str], object]
) -> socket | None:
    """Connect to one server, by whichever of its addresses answers."""
    try:
        addresses = await resolve(loop, host, port, SOCK_STREAM)
    except (OSError, ValueError, RuntimeError) as error:
        # No such name; no name at all; no thread to be had.
        reason = getattr(error, "strerror", None) or str(error)
        say(f"cannot resolve {host}: {reason}; trying again")
        return None

    async def attempt(address: Address) -> socket | None:
        try:
            return await connect(loop, *address, _CONNECT_TIMEOUT)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            say(f"cannot connect to {join(host, port)}: {reason}; trying again")
            return None

    begin = int(random() * len(addresses))
    return await first(loop, attempt, addresses[begin:] + addresses[:begin], _STAGGER)


async def connect(
    loop: AbstractEventLoop, family: int, address: Any, within: float
) -> socket:
    """Connect to one address within so many seconds. Raises OSError."""
    sock = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
    try:
        sock.setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
        failure = sock.connect_ex(address)
        if failure == EINPROGRESS:
            ways = loop.add_writer, loop.remove_writer
            in_time = await ready(loop, sock.fileno(), *ways, within)
            failure = sock.getsockopt(SOL_SOCKET, SO_ERROR) if in_time else ETIMEDOUT
        if not failure and sock.getsockname() == sock.getpeername():
            # Nobody listens, and the port that the kernel chose for us is the one we
            # asked for: we have met ourselves.
            failure = ECONNREFUSED
        if failure:
            raise OSError(failure, "")
        # Each batch is one write: do not wait for company.
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
        sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, _KEEPALIVE_IDLE)
        sock.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, _UNACKED_MS)
    except BaseException:
        sock.close()
        raise
    return sock


def join(host: str, port: int) -> str:
    """Return host and port as they are written together."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def random() -> float:
    """Return a number from 0 to 1; the `random` module would cost 3 MB."""
    return int.from_bytes(os.urandom(2)) / 65536
