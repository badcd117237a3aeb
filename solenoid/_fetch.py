# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Bring an object to disk: in parts, resumed after cuts, its digest checked."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from solenoid._errors import (
    AccessError,
    ChangedError,
    DigestError,
    FetchError,
    NotFoundError,
    TransientError,
)
from solenoid._retry import retrying
from solenoid._target import Target
from solenoid.storage import open_storage, redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from solenoid.storage import Part, Storage

    Progress = Callable[[int, int | None], None]

DigestFrom = Literal["argument", "metadata", "beside"]

_PART = 16 << 20
# What an attempt must bring to be no failure, though it ended before its time.
_PROGRESS = 1 << 18
_PIECE = 1 << 17
# What must come in the time that nothing may take: else a server that sends a byte now
# and then would hold us for as long as it likes.
_LEAST = 1 << 14
_CHANGES = 3
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that has arrived: whole, on disk, and checked if there was a digest.

    `digest_from` says where the digest it was checked against came from; None means
    that nobody knew one.
    """

    path: Path
    size: int
    sha256: str
    digest_from: DigestFrom | None


async def fetch(
    url: str,
    to: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    options: Mapping[str, object] | None = None,
    storage: Storage | None = None,
    connections: int = 3,
    attempts: int = 6,
    stall: float = 30.0,
    max_bytes: int | None = None,
    progress: Progress | None = None,
) -> Fetched:
    """Fetch an object to the file `to`, which appears only when all is well.

    The digest is `sha256`, else what the object's metadata say, else the content of
    URL.sha256. Large objects come by several `connections`. After `attempts` in a row
    that brought nothing, or no more than a trickle for `stall` seconds, it gives up.
    `progress` is told the bytes so far and in all, if known. `storage` is used, and
    left open, instead of one made from `options`.

    Raises NotFoundError, AccessError, DigestError or another FetchError, StorageError
    for bad options. To cancel it is safe.
    """
    if sha256 is not None and not _DIGEST.fullmatch(sha256):
        raise DigestError(f"{sha256!r} is not a SHA-256", blame="user")
    used = storage or open_storage(url, options)
    try:
        for changes in range(_CHANGES):
            with Target(Path(to)) as target:
                transfer = _Transfer(
                    used, url, target, attempts, stall, max_bytes, progress
                )
                try:
                    await transfer.run(connections)
                    known, source = await transfer.digest(sha256)
                except ChangedError:
                    if changes == _CHANGES - 1:
                        raise
                    continue
                found = transfer.sha256.hexdigest()
                if known and known.lower() != found:
                    raise DigestError(
                        f"{redacted(url)}: SHA-256 is {found}, not {known.lower()}"
                    )
                await asyncio.to_thread(target.commit)
                return Fetched(Path(to), transfer.hashed, found, source)
        raise AssertionError("unreachable")
    except OSError as error:
        raise FetchError(f"cannot write {to}: {error.strerror or error}") from error
    finally:
        if storage is None:
            await used.close()


@dataclass(slots=True)
class _Span:
    """Bytes that come by one request: how far they have come, and where they end."""

    at: int
    stop: int | None


class _Transfer:
    """One object on its way, as long as it stays the same object."""

    def __init__(
        self,
        storage: Storage,
        url: str,
        target: Target,
        attempts: int,
        stall: float,
        max_bytes: int | None,
        progress: Progress | None,
    ) -> None:
        self.sha256 = new_sha256()
        self.hashed = 0
        self._storage, self._url, self._target = storage, url, target
        self._attempts, self._stall = attempts, stall
        self._max_bytes, self._progress = max_bytes, progress
        self._known = asyncio.Event()
        self._etag = ""
        self._metadata: str | None = None
        self._size: int | None = None
        self._spans = [_Span(0, _PART)]
        self._hashing = 0  # which of the spans
        self._buffer = bytearray(_PIECE)
        self._arrived = 0
        self._moved = asyncio.Event()
        self._complete = False

    async def run(self, connections: int) -> None:
        """Bring it all, and compute its digest on the way."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._digest_what_came())
                group.create_task(self._pull_everything(connections))
        except BaseExceptionGroup as failed:
            # The first is the cause; what else there is was told of it.
            error = failed.exceptions[0]
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error from error.__cause__

    async def digest(self, given: str | None) -> tuple[str | None, DigestFrom | None]:
        """Return the digest that is to be met, and who said so."""
        if given:
            return given, "argument"
        if self._metadata:
            return self._metadata, "metadata"
        beside = await self._beside()
        return beside, "beside" if beside else None

    async def _pull_everything(self, connections: int) -> None:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(self._pull(self._spans[0]))
            # The first answer says how much there is, and whether it comes in parts.
            first.add_done_callback(lambda _: self._known.set())
            await self._known.wait()
            rest = self._rest()
            for _ in range(min(connections - 1, len(rest))):
                group.create_task(self._pull_all(rest))
            await first
            await self._pull_all(rest)
        self._complete = True
        self._moved.set()

    def _rest(self) -> list[_Span]:
        """Divide what the first answer does not bring; what is next stands last."""
        first = self._spans[0].stop
        if self._size is None or first is None:
            return []
        for at in range(first, self._size, _PART):
            self._spans.append(_Span(at, min(at + _PART, self._size)))
        return self._spans[:0:-1]

    async def _pull_all(self, spans: list[_Span]) -> None:
        while spans:
            await self._pull(spans.pop())

    async def _pull(self, span: _Span) -> None:
        """Fetch a span, each time from where the connection broke."""
        await retrying(
            lambda: self._attempt(span), self._attempts, lambda: span.at, _PROGRESS
        )

    async def _attempt(self, span: _Span) -> None:
        if span.at == span.stop:
            return
        async with self._opened(
            self._url, start=span.at, stop=span.stop, etag=self._etag
        ) as part:
            if self._known.is_set():
                self._compare(part, span)
            else:
                await self._learn(part, span)
            await self._receive(part, span)

    async def _learn(self, part: Part, span: _Span) -> None:
        if part.start != 0:
            raise FetchError(f"{redacted(self._url)}: sent other bytes than asked for")
        self._etag, self._size = part.etag or "", part.size
        if part.sha256 and _DIGEST.fullmatch(part.sha256):
            self._metadata = part.sha256
        span.stop = part.stop
        self._limit(self._size or 0)
        if self._size:
            await self._on_disk(self._target.allocate, self._size)
        self._known.set()

    def _compare(self, part: Part, span: _Span) -> None:
        if (part.etag or "") != self._etag or part.size != self._size:
            raise ChangedError(f"{redacted(self._url)}: changed meanwhile")
        if part.start > span.at:
            raise FetchError(f"{redacted(self._url)}: sent other bytes than asked for")

    def _limit(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise FetchError(
                f"{redacted(self._url)}: larger than {self._max_bytes} bytes",
                blame="user",
            )

    async def _receive(self, part: Part, span: _Span) -> None:
        """Write what comes, in large pieces."""
        # A storage without ranges begins at the beginning: skip what is there.
        skip = span.at - part.start
        pieces: list[bytes] = []
        held = 0
        try:
            async for chunk in self._chunks(part):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                piece = chunk[skip:] if skip else chunk
                skip = 0
                if span.stop is not None:
                    piece = piece[: span.stop - span.at - held]
                pieces.append(piece)
                held += len(piece)
                if span.stop is not None and span.at + held == span.stop:
                    break
                if held >= _PIECE:
                    await self._write(span, pieces)
                    pieces, held = [], 0
        except TransientError:
            await self._write(span, pieces)
            raise
        await self._write(span, pieces)
        if span.stop is None:
            span.stop = span.at
        elif span.at < span.stop:
            raise TransientError(f"{redacted(self._url)}: ended too early")

    async def _write(self, span: _Span, pieces: list[bytes]) -> None:
        size = sum(map(len, pieces))
        self._limit(span.at + size)
        await self._on_disk(self._target.write, pieces, span.at)
        span.at += size
        self._arrived += size
        self._moved.set()
        if self._progress is not None:
            self._progress(self._arrived, self._size)

    async def _on_disk(self, action: Callable[..., None], *args: object) -> None:
        """Let a thread wait for the disk, and tell its troubles from the network's."""
        try:
            await asyncio.to_thread(action, *args)
        except OSError as error:
            path = self._target.path
            raise FetchError(f"cannot write {path}: {error.strerror}") from error

    async def _chunks(self, part: Part) -> AsyncIterator[bytes]:
        """Yield what comes, and do not wait for ever for more."""
        clock = asyncio.get_running_loop().time
        waited, came = 0.0, 0
        while True:
            begun = clock()
            async with self._patience(waited, came):
                chunk = await anext(part.chunks, None)
            if chunk is None:
                return
            waited, came = waited + clock() - begun, came + len(chunk)
            if came >= _LEAST:
                waited, came = 0.0, 0
            yield chunk

    @asynccontextmanager
    async def _patience(
        self, waited: float = 0.0, came: int = 0
    ) -> AsyncIterator[None]:
        """Limit how long a step may take, after others that have brought little."""
        try:
            async with asyncio.timeout(self._stall - waited):
                yield
        except TimeoutError:
            what = f"{came} bytes" if came else "no byte"
            raise TransientError(
                f"{redacted(self._url)}: {what} in {self._stall:g} s"
            ) from None

    @asynccontextmanager
    async def _opened(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AsyncIterator[Part]:
        async with AsyncExitStack() as stack:
            async with self._patience():
                part = await stack.enter_async_context(
                    self._storage.get(url, start=start, stop=stop, etag=etag)
                )
            yield part

    async def _digest_what_came(self) -> None:
        """Follow what has come without a gap, and read it while it is in memory."""
        while True:
            self._moved.clear()
            complete, ready = self._complete, self._without_gap()
            if ready - self.hashed >= _PIECE or (complete and ready > self.hashed):
                await asyncio.to_thread(self._digest_up_to, ready)
            elif complete:
                return
            else:
                await self._moved.wait()

    def _without_gap(self) -> int:
        while self._hashing < len(self._spans) - 1:
            span = self._spans[self._hashing]
            if span.at != span.stop:
                break
            self._hashing += 1
        return self._spans[self._hashing].at

    def _digest_up_to(self, ready: int) -> None:
        while self.hashed < ready:
            view = memoryview(self._buffer)[: ready - self.hashed]
            read = os.preadv(self._target.descriptor, [view], self.hashed)
            self.sha256.update(view[:read])
            self.hashed += read

    async def _beside(self) -> str | None:
        """Return the digest in the file beside the object, if there is one."""
        # What signs one URL does not sign another.
        if scheme_of(self._url) != "file" and urlsplit(self._url).query:
            return None
        beside = f"{self._url}.sha256"
        try:
            text = await retrying(lambda: self._small(beside), self._attempts)
        except (NotFoundError, AccessError):
            # S3 denies to those who may not list that an object isn't there.
            return None
        found = _DIGEST.search(text)
        if found is None:
            raise DigestError(f"{redacted(beside)}: no SHA-256 in it")
        return found[0]

    async def _small(self, url: str) -> str:
        data = b""
        async with self._opened(url) as part:
            async for chunk in self._chunks(part):
                data += chunk
                if len(data) > 4096:
                    break
        return data.decode("utf-8", "replace")
