# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Speak just enough HTTP/1.1 to read and write one object per connection.

The clients that are to be had cost ten to thirty megabytes, which a small drone has
better use for; what an object storage needs is one request and a body.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from solenoid._errors import FetchError, TransientError
from solenoid.storage import nothing, redacted

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from solenoid.storage import Progress

# How much of a body is in memory; a stream's buffer may hold twice as much.
_BUFFER = 1 << 16
_MAX_HEADERS = 100
_UPLOAD_STALL = 60.0
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class Response:
    """A status, the headers by names in lower case, and the body as it comes."""

    status: int
    reason: str
    headers: dict[str, str]
    body: AsyncIterator[bytes]
    url: str

    async def text(self, limit: int = 4096) -> str:
        """Return the beginning of the body."""
        data = b""
        with suppress(TransientError):
            async for chunk in self.body:
                data += chunk
                if len(data) >= limit:
                    break
        return data[:limit].decode("utf-8", "replace")


@asynccontextmanager
async def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    *,
    tls: ssl.SSLContext | None = None,
    upload: Path | bytes | None = None,
    progress: Progress | None = None,
) -> AsyncIterator[Response]:
    """Send one request and yield its response; the connection ends with the block.

    Raises TransientError when the server cannot be reached or hangs up.
    """
    shown = redacted(url)
    host, port, head = _head(method, url, headers, upload)
    try:
        reader, writer = await asyncio.open_connection(
            host, port, ssl=tls, limit=_BUFFER
        )
    except OSError as error:
        # A certificate that is not believed today is not believed in a second.
        kind = FetchError if "CERTIFICATE" in str(error) else TransientError
        raise kind(f"{shown}: {error.strerror or error}") from error
    try:
        try:
            writer.write(head)
            if upload is not None:
                # Who refuses may hang up before having read it all: hear why.
                with suppress(OSError):
                    await _send(writer, upload, progress)
            response = await _response(reader, method, url)
        except (OSError, EOFError) as error:
            raise TransientError(f"{shown}: connection lost") from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise TransientError(f"{shown}: no proper HTTP ({error})") from error
        yield response
    finally:
        # Not closed but cut: nobody shall wait for the rest of a body, or for a
        # peer that does not take part in TLS's goodbye.
        writer.transport.abort()


def _head(
    method: str, url: str, headers: Mapping[str, str], upload: Path | bytes | None
) -> tuple[str, int, bytes]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS[parts.scheme]
        if not host:
            raise ValueError("no host")
        if not url.isprintable() or " " in parts.netloc:
            raise ValueError("it has blanks")
        name = host.encode("idna").decode()
    except (ValueError, KeyError) as error:
        raise FetchError(f"{redacted(url)}: not a URL ({error})") from None
    # Signed characters stay as they are; only what cannot be sent is escaped.
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    if parts.query:
        target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    place = f"[{host}]" if ":" in host else name
    if parts.port:
        place += f":{parts.port}"
    lines = [f"{method} {target} HTTP/1.1", f"Host: {place}"]
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {b64encode(words.encode()).decode()}")
    if upload is not None:
        size = len(upload) if isinstance(upload, bytes) else upload.stat().st_size
        lines.append(f"Content-Length: {size}")
    fixed = {"Accept-Encoding": "identity", "Connection": "close", **headers}
    lines += [f"{name}: {value}" for name, value in fixed.items()]
    return host, port, ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _send(
    writer: asyncio.StreamWriter, upload: Path | bytes, progress: Progress | None
) -> None:
    if isinstance(upload, bytes):
        writer.write(upload)
        return
    sent = 0
    with await asyncio.to_thread(upload.open, "rb") as file:
        while data := await asyncio.to_thread(file.read, _BUFFER):
            writer.write(data)
            async with asyncio.timeout(_UPLOAD_STALL):
                await writer.drain()
            sent += len(data)
            if progress is not None:
                progress(sent)


async def _response(reader: asyncio.StreamReader, method: str, url: str) -> Response:
    while True:
        version, _, rest = (await _line(reader)).partition(" ")
        status, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not status.isdecimal():
            raise ValueError("not a status line")
        headers = await _headers(reader)
        if not 100 <= int(status) < 200:
            break
    body = _body(reader, headers, redacted(url))
    if method == "HEAD" or int(status) in (204, 304):
        body = nothing()
    return Response(int(status), reason, headers, body, url)


async def _line(reader: asyncio.StreamReader) -> str:
    line = await reader.readuntil(b"\n")
    return line.decode("latin-1").rstrip("\r\n")


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = await _line(reader)
        if not line:
            return headers
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError("not a header")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("too many headers")


async def _body(
    reader: asyncio.StreamReader, headers: Mapping[str, str], shown: str
) -> AsyncIterator[bytes]:
    try:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            async for data in _chunked(reader):
                yield data
        elif "content-length" in headers:
            async for data in _exactly(reader, _size(headers["content-length"])):
                yield data
        else:
            while data := await reader.read(_BUFFER):
                yield data
    except OSError as error:
        raise TransientError(f"{shown}: connection lost") from error
    except (EOFError, ValueError, asyncio.LimitOverrunError) as error:
        raise TransientError(f"{shown}: the connection ended too early") from error


def _size(digits: str) -> int:
    if not digits.isdecimal():
        raise ValueError("not a length")
    return int(digits)


async def _exactly(reader: asyncio.StreamReader, left: int) -> AsyncIterator[bytes]:
    while left > 0:
        data = await reader.read(min(left, _BUFFER))
        if not data:
            raise EOFError
        left -= len(data)
        yield data


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await _line(reader)).partition(";")[0], 16):
        async for data in _exactly(reader, size):
            yield data
        await reader.readexactly(2)
    while await _line(reader):
        pass  # trailers
