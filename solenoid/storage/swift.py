# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep snapshots in OpenStack Swift: a token, and then it is a web server."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from solenoid._errors import AccessError, FetchError, StorageError
from solenoid.storage import Part, redacted
from solenoid.storage.http import HttpStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from solenoid.storage import Progress

_WAYS = {"v1.0": "1", "v1": "1", "1": "1", "v2.0": "2", "v2": "2", "2": "2"}
_WAYS |= {"v3": "3", "3": "3"}
_OPTIONS = {
    *("authUrl", "username", "password", "apiKey", "region", "keystoneAuthVersion"),
    *("tenantId", "tenantName", "projectId", "projectName", "domainId", "domainName"),
    *("storageUrl", "token", "internal", "cafile"),
}
_IGNORED = {"provider", "container", "useServiceCatalog", "useInternal", "version"}
_RACKSPACE = "https://identity.api.rackspacecloud.com"


@dataclass(frozen=True, slots=True)
class _Session:
    """Where the account's containers are, and what opens them."""

    url: str
    token: str


class SwiftStorage:
    """Objects by `swift://CONTAINER/OBJECT` URLs.

    Options are those of pkgcloud's `openstack` and `rackspace` providers: `authUrl`,
    `username`, `password` or `apiKey`, `region`, `tenantId` or `tenantName` (with
    Keystone 3 `projectId`, `projectName`, and `domainName`), `keystoneAuthVersion`
    (v1.0, v2.0 or v3); or a `token` and its `storageUrl`; and `cafile`.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        unknown = set(options) - _OPTIONS - _IGNORED
        if unknown:
            raise StorageError(f"swift: storage has no option {min(unknown)!r}")
        self._options = {name: str(value) for name, value in options.items()}
        if options.get("provider") == "rackspace":
            self._options.setdefault("authUrl", _RACKSPACE)
        given = self._options
        if not {"storageUrl", "token"} <= set(given):
            for name in ("authUrl", "username"):
                if not given.get(name):
                    raise StorageError(f"swift: storage needs the option {name!r}")
            if not (given.get("password") or given.get("apiKey")):
                raise StorageError("swift: storage needs the option 'password'")
        self._way = _WAYS.get(given.get("keystoneAuthVersion", _way(given)), "")
        if not self._way:
            raise StorageError("swift: keystoneAuthVersion is not v1.0, v2.0 or v3")
        cafile = given.get("cafile")
        self._http = HttpStorage({"cafile": cafile} if cafile else {})
        self._session: _Session | None = None
        self._signing_in = asyncio.Lock()

    @asynccontextmanager
    async def get(
        self, url: str, *, start: int = 0, stop: int | None = None, etag: str = ""
    ) -> AsyncIterator[Part]:
        """Ask for a range; a token that has expired is replaced once."""
        again = False
        while True:
            session = await self._signed_in()
            at = f"{session.url}/{_place(url)}"
            headers = {"X-Auth-Token": session.token}
            asked = self._http.get(
                at, start=start, stop=stop, etag=etag, headers=headers
            )
            try:
                part = await asked.__aenter__()
            except AccessError:
                if again:
                    raise
                again = True
                self._forget(session)
                continue
            break
        try:
            yield part
        finally:
            await asked.__aexit__(None, None, None)

    async def put(
        self,
        url: str,
        path: Path,
        *,
        sha256: str,
        progress: Progress | None = None,
    ) -> None:
        """Store a file of up to 5 GB, its SHA-256 in the metadata."""
        for again in (False, True):
            session = await self._signed_in()
            headers = {
                "X-Auth-Token": session.token,
                "X-Object-Meta-Sha256": sha256,
                "Content-Type": "application/gzip",
            }
            at = f"{session.url}/{_place(url)}"
            try:
                await self._http.put(
                    at, path, sha256=sha256, progress=progress, headers=headers
                )
            except AccessError:
                if again:
                    raise
                self._forget(session)
            else:
                return

    async def close(self) -> None:
        """Forget the token."""
        self._session = None

    def _forget(self, session: _Session) -> None:
        if self._session is session:
            self._session = None

    async def _signed_in(self) -> _Session:
        async with self._signing_in:
            if self._session is None:
                given = self._options
                if {"storageUrl", "token"} <= set(given):
                    self._session = _Session(given["storageUrl"], given["token"])
                elif self._way == "1":
                    self._session = await self._sign_in_1()
                else:
                    self._session = await self._sign_in()
        return self._session

    async def _sign_in_1(self) -> _Session:
        given = self._options
        user = given["username"]
        if tenant := given.get("tenantName"):
            user = f"{tenant}:{user}"
        secret = given.get("password") or given["apiKey"]
        headers, _ = await self._http.ask(
            "GET", given["authUrl"], {"X-Auth-User": user, "X-Auth-Key": secret}
        )
        return self._made(headers.get("x-storage-url"), headers.get("x-auth-token"))

    async def _sign_in(self) -> _Session:
        version = "v3" if self._way == "3" else "v2.0"
        base = self._options["authUrl"].rstrip("/")
        if not base.endswith(f"/{version}"):
            base += f"/{version}"
        url = f"{base}/auth/tokens" if self._way == "3" else f"{base}/tokens"
        body = _asked_3(self._options) if self._way == "3" else _asked_2(self._options)
        headers, said = await self._http.ask(
            "POST", url, {"Content-Type": "application/json"}, json.dumps(body).encode()
        )
        try:
            found = json.loads(said)
            if self._way == "3":
                token = headers.get("x-subject-token")
                catalog = found["token"]["catalog"]
            else:
                token = found["access"]["token"]["id"]
                catalog = found["access"]["serviceCatalog"]
            place = self._endpoint(catalog)
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(f"{redacted(url)}: not an answer of Keystone's") from error
        return self._made(place, token)

    def _endpoint(self, catalog: Any) -> str | None:
        """Return the object store's address in the region, or in the only one."""
        region = self._options.get("region")
        face = "internal" if self._options.get("internal") == "True" else "public"
        for service in catalog:
            if service["type"] != "object-store":
                continue
            for endpoint in service["endpoints"]:
                if region and endpoint.get("region") != region:
                    continue
                if f"{face}URL" in endpoint:
                    return str(endpoint[f"{face}URL"])
                if endpoint.get("interface") == face:
                    return str(endpoint["url"])
        return None

    def _made(self, url: str | None, token: str | None) -> _Session:
        if not url or not token:
            where = redacted(self._options["authUrl"])
            region = self._options.get("region")
            place = f" in region {region}" if region else ""
            raise AccessError(f"{where}: knows of no object store{place}")
        return _Session(url.rstrip("/"), token)


def _way(options: Mapping[str, str]) -> str:
    """Guess from the address, as its path mostly says; pkgcloud's default is 2."""
    last = options.get("authUrl", "").rstrip("/").rpartition("/")[2]
    return last if last in _WAYS else "v2.0"


def _place(url: str) -> str:
    parts = urlsplit(url)
    name = unquote(parts.path.removeprefix("/"))
    if not parts.netloc or not name:
        raise StorageError(f"{redacted(url)}: not swift://CONTAINER/OBJECT")
    return f"{quote(parts.netloc)}/{quote(name)}"


def _asked_2(given: Mapping[str, str]) -> dict[str, object]:
    user = given["username"]
    auth: dict[str, object]
    if given.get("apiKey"):
        secret = {"username": user, "apiKey": given["apiKey"]}
        auth = {"RAX-KSKEY:apiKeyCredentials": secret}
    else:
        secret = {"username": user, "password": given["password"]}
        auth = {"passwordCredentials": secret}
    for name in ("tenantId", "tenantName"):
        if given.get(name):
            auth[name] = given[name]
    return {"auth": auth}


def _asked_3(given: Mapping[str, str]) -> dict[str, object]:
    domain = (
        {"id": given["domainId"]}
        if given.get("domainId")
        else {"name": given.get("domainName", "Default")}
    )
    secret = given.get("password") or given["apiKey"]
    user = {"name": given["username"], "domain": domain, "password": secret}
    identity = {"methods": ["password"], "password": {"user": user}}
    auth: dict[str, object] = {"identity": identity}
    id_ = given.get("projectId") or given.get("tenantId")
    name = given.get("projectName") or given.get("tenantName")
    if id_:
        auth["scope"] = {"project": {"id": id_}}
    elif name:
        auth["scope"] = {"project": {"name": name, "domain": domain}}
    return {"auth": auth}
