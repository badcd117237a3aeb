# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ask an app over HTTP whether it is well, through the connection to its drone."""

from __future__ import annotations

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from solenoid.drones._errors import DronesError, SessionError
from solenoid.drones._inventory import Probe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asyncssh import SSHReader, SSHWriter

    from solenoid.drones._session import Session

_SHORT = re.compile(r"(?::(\d{1,5}))?(/\S*)?", re.ASCII)
_SCHEMES = {"http": 80, "https": 443}
_LIMIT = 1 << 16
_ONCE, _AGAIN = 10.0, 0.5


class ProbeError(DronesError):
    """An app does not answer as it should; `output` is the beginning of its answer."""

    step = "probe"
    blame = "user"

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


def parse_probe(text: str, patience: float = 30.0) -> Probe:
    """Understand `/health`, `:8080/health` or a URL, `{host}` in it being the drone's.

    Raises ValueError.
    """
    short = _SHORT.fullmatch(text)
    if short and text:
        port = int(short[1]) if short[1] else None
        if port is None or 0 < port < 65536:
            return Probe(short[2] or "/", port, patience)
    elif _is_url(text.replace("{host}", "host").replace("{port}", "1")):
        return Probe(text, None, patience)
    raise ValueError(f"{text!r} is not /PATH, :PORT/PATH or a URL")


def port_of(event: Mapping[str, Any]) -> int | None:
    """Return the port in a start event, which is the app's to make up."""
    meta = event.get("meta")
    port = meta.get("port") if isinstance(meta, dict) else None
    return port if isinstance(port, int) and 0 < port < 65536 else None


async def wait_healthy(probe: Probe, session: Session, port: int | None) -> str:
    """Ask until the answer is good; return it in a line. Raises ProbeError.

    `port` is where the app has said that it listens. A path is asked of the drone's
    own loopback, through the connection; a URL from here. Raises SessionError when the
    connection is lost.
    """
    url = _url(probe, session.drone.host, probe.port or port)
    deadline = monotonic() + probe.timeout
    while True:
        try:
            async with asyncio.timeout(min(_ONCE, max(1.0, probe.timeout))):
                return await _ask(url, probe, session)
        except ProbeError as error:
            last = error
        except TimeoutError:
            last = ProbeError(f"{url}: no answer")
        if monotonic() + _AGAIN > deadline:
            raise last
        await asyncio.sleep(_AGAIN)


def _url(probe: Probe, host: str, port: int | None) -> str:
    direct = _is_url(probe.path.replace("{host}", "host").replace("{port}", "1"))
    url = probe.path if direct else f"http://localhost:{{port}}{probe.path}"
    if "{port}" in url and port is None:
        raise ProbeError("there is nothing to ask: the app has named no port")
    return url.replace("{host}", host).replace("{port}", str(port))


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        known = parts.scheme in _SCHEMES and bool(parts.hostname)
        return known and (parts.port or 1) > 0 and text.isprintable()
    except ValueError:
        return False


async def _ask(url: str, probe: Probe, session: Session) -> str:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    request = (
        f"GET {path} HTTP/1.0\r\nHost: {parts.netloc}\r\n"
        "User-Agent: solenoid\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    port = parts.port or _SCHEMES[parts.scheme]
    through = not _is_url(probe.path)
    host, secure = parts.hostname or "", parts.scheme == "https"
    try:
        answer = await _exchange(
            session if through else None, host, port, secure, request.encode()
        )
    except SessionError as error:
        if error.kind != "refused":
            raise
        raise ProbeError(f"{url}: nobody listens") from error
    except OSError as error:
        raise ProbeError(f"{url}: {error.strerror or error}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    line = head.split(b"\r\n")[0].decode("latin-1")
    words = line.split(None, 2)
    good = len(words) > 1 and words[0].startswith("HTTP/")
    # Not isdigit, which is true of what is no number: a raised 2.
    if not good or not words[1].isdecimal() or len(words[1]) != 3:
        raise ProbeError(f"{url}: no HTTP answer", line)
    if not probe.status[0] <= int(words[1]) <= probe.status[1]:
        said = body[:2048].decode("utf-8", "replace")
        raise ProbeError(f"{url}: {' '.join(words[1:])}", said)
    return f"{url}: {words[1]}"


async def _exchange(
    session: Session | None, host: str, port: int, secure: bool, request: bytes
) -> bytes:
    reader: asyncio.StreamReader | SSHReader[bytes]
    writer: asyncio.StreamWriter | SSHWriter[bytes]
    if session is not None:
        reader, writer = await session.forward(port)
    else:
        tls = secure or None
        reader, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        writer.write(request)
        data = b""
        while len(data) < _LIMIT and (more := await reader.read(_LIMIT)):
            data += more
        return data
    finally:
        writer.close()
