# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the storage for a URL, and say what a storage is.

A storage of your own is a class in the entry-point group `solenoid.storage`, under the
name of its URL scheme; `solenoid.testing.check_storage` tells whether it will do.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from solenoid._errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Progress = Callable[[int], None]

__all__ = ("Part", "Storage", "open_storage", "redacted")

GROUP = "solenoid.storage"
_BUILT_IN = {
    "abfs": "solenoid.storage.fsspec:FsspecStorage",
    "az": "solenoid.storage.fsspec:FsspecStorage",
    "file": "solenoid.storage.file:FileStorage",
    "fsspec+": "solenoid.storage.fsspec:FsspecStorage",
    "gs": "solenoid.storage.fsspec:FsspecStorage",
    "http": "solenoid.storage.http:HttpStorage",
    "https": "solenoid.storage.http:HttpStorage",
    "s3": "solenoid.storage.s3:S3Storage",
    "swift": "solenoid.storage.swift:SwiftStorage",
}
# What pip is to install, where it is more than a module that is missing.
_DISTRIBUTION = "forza-solenoid"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


@dataclass(slots=True)
class Part:
    """Some of an object's bytes, and what is known of the whole.

    `start` and `stop` say which bytes come: those asked for, or all of them from a
    storage that knows no ranges. `stop` and `size` are None where the storage does not
    know. `etag` is any text that changes with the object; `sha256` is what the storage
    has been told on `put`, if it keeps such things.
    """

    chunks: AsyncIterator[bytes]
    start: int = 0
    stop: int | None = None
    size: int | None = None
    etag: str | None = None
    sha256: str | None = None


class Storage(Protocol):
    """Where snapshots are kept; made with the options of the configuration.

    Both methods raise NotFoundError, AccessError, TransientError for what may pass, or
    another FetchError. One storage serves several calls at once.
    """

    def get(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AbstractAsyncContextManager[Part]:
        """Begin to read an object from `start` up to, but without, `stop`.

        Raises ChangedError if the object is no longer the one of `etag`.
        """

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
    ) -> None:
        """Store a file, so that at any time all of it or nothing is there.

        `progress` is told the bytes so far, as often as it is easy, in any thread.
        """

    async def close(self) -> None:
        """Let go of connections."""


def scheme_of(url: str) -> str:
    """Return the scheme; what has none is a path."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else "file"


def open_storage(url: str, options: Mapping[str, object] | None = None) -> Storage:
    """Return the storage for a URL; whoever asks for it closes it.

    Raises StorageError if there is none for the scheme, or its package is missing.
    """
    scheme = scheme_of(url)
    if scheme.startswith("fsspec+"):
        scheme = "fsspec+"
    try:
        factory = _built_in(scheme) if scheme in _BUILT_IN else _installed(scheme)
        return factory(dict(options or {}))
    except ImportError as error:
        raise StorageError(f"cannot use {scheme}: {error}") from error


def missing(scheme: str, package: str, extra: str | None) -> StorageError:
    """Return the error for a storage whose package is not installed."""
    what = f"'{_DISTRIBUTION}[{extra}]'" if extra else package
    needs = f"needs the extra '{extra}'" if extra else f"needs {package}"
    return StorageError(
        f"cannot use {scheme}: it {needs} ({package} is not installed):"
        f" {sys.executable} -m pip install {what}"
    )


def _built_in(scheme: str) -> Callable[[dict[str, object]], Storage]:
    module, _, name = _BUILT_IN[scheme].partition(":")
    factory: Callable[[dict[str, object]], Storage]
    factory = getattr(import_module(module), name)
    return factory


def _installed(scheme: str) -> Callable[[dict[str, object]], Storage]:
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(sorted({*_BUILT_IN, *found}))
        why = f"no storage for {scheme}: URLs (there are {known})"
        raise StorageError(why, blame="user")
    factory: Callable[[dict[str, object]], Storage] = found[scheme].load()
    return factory


async def nothing() -> AsyncIterator[bytes]:
    """Yield no bytes."""
    none: tuple[bytes, ...] = ()
    for chunk in none:
        yield chunk


def redacted(url: str) -> str:
    """Return the URL as it may be shown: who holds a signature may use it."""
    if scheme_of(url) == "file":
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme_of(url)}:..."
    place = parts.netloc.rpartition("@")[2]
    query = "..." if parts.query else ""
    return urlunsplit((parts.scheme, place, parts.path, query, ""))
