# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep snapshots in S3, or whatever speaks its protocol, by aiobotocore."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from solenoid._errors import (
    AccessError,
    ChangedError,
    FetchError,
    NotFoundError,
    StorageError,
    TransientError,
)
from solenoid.storage import Part, missing, nothing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from solenoid.storage import Progress

_CHUNK = 1 << 18
_MAX_PARTS = 10_000
_MIN_PART = 8 << 20
# pkgcloud's names for what botocore calls otherwise; it has two for some.
_NAMES = {
    "keyId": "aws_access_key_id",
    "accessKeyId": "aws_access_key_id",
    "key": "aws_secret_access_key",
    "accessKey": "aws_secret_access_key",
    "secretAccessKey": "aws_secret_access_key",
    "sessionToken": "aws_session_token",
    "region": "region_name",
    "endpoint": "endpoint_url",
    "cafile": "verify",
}
_OURS = {"profile", "anonymous", "forcePathBucket", "protocol", "serversUrl"}
# They stand in a configuration written for pkgcloud, and mean nothing here.
_IGNORED = {"provider", "container", "version", "securityGroup", "securityGroupId"}
_PASSING = {"RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable"}


class S3Storage:
    """Objects by `s3://BUCKET/KEY` URLs.

    Options are those of pkgcloud's `amazon` provider (`keyId`, `key`, `region`,
    `endpoint`, `forcePathBucket`...), and `profile`, `sessionToken`, `anonymous` and
    `cafile`. What is not given comes from the environment, `~/.aws` or the machine's
    role, as with any AWS client. Needs aiobotocore (the extra `s3`).
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        unknown = set(options) - {*_NAMES, *_OURS, *_IGNORED}
        if unknown:
            raise StorageError(f"s3: storage has no option {min(unknown)!r}")
        self._options = dict(options)
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._client: Any = None
        # Not before it is used, but before it is too late: is it there?
        from importlib.util import find_spec

        if find_spec("aiobotocore") is None:
            raise missing("s3", "aiobotocore", "s3")

    @asynccontextmanager
    async def get(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AsyncIterator[Part]:
        """Ask for a range; some servers that speak S3 send everything all the same."""
        bucket, key = _place(url)
        asked: dict[str, object] = {"Bucket": bucket, "Key": key}
        if etag:
            asked["IfMatch"] = etag
        if start or stop is not None:
            last = "" if stop is None else stop - 1
            asked["Range"] = f"bytes={start}-{last}"
        with _explained(url):
            client = await self._connected()
            try:
                answer = await client.get_object(**asked)
            except client.exceptions.ClientError as error:
                if start or _status(error) != 416:
                    raise
                # No byte is in range when there are none.
                del asked["Range"]
                answer = await client.get_object(**asked)
            async with answer["Body"] as body:
                part = _part(answer, _chunks(body, url))
                if etag and part.etag and part.etag != etag:
                    raise ChangedError(f"{url}: changed meanwhile")
                yield part

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
    ) -> None:
        """Store a file, in parts where it is large, its SHA-256 in the metadata."""
        bucket, key = _place(url)
        place = {"Bucket": bucket, "Key": key}
        about = {**place, "Metadata": {"sha256": sha256}}
        with _explained(url), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            client = await self._connected()
            step = max(_MIN_PART, -(-size // _MAX_PARTS))
            if size <= step:
                await client.put_object(**about, Body=file.read())
                return
            upload = (await client.create_multipart_upload(**about))["UploadId"]
            try:
                parts = []
                for number in range(1, -(-size // step) + 1):
                    data = await asyncio.to_thread(file.read, step)
                    done = await client.upload_part(
                        **place, UploadId=upload, PartNumber=number, Body=data
                    )
                    parts.append({"PartNumber": number, "ETag": done["ETag"]})
                    if progress is not None:
                        progress(min(number * step, size))
                await client.complete_multipart_upload(
                    **place, UploadId=upload, MultipartUpload={"Parts": parts}
                )
            except BaseException:
                # Parts that belong to nothing are stored, and paid for, for ever.
                await client.abort_multipart_upload(**place, UploadId=upload)
                raise

    async def presign(self, url: str, seconds: int) -> str:
        """Return a URL that fetches the object without credentials, for so long."""
        bucket, key = _place(url)
        with _explained(url):
            client = await self._connected()
            signed: str = await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": bucket, "Key": key},
                ExpiresIn=seconds,
            )
        return signed

    async def close(self) -> None:
        """Close the client's connections."""
        await self._stack.aclose()
        self._client = None

    async def _connected(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._stack.enter_async_context(self._create())
        return self._client

    def _create(self) -> Any:
        from aiobotocore.config import AioConfig
        from aiobotocore.session import AioSession
        from botocore import UNSIGNED

        given = self._options
        named = {_NAMES[name]: value for name, value in given.items() if name in _NAMES}
        if "serversUrl" in given and "endpoint_url" not in named:
            named["endpoint_url"] = given["serversUrl"]
        endpoint = str(named.get("endpoint_url") or "")
        if endpoint and "://" not in endpoint:
            protocol = str(given.get("protocol") or "https").partition(":")[0]
            named["endpoint_url"] = f"{protocol}://{endpoint}"
        # Buckets of one's own server are seldom in its name server, too.
        by_path = given.get("forcePathBucket", bool(endpoint))
        config = AioConfig(
            # For URLs with an endpoint of one's own the default is an older signature.
            signature_version=UNSIGNED if given.get("anonymous") else "s3v4",
            s3={"addressing_style": "path" if by_path else "auto"},
            # Repeating is the fetch's business, who knows what it has already.
            retries={"total_max_attempts": 1},
            # Servers that send all for a range send the checksum of all with it.
            response_checksum_validation="when_required",
            request_checksum_calculation="when_required",
        )
        profile = given.get("profile")
        session = AioSession(profile=str(profile) if profile else None)
        if not (named.get("region_name") or session.get_config_variable("region")):
            named["region_name"] = "us-east-1"
        return session.create_client("s3", config=config, **named)


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    key = unquote(parts.path.removeprefix("/"))
    if not parts.netloc or not key:
        raise StorageError(f"{url}: not s3://BUCKET/KEY")
    return parts.netloc, key


def _part(answer: Any, chunks: AsyncIterator[bytes]) -> Part:
    size: int | None = answer.get("ContentLength")
    start, stop = 0, size
    if ranged := answer.get("ContentRange"):
        span, _, whole = ranged.removeprefix("bytes ").partition("/")
        first, _, last = span.partition("-")
        if int(whole) == 0:
            # A part of nothing should be 416; s3rver sends it, with a wrong length.
            return Part(nothing(), 0, 0, 0, answer.get("ETag"))
        start, stop, size = int(first), int(last) + 1, int(whole)
    sha256 = answer.get("Metadata", {}).get("sha256")
    return Part(chunks, start, stop, size, answer.get("ETag"), sha256)


async def _chunks(body: Any, url: str) -> AsyncIterator[bytes]:
    with _explained(url):
        async for chunk in body.iter_chunks(_CHUNK):
            yield chunk


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn the errors of three libraries into ours."""
    from aiohttp import ClientError as HttpError
    from botocore import exceptions as boto

    try:
        yield
    except boto.ClientError as error:
        raise _named(error, url) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise AccessError(f"{url}: {error}") from error
    except boto.SSLError as error:
        raise FetchError(f"{url}: {error}") from error
    except (boto.HTTPClientError, HttpError, boto.IncompleteReadError) as error:
        raise TransientError(f"{url}: {error}") from error
    except (boto.BotoCoreError, ValueError) as error:
        raise StorageError(f"{url}: {error}") from error
    except OSError as error:
        raise TransientError(f"{url}: {error}") from error


def _named(error: Any, url: str) -> FetchError:
    status, said = _status(error), error.response.get("Error", {})
    code = str(said.get("Code", ""))
    why = f"{url}: {status} {code}"
    if said.get("Message") and said["Message"] != code:
        why += f" ({said['Message'][:200]})"
    if code in _PASSING or status in (429, 500, 502, 503, 504):
        return TransientError(why)
    if status in (404, 410):
        return NotFoundError(why)
    if status in (401, 403):
        return AccessError(why)
    if status in (412, 416):
        return ChangedError(why)
    return FetchError(why)
