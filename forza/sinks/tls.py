# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send events over TLS, to servers that have proved who they are."""

from __future__ import annotations

from forza._errors import SinkError, UsageError
from forza.sinks import servers
from forza.sinks._client import Client
from forza.sinks._dial import dial, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza._monitor import Monitor
    from forza.sinks._buffer import Queue
    from forza.sinks._client import Attempt, Link, Say
    from forza.sinks._credentials import Credentials

_OPTIONS = ("ca", "cert", "key", "name")


def parse(url: str) -> tuple[list[tuple[str, int]], dict[str, str]]:
    """Return the servers and the options in `tls:SERVERS[?ca=FILE&...]`.

    Raises UsageError.
    """
    rest, mark, query = url.partition(":")[2].partition("?")
    options: dict[str, str] = {}
    for part in query.split("&") if mark else ():
        name, _, value = part.partition("=")
        if name not in _OPTIONS or not value or "\0" in value:
            raise UsageError(
                f"cannot send to '{url}': '{part}' is none of ca=FILE, cert=FILE, "
                "key=FILE, name=NAME"
            )
        if options.setdefault(name, value) != value:
            raise UsageError(f"cannot send to '{url}': {name} is given twice")
    name = options.get("name", "-").removesuffix(".")
    if not all(name.split(".")):
        raise UsageError(f"cannot send to '{url}': no certificate is for '{name}'")
    if "key" in options and "cert" not in options:
        raise UsageError(f"cannot send to '{url}': there is a key and no cert")
    return servers(rest), options


def credentials(url: str) -> Credentials:
    """Return whom to trust, and what to show.

    Raises SinkError if a file that the URL names is of no use.
    """
    from forza.sinks._credentials import Credentials

    found = Credentials(parse(url)[1])
    try:
        found.context()
    except OSError as error:
        raise SinkError(f"cannot send to {url}: {error.strerror}") from error
    return found


def open_tls(monitor: Monitor, url: str, queue: Queue) -> Client:
    """Send to the first of the servers that answers and is who it should be.

    Raises SinkError as `credentials` does.
    """
    hosts, options = parse(url)
    ours = credentials(url)

    def to(host: str, port: int) -> Attempt:
        place, name = join(host, port), options.get("name", host)

        async def attempt(say: Say) -> Link | None:
            for _ in range(2):
                sock = await dial(monitor.loop, host, port, say)
                if sock is None:
                    return None
                try:
                    link = await ours.secure(monitor.loop, sock, place, name)
                except OSError as error:
                    reason = error.strerror or str(error)
                    reason = reason[:1].lower() + reason[1:]
                    say(f"cannot connect to {place}: {reason}; trying again")
                    return None
                if link is not None:
                    return link
            return None

        return attempt

    return Client(monitor, url, queue, [to(*server) for server in hosts])
