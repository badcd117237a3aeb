# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Open a sink, a place that events go to, by its URL.

A sink has a `name`, a `queue` of what it has not delivered, and tells whether it is
`connected`, and by `since()` when the oldest event that has not arrived is from. It
has `write(batch, lifecycle)`, which never waits, `close(within)`, a coroutine that
flushes within so many seconds and returns how many events it could not deliver,
`abandon()`, which makes `close` give up, and `announce()`, which makes it say now what
it has dropped so far.
"""

from __future__ import annotations

from forza._errors import PortError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue

    class Sink(Protocol):
        @property
        def name(self) -> str: ...
        @property
        def connected(self) -> bool: ...
        @property
        def queue(self) -> Queue: ...
        def since(self) -> float: ...
        def write(self, batch: bytes, lifecycle: bool = False) -> None: ...
        def announce(self) -> None: ...
        def abandon(self) -> None: ...
        async def close(self, within: float) -> int: ...


DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 1337
DEFAULT_KEEP = 5
MOST_KEPT = 999
SMALLEST_FILE = 64 * 1024
SCHEMES = ("tcp", "tls", "unix", "udp", "file", "stdout")
# Those that may be away, and have a spool if there is one.
SPOOLED = ("tcp", "tls", "unix")


def check(url: str) -> None:
    """Raise UsageError if `url` can never be opened."""
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in SCHEMES:
        known = ", ".join(f"{scheme}:" for scheme in SCHEMES)
        raise UsageError(f"cannot send to '{url}': it must begin with one of {known}")
    if scheme == "tcp":
        servers(rest)
    elif scheme == "tls":
        from forza.sinks.tls import parse

        parse(url)
    elif scheme == "unix":
        from forza.sinks.unix import path_in

        path_in(url)
    elif scheme == "udp" and len(servers(rest)) > 1:
        raise UsageError(f"cannot send to '{url}': datagrams have no fail-over")
    elif scheme == "file":
        file_options(url)
    elif scheme == "stdout" and rest.strip("/"):
        raise UsageError(f"cannot send to '{url}': nothing may follow 'stdout:'")


def is_spooled(url: str) -> bool:
    """Say whether a sink's events go through the spool, if there is one."""
    return url.partition(":")[0] in SPOOLED


def open_sink(url: str, monitor: Monitor, queue: Queue) -> Sink:
    """Open the sink that `url` names; `queue` has what it has not delivered yet.

    Raises UsageError for a bad URL and SinkError if what it names cannot be had.
    """
    check(url)
    scheme, _, rest = url.partition(":")
    if scheme == "tcp":
        from forza.sinks.tcp import open_tcp

        return open_tcp(monitor, url, servers(rest), queue)
    if scheme == "tls":
        from forza.sinks.tls import open_tls

        return open_tls(monitor, url, queue)
    if scheme == "unix":
        from forza.sinks.unix import open_unix

        return open_unix(monitor, url, queue)
    if scheme == "udp":
        from forza.sinks.udp import Udp

        return Udp(monitor, url, *servers(rest)[0], queue)
    if scheme == "file":
        from forza.sinks.file import open_file

        return open_file(monitor, url, queue)
    from forza.sinks.file import open_stdout

    return open_stdout(monitor, queue)


def file_options(url: str) -> tuple[str, int, int]:
    """Return the path in `file:PATH[?max=BYTES&keep=N]`, and the two: 0 is no limit.

    The path may begin with `///`. Raises UsageError.
    """
    path, mark, query = url.partition(":")[2].partition("?")
    path = path[2:] if path.startswith("///") else path
    most, keep = 0, DEFAULT_KEEP
    if not path:
        raise UsageError(f"cannot send to '{url}': it names no file")
    if mark:
        from forza._options import size

        for part in query.split("&"):
            name, _, value = part.partition("=")
            if name == "max":
                most = size("to file: max", value)
            elif name == "keep" and value.isdigit() and 0 < int(value) <= MOST_KEPT:
                keep = int(value)
            elif name == "keep":
                raise UsageError(f"keep in '{url}' must be from 1 to {MOST_KEPT}")
            else:
                raise UsageError(
                    f"cannot send to '{url}': '{part}' is none of max=BYTES, keep=N"
                )
    if most and most < SMALLEST_FILE:
        raise UsageError(f"max in '{url}' must be at least 64K")
    return path, most, keep


def servers(rest: str) -> list[tuple[str, int]]:
    """Return the hosts and ports in `HOST[:PORT][,HOST[:PORT]…]`."""
    words = rest.removeprefix("//").split(",")
    if len(words) > 1 and not all(words):
        raise UsageError(f"bad host '' in '{rest}'")
    return [(host, number or DEFAULT_PORT) for host, number in map(server, words)]


def server(text: str) -> tuple[str, int | None]:
    """Return host and port of `HOST:PORT`, `[IPV6]:PORT` or a bare host."""
    if text.startswith("["):
        host, _, after = text[1:].partition("]")
        number = after.removeprefix(":")
    elif text.count(":") > 1:  # a bare IPv6 address
        host, number = text, ""
    else:
        host, _, number = text.partition(":")
    if any(letter in " ,/[]\0" for letter in host):
        raise UsageError(
            f"bad host '{text}': it must be HOST, HOST:PORT or [IPV6]:PORT"
        )
    return host or DEFAULT_HOST, port(number) if number else None


def port(text: str) -> int:
    """Return the port that `text` names."""
    plain = text.isascii() and text.isdigit() and len(text) <= len("65535")
    number = int(text) if plain else 0
    if not 0 < number < 65536:
        raise PortError(f"bad port '{text}': it must be a number from 1 to 65535")
    return number
