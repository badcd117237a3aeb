# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep snapshots wherever fsspec has a file system: Google's storage, Azure's, others.

Its file systems are for data scientists: they cache, they buffer, they read ahead. What
is used of them here is the part that all of them have, reading a range.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from solenoid._errors import (
    AccessError,
    ChangedError,
    FetchError,
    NotFoundError,
    StorageError,
    TransientError,
)
from solenoid.storage import Part, missing, redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from pathlib import Path

    from solenoid.storage import Progress

# So much is in memory at a time, and asked for by one request.
_CHUNK = 4 << 20
PREFIX = "fsspec+"
_PACKAGES = {
    **dict.fromkeys(("az", "abfs"), ("adlfs", "azure")),
    **dict.fromkeys(("gs", "gcs"), ("gcsfs", "google")),
}
# pkgcloud's names for what gcsfs and adlfs call otherwise.
_NAMES = {
    "keyFilename": "token",
    "credentials": "token",
    "projectId": "project",
    "storageAccount": "account_name",
    "storageAccessKey": "account_key",
}
_IGNORED = {"provider", "container"}
# What changes with an object, in the words of one file system or another.
_MARKS = (
    *("etag", "ETag", "generation", "hash", "md5Hash", "content_md5", "checksum"),
    *("mtime", "LastModified", "last_modified", "updated", "created", "ino"),
)
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_QUERY = re.compile(r"\?\S+")


class FsspecStorage:
    """Objects by `gs://`, `az://` and `abfs://` URLs, or `fsspec+SCHEME:` for the rest.

    Options are those of the file system, or pkgcloud's for Google and Azure. `put`
    writes the SHA-256 into a file beside the object, where `fetch` looks for it. Needs
    the file system's package (the extras `google` and `azure`).
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = {
            _NAMES.get(name, name): value
            for name, value in options.items()
            if name not in _IGNORED
        }
        self._made: dict[str, Any] = {}

    @asynccontextmanager
    async def get(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AsyncIterator[Part]:
        """Read a range piece by piece, and look at the end whether it is still one."""
        files, path = await self._of(url)
        size, mark = await _called(url, _looked_at, files, path)
        if etag not in ("", mark):
            raise ChangedError(f"{redacted(url)}: changed meanwhile")
        stop = size if stop is None else min(stop, size)

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(start, stop, _CHUNK):
                end = min(at + _CHUNK, stop)
                data = await _called(url, files.cat_file, path, start=at, end=end)
                if len(data) != end - at:
                    raise ChangedError(f"{redacted(url)}: ended too early")
                if end == stop and await self._mark(url, files, path) != mark:
                    # Nothing else says that the pieces were all of the same object.
                    raise ChangedError(f"{redacted(url)}: changed meanwhile")
                yield data

        yield Part(chunks(), start, max(start, stop), size, mark)

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
    ) -> None:
        """Store a file, and its SHA-256 beside it."""
        files, place = await self._of(url)
        # The digest of another object would be worse than none while both change.
        with suppress(NotFoundError):
            await _called(url, files.rm_file, f"{place}.sha256")
        more = {} if progress is None else {"callback": _callback(progress)}
        await _called(url, files.put_file, str(path), place, **more)
        line = f"{sha256}  {place.rpartition('/')[2]}\n".encode()
        await _called(url, files.pipe_file, f"{place}.sha256", line)

    async def close(self) -> None:
        """Forget the file systems; their own threads close what is open."""
        self._made.clear()

    async def _mark(self, url: str, files: Any, path: str) -> str:
        mark: str = (await _called(url, _looked_at, files, path))[1]
        return mark

    async def _of(self, url: str) -> tuple[Any, str]:
        """Return the URL's file system, and its path there."""
        scheme = scheme_of(url)
        protocol = scheme.removeprefix(PREFIX)
        if protocol not in self._made:
            # Its own modules may take a second to import.
            self._made[protocol] = await asyncio.to_thread(self._make, protocol)
        files = self._made[protocol]
        path = str(files._strip_protocol(protocol + url[len(scheme) :]))
        return files, path

    def _make(self, protocol: str) -> Any:
        try:
            import fsspec

            if protocol in ("gs", "gcs"):
                # The package's own choice asks by gRPC for what but few buckets are.
                name = "gcsfs.core.GCSFileSystem"
                fsspec.register_implementation(protocol, name, clobber=True)
            return fsspec.filesystem(
                protocol,
                skip_instance_cache=True,
                use_listings_cache=False,
                **self._options,
            )
        except ImportError as error:
            # Of the others fsspec says itself which package they need.
            other = (error.name or f"fsspec's package for {protocol}", None)
            raise missing(protocol, *_PACKAGES.get(protocol, other)) from error
        except (ValueError, TypeError) as error:
            raise StorageError(f"cannot use {protocol}: {_said(error)}") from error
        except Exception as error:
            # Credentials are looked for by libraries with errors of their own.
            raise AccessError(f"cannot use {protocol}: {_said(error)}") from error


def _callback(progress: Progress) -> Any:
    from fsspec.callbacks import Callback

    return Callback(hooks={"progress": lambda size, value: progress(value)})


def _looked_at(files: Any, path: str) -> tuple[int, str]:
    """Return an object's size, and what tells it from the one that replaces it."""
    files.invalidate_cache()
    about = files.info(path)
    if about.get("type") == "directory":
        raise FileNotFoundError(path)
    size = int(about["size"])
    marks = [str(about[name]) for name in _MARKS if about.get(name)]
    return size, " ".join([*marks, str(size)])


async def _called(
    url: str, action: Callable[..., Any], *args: Any, **named: Any
) -> Any:
    """Call what blocks, in a thread, and turn its errors into ours."""
    with _explained(url):
        return await asyncio.to_thread(action, *args, **named)


@contextmanager
def _explained(url: str) -> Iterator[None]:
    try:
        yield
    except (FetchError, StorageError):
        raise
    except Exception as error:
        raise _named(error, url) from error


def _named(error: Exception, url: str) -> FetchError:
    why = f"{redacted(url)}: {_said(error)}"
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    statuses = {status for one in chain if (status := _status(one))}
    if statuses & {404, 410} or _any(chain, FileNotFoundError):
        return NotFoundError(why)
    if statuses & {401, 403} or _any(chain, PermissionError):
        return AccessError(why)
    if statuses & {412, 416}:
        return ChangedError(why)
    if statuses & set(_PASSING) or (not statuses and _any(chain, OSError)):
        return TransientError(why)
    # Of libraries that are not imported here: known by their names.
    names = {parent.__name__ for one in chain for parent in type(one).__mro__}
    if names & {"GoogleAuthError", "ClientAuthenticationError"}:
        return AccessError(why)
    if names & {"ClientError", "ServiceRequestError", "ServiceResponseError"}:
        return TransientError(why)
    return FetchError(why)


def _any(chain: list[BaseException], kind: type[BaseException]) -> bool:
    return any(isinstance(one, kind) for one in chain)


def _status(error: BaseException) -> int:
    for name in ("status", "status_code", "code"):
        value = getattr(error, name, None)
        if isinstance(value, int):
            return value
    return 0


def _said(error: BaseException) -> str:
    """Return the first line of what a library says, without signatures."""
    first = next(iter(str(error).splitlines()), "").strip() or type(error).__name__
    return _QUERY.sub("?...", first)[:200]
