# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ask by HTTP again and again until the answer is a good one."""

from __future__ import annotations

from forza._wait import ready
from forza.ready import address
from forza.ready.tcp import PATIENCE, connect, repeat

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from asyncio import AbstractEventLoop

    from forza.plugins.start import Start

_STATUS_LINE = len("HTTP/1.1 200 ")


async def watch(start: Start, value: str) -> None:
    """Tell `start` when a GET is answered with a status from 200 to 399."""
    host, port = address("http", value)
    authority, _, path = value.partition("/")
    request = (
        f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: forza\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode()
    loop = start.monitor.loop

    async def try_once() -> bool:
        sock = await connect(loop, host, port)
        if sock is None:
            return False
        try:
            sock.send(request)  # fits in the buffer of any new connection
            return await _is_good(loop, sock)
        except OSError:  # it hung up
            return False
        finally:
            sock.close()

    await repeat(start, "http", try_once)


async def _is_good(loop: AbstractEventLoop, sock: _socket.socket) -> bool:
    answer = b""
    ways = loop.add_reader, loop.remove_reader
    while len(answer) < _STATUS_LINE:
        if not await ready(loop, sock.fileno(), *ways, PATIENCE):
            return False
        data = sock.recv(4096)
        if not data:
            break
        answer += data
    words = answer.split(None, 2)
    return (
        len(words) > 1
        and words[0].startswith(b"HTTP/1.")
        and words[1][:1] in (b"2", b"3")
        and words[1].isdigit()
        and len(words[1]) == 3
    )
