# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find a host's addresses without holding anybody up."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, getaddrinfo, inet_pton
from _thread import start_new_thread

from forza._wait import settle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from typing import Any

    # A family, and what connect() takes for it.
    Address = tuple[int, Any]


async def resolve(
    loop: AbstractEventLoop, host: str, port: int, kind: int
) -> list[Address]:
    """Return the addresses of a host for sockets of a kind, now.

    Raises OSError, or ValueError for what can be no name.
    """
    for family in (AF_INET, AF_INET6):
        try:
            inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    # As bytes: a str makes the resolver load the codec of international names.
    name = host.encode() if host.isascii() else host.encode("idna")
    found = await _look_up(loop, name, port, kind)
    return [(family, address) for family, _, _, _, address in found]


async def _look_up(
    loop: AbstractEventLoop, name: bytes, port: int, kind: int
) -> list[Any]:
    """Ask the resolver, which may take its time, in a thread of its own.

    Not by the loop: libuv would start four threads for it, and abort if it can't.
    """
    answer: Future[list[Any] | Exception] = loop.create_future()

    def ask() -> None:
        found: list[Any] | Exception
        try:
            found = getaddrinfo(name, port, 0, kind)
        except Exception as error:
            found = error
        try:
            loop.call_soon_threadsafe(settle, answer, found)
        except RuntimeError:  # the loop was closed meanwhile
            pass

    start_new_thread(ask, ())
    found = await answer
    if isinstance(found, Exception):
        raise found
    return found
