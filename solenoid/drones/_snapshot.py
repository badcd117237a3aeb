# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say how a drone gets a snapshot: from a storage by a URL of its own, or from us."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from solenoid._console import size_of
from solenoid._errors import DigestError, FetchError, StorageError
from solenoid._retry import retrying
from solenoid._rundir import INCOMING
from solenoid.drones._errors import SessionError
from solenoid.storage import open_storage, redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from solenoid.drones._visit import Visit

# Long enough for the slowest fetch, short enough for whoever finds it in a log.
_VALID = 3600
# The folder is the owner's alone: what lies in it becomes an app.
# What a deployer that was killed has left there is removed after an hour.
_MAKE = """\
umask 022 && mkdir -p -- "$1" && umask 077 && mkdir -p -- "$1/$2" || exit
find "$1/$2" -type f -mmin +60 -exec rm -f -- {} + || :
"""


class Snapshot(Protocol):
    """A snapshot on its way to drones; `about` is how it is called."""

    about: str

    def on(
        self, visit: Visit, run_dir: str
    ) -> AbstractAsyncContextManager[tuple[list[str], bytes]]:
        """Have it where the drone can get it, for as long as the block lasts.

        Yields options for `solenoid start`, and what it has to read first.
        """

    def is_in(self, status: Mapping[str, Any]) -> bool | None:
        """Say whether this is what a status is of; None if that is not known."""


class Present:
    """The release that is on the drone already, the current one: nothing is sent."""

    about = "what is there"

    def is_in(self, status: Mapping[str, Any]) -> bool | None:
        """Not know: each drone may have another."""
        return None

    @asynccontextmanager
    async def on(
        self, visit: Visit, run_dir: str
    ) -> AsyncIterator[tuple[list[str], bytes]]:
        """Do nothing."""
        yield [], b""


class Stored:
    """A snapshot in a storage: the drone gets a URL and a digest, never credentials.

    The storage's options stay here. An `s3:` URL is signed for an hour, for each drone
    anew, and goes over standard input: who sees it may use it.
    """

    def __init__(
        self, url: str, *, sha256: str = "", options: Mapping[str, object] | None = None
    ) -> None:
        self.about = redacted(url)
        self._url, self._sha256 = url, sha256.lower()
        self._options = options

    def is_in(self, status: Mapping[str, Any]) -> bool | None:
        """Compare the digest, if there is one."""
        return status.get("sha256") == self._sha256 if self._sha256 else None

    @classmethod
    async def of(
        cls, url: str, options: Mapping[str, object] | None, sha256: str | None = None
    ) -> Stored:
        """Look whether it is there, and what digest the storage knows of it.

        Raises FetchError before any drone is asked for what there is not, StorageError
        for what drones cannot have.
        """
        if not for_drones(url, options):
            raise StorageError(
                f"drones cannot fetch {redacted(url)}: it takes credentials, which stay"
                " here; fetch it and send it as a file, or store it in s3:",
                blame="user",
            )
        storage = open_storage(url, options)

        async def look() -> str | None:
            async with storage.get(url, start=0, stop=1) as part:
                return part.sha256

        try:
            known = await retrying(look, 4)
        finally:
            await storage.close()
        return cls(url, sha256=sha256 or known or "", options=options)

    @asynccontextmanager
    async def on(
        self, visit: Visit, run_dir: str
    ) -> AsyncIterator[tuple[list[str], bytes]]:
        """Sign the URL."""
        url = await signed(self._url, self._options)
        words = ["--from", "-"]
        if self._sha256:
            words += ["--sha256", self._sha256]
        yield words, f"{url}\n".encode()


class Sent:
    """A snapshot of ours, which goes over the connection; it is removed afterwards."""

    def __init__(self, path: Path, sha256: str) -> None:
        self.about = f"{path.name}, {size_of(path.stat().st_size)}"
        self._path, self._sha256 = path, sha256

    @classmethod
    async def of(cls, path: Path, sha256: str | None = None) -> Sent:
        """Compute the digest of a file. Raises DigestError, FetchError."""
        try:
            found = await asyncio.to_thread(_digest, path)
        except OSError as error:
            raise FetchError(f"cannot read {path}: {error.strerror}") from error
        if sha256 is not None and sha256.lower() != found:
            raise DigestError(f"{path}: its SHA-256 is {found}")
        return cls(path, found)

    def is_in(self, status: Mapping[str, Any]) -> bool | None:
        """Compare the digest."""
        return bool(status.get("sha256") == self._sha256)

    @asynccontextmanager
    async def on(
        self, visit: Visit, run_dir: str
    ) -> AsyncIterator[tuple[list[str], bytes]]:
        """Send it into a folder of the run directory."""
        session = visit.session
        words = ["/bin/sh", "-c", _MAKE, "sh", run_dir, INCOMING]
        await session.run(words, timeout=60, check=True)
        place = f"{run_dir}/{INCOMING}/{self._sha256}.tgz"
        await session.put(self._path, place)
        try:
            yield ["--from", place, "--sha256", self._sha256], b""
        finally:
            # Through the connection of now: the first one may have been lost. Without
            # any, it is left to the next, and says nothing about how it went.
            if visit.connected:
                with suppress(SessionError):
                    await visit.session.run(["rm", "-f", "--", place], timeout=60)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def for_drones(url: str, options: Mapping[str, object] | None) -> bool:
    """Say whether a drone can fetch it by a URL that is signed, or public."""
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        return not (options or {}).get("headers")
    return scheme == "s3"


async def signed(url: str, options: Mapping[str, object] | None) -> str:
    """Return a URL that needs no credentials. Raises FetchError, StorageError."""
    if scheme_of(url) != "s3":
        return url
    storage = open_storage(url, options)
    try:
        presign = getattr(storage, "presign", None)
        if presign is None:
            raise FetchError(f"{redacted(url)}: this storage signs no URLs")
        return str(await presign(url, _VALID))
    finally:
        await storage.close()
