# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Fetch from a web server, or with a presigned URL: no credentials, no S3 client."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from solenoid._errors import (
    AccessError,
    ChangedError,
    FetchError,
    NotFoundError,
    StorageError,
    TransientError,
)
from solenoid.storage import Part, nothing, redacted
from solenoid.storage._http1 import Response, request

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from solenoid.storage import Progress

_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 5
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_SHA256 = ("x-amz-meta-sha256", "x-goog-meta-sha256", "x-object-meta-sha256")
_NOTHING: Mapping[str, str] = MappingProxyType({})
_LONGEST_ANSWER = 1 << 20
_MOST_DIGITS = 18
_S3_SAYS = re.compile(r"<(Code|Message)>([^<]*)</")
_NO_ACCESS = ("AccessDenied", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


class HttpStorage:
    """Objects by `https:` and `http:` URLs.

    Options: `cafile`, a file of certificate authorities to trust instead of the
    system's; `headers`, sent with every request to the URL's own host.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        unknown = set(options) - {"cafile", "headers"}
        if unknown:
            raise StorageError(f"https: storage has no option {min(unknown)!r}")
        self._cafile = options.get("cafile")
        headers = options.get("headers") or {}
        if not isinstance(headers, dict):
            raise StorageError("https: storage's option 'headers' is not an object")
        self._headers = {str(name): str(value) for name, value in headers.items()}
        if any({*"\r\n"} & {*name, *value} for name, value in self._headers.items()):
            raise StorageError("https: storage's option 'headers' has a line break")
        self._context: ssl.SSLContext | None = None

    @asynccontextmanager
    async def get(
        self,
        url: str,
        *,
        start: int = 0,
        stop: int | None = None,
        etag: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Part]:
        """Ask for a range; a server that knows none sends everything."""
        with_range = {}
        if start or stop is not None:
            with_range["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        if start and etag:
            # Unlike If-Match it is never refused: what has changed comes whole, and
            # is then known by its etag.
            with_range["If-Range"] = etag
        given = headers or _NOTHING
        async with self._follow("GET", url, with_range, own=given) as response:
            if response.status != 416:
                yield _part(response, url, etag)
                return
        if start:
            raise ChangedError(f"{redacted(url)}: shorter than it was")
        # No byte is in range when there are none.
        async with self._follow("GET", url, {}, own=given) as response:
            yield _part(response, url, etag)

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a file to a URL that is presigned for PUT, or to a WebDAV server."""
        own = headers or _NOTHING
        async with self._follow("PUT", url, {}, path, own, progress) as response:
            await _check(response, url)

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[Mapping[str, str], str]:
        """Return the headers and the beginning of an answer, as a service gives it."""
        async with self._follow(method, url, {}, body, headers) as response:
            await _check(response, url)
            return response.headers, await response.text(_LONGEST_ANSWER)

    async def close(self) -> None:
        """Do nothing: no connection outlives its request."""

    @asynccontextmanager
    async def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        upload: Path | bytes | None = None,
        own: Mapping[str, str] = _NOTHING,
        progress: Progress | None = None,
    ) -> AsyncIterator[Response]:
        """Send a request to where the redirections lead; `own` for this host alone."""
        at = url
        for _ in range(_MAX_REDIRECTS + 1):
            same = _host(at) == _host(url)
            asked = {**({**self._headers, **own} if same else {}), **headers}
            if isinstance(upload, bytes) and not same:  # a password, for all we know
                raise FetchError(f"{redacted(url)}: led to another host")
            async with request(
                method,
                at,
                asked,
                tls=self._tls(at),
                upload=upload,
                progress=progress,
            ) as response:
                location = response.headers.get("location", "")
                if response.status not in _REDIRECTS or not location:
                    if response.status not in (200, 206, 416):
                        await _check(response, url)
                    yield response
                    return
            try:
                to = urljoin(at, location)
                scheme = urlsplit(to).scheme
            except ValueError as error:
                raise FetchError(
                    f"{redacted(url)}: led to what is not a URL ({error})"
                ) from None
            if scheme not in ("https", urlsplit(at).scheme):
                raise FetchError(f"{redacted(url)}: led from https to {redacted(to)}")
            at = to
        raise FetchError(f"{redacted(url)}: over {_MAX_REDIRECTS} redirections")

    def _tls(self, url: str) -> ssl.SSLContext | None:
        if urlsplit(url).scheme != "https":
            return None
        if self._context is None:
            import ssl

            try:
                cafile = str(self._cafile) if self._cafile else None
                self._context = ssl.create_default_context(cafile=cafile)
            except OSError as error:
                raise StorageError(f"{self._cafile}: {error}") from error
        return self._context


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError as error:
        raise FetchError(f"{redacted(url)}: not a URL ({error})") from None


def _part(response: Response, url: str, etag: str) -> Part:
    headers = response.headers
    current = _etag(headers)
    if etag and current and current != etag:
        raise ChangedError(f"{redacted(url)}: changed meanwhile")
    sha256 = next(filter(None, (headers.get(name) for name in _SHA256)), None)
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    # rclone sends a part, and says so, with status 200.
    if found is None:
        if response.status == 206:
            raise FetchError(f"{redacted(url)}: a part that does not say which")
        length = headers.get("content-length", "")
        known = length.isdecimal() and len(length) <= _MOST_DIGITS
        size = int(length) if known else None
        return Part(response.body, 0, size, size, current, sha256)
    start, last, size_word = found.groups()
    size = None if size_word == "*" else int(size_word)
    if size == 0:
        # A part of nothing should be 416; some send it, with lengths that are wrong.
        return Part(nothing(), 0, 0, 0, current, sha256)
    return Part(response.body, int(start), int(last) + 1, size, current, sha256)


def _etag(headers: Mapping[str, str]) -> str | None:
    """Return what tells one object from the next, as If-Range would have it."""
    etag = headers.get("etag", "")
    if etag and not etag.startswith("W/"):
        return etag
    return headers.get("last-modified")


async def _check(response: Response, url: str) -> None:
    """Raise what a status means."""
    status = response.status
    if 200 <= status < 300:
        return
    said = dict(_S3_SAYS.findall(await response.text()))
    why = f"{redacted(url)}: {status} {response.reason}".rstrip()
    message = said.get("Message", "").replace("&#39;", "'").replace("&quot;", '"')
    if words := ": ".join(filter(None, (said.get("Code"), message))):
        why += f" ({words[:200]})"
    if status in (404, 410):
        raise NotFoundError(why)
    # S3 says 400 of a token that has expired, some of its kin of a URL, too.
    if status in (401, 403) or said.get("Code") in _NO_ACCESS:
        raise AccessError(why)
    if status == 412:
        raise ChangedError(why)
    # S3 says so, too, when an answer took it too long, or the clock is being set.
    if status in _PASSING or said.get("Code") in ("RequestTimeout", "SlowDown"):
        after = response.headers.get("retry-after", "")
        raise TransientError(why, retry_after=float(after) if after.isdecimal() else 0)
    raise FetchError(why)
