# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep snapshots where else pkgcloud kept them: Swift, Azure, Google, and fsspec."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from solenoid.storage import open_storage
from solenoid.testing import check_storage
from tests.conftest import ROOT
from tests.solenoid.clouds import Cloud, azure, google, swift, swift_token
from tests.solenoid.conftest import BUCKET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Azure's library does what aiohttp warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """OpenStack Swift."""
    with swift(tmp_path_factory.mktemp("swift")) as running:
        yield running


@pytest.fixture(scope="module", params=["azure", "google", "swift"])
def cloud(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cloud]:
    """Each of the three in turn."""
    if request.param == "swift":
        yield request.getfixturevalue("stack")
        return
    run = {"azure": azure, "google": google}[request.param]
    with run(tmp_path_factory.mktemp("cloud")) as running:
        yield running


def push(path: Path, url: str, options: dict[str, object]) -> solenoid.Pushed:
    """Push, now."""
    return asyncio.run(solenoid.push(path, url, options=options))


def fetch(url: str, to: Path, options: dict[str, object]) -> solenoid.Fetched:
    """Fetch, now."""
    return asyncio.run(solenoid.fetch(url, to, options=options, attempts=2))


def test_contract(cloud: Cloud) -> None:
    """Each of them is a storage."""
    storage = open_storage(cloud.base, cloud.options)
    asyncio.run(check_storage(storage, f"{cloud.base}/contract"))


def test_push_and_fetch(cloud: Cloud, tmp_path: Path) -> None:
    """What was pushed comes back in parts, with its digest."""
    data = os.urandom(1 << 20) * 17 + b"end"
    (tmp_path / "in").write_bytes(data)
    url = f"{cloud.base}/deep/er/{uuid.uuid4()}.tgz"
    pushed = push(tmp_path / "in", url, cloud.options)
    assert pushed.sha256 == hashlib.sha256(data).hexdigest()
    fetched = fetch(url, tmp_path / "out", cloud.options)
    assert (tmp_path / "out").read_bytes() == data
    assert fetched.sha256 == pushed.sha256
    assert fetched.digest_from in ("metadata", "beside")


def test_missing(cloud: Cloud, tmp_path: Path) -> None:
    """What is not there is said not to be there, once."""
    with pytest.raises(solenoid.NotFoundError, match=r"none\.tgz"):
        fetch(f"{cloud.base}/none.tgz", tmp_path / "out", cloud.options)
    assert list(tmp_path.iterdir()) == []


def test_by_the_configuration(cloud: Cloud, tmp_path: Path) -> None:
    """A `storage` as pkgcloud's users have written it is understood."""
    path = tmp_path / "conf"
    path.write_text(json.dumps({"storage": {**cloud.options, "container": BUCKET}}))
    config = asyncio.run(solenoid.read_config(path))
    assert config.storage is not None
    url = config.storage.snapshot("a user", "shop", "1.0.0+x")
    (tmp_path / "in").write_bytes(b"content")
    push(tmp_path / "in", url, dict(config.storage.options))
    fetch(url, tmp_path / "out", dict(config.storage.options))
    assert (tmp_path / "out").read_bytes() == b"content"


# --- fsspec -------------------------------------------------------------------


def test_any_file_system(tmp_path: Path) -> None:
    """Whatever fsspec knows is a storage, by its own name."""
    storage = open_storage("fsspec+memory://x")
    asyncio.run(check_storage(storage, f"fsspec+memory://{uuid.uuid4()}"))
    storage = open_storage("fsspec+file:", {"auto_mkdir": True})
    asyncio.run(check_storage(storage, f"fsspec+file://{tmp_path}/a"))


def test_unknown_file_system(tmp_path: Path) -> None:
    """One that it does not know is named, and so is a package that is missing."""
    with pytest.raises(solenoid.StorageError, match=r"cannot use nosuch: .*nosuch"):
        fetch("fsspec+nosuch://x/y", tmp_path / "out", {})


@pytest.mark.parametrize(
    ("missing", "url", "package", "extra"),
    [
        ("aiobotocore", "s3://x/y", "aiobotocore", "s3"),
        ("gcsfs", "gs://x/y", "gcsfs", "google"),
        ("fsspec", "az://x/y", "adlfs", "azure"),
    ],
)
def test_not_installed(
    tmp_path: Path, missing: str, url: str, package: str, extra: str
) -> None:
    """Without the extra it is said which, and the command that installs it."""
    program = (
        "import asyncio, importlib.util, sys, solenoid\n"
        f"sys.modules['{missing}'] = None\n"
        "importlib.util.find_spec = lambda name: sys.modules.get(name)\n"
        "try: asyncio.run(solenoid.fetch(*sys.argv[1:]))\n"
        "except solenoid.StorageError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, url, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    scheme = url.partition(":")[0]
    assert ended.stdout == (
        f"cannot use {scheme}: it needs the extra '{extra}' ({package} is not"
        f" installed): {sys.executable} -m pip install 'forza-solenoid[{extra}]'\n"
    )


def test_replaced_on_the_way(tmp_path: Path) -> None:
    """What changes while it is read is not half of each."""
    source = tmp_path / "in"
    source.write_bytes(b"a" * (9 << 20))
    changed = False

    def change(done: int, total: int | None) -> None:
        nonlocal changed
        if not changed:
            changed = True
            source.write_bytes(b"b" * (9 << 20))

    asyncio.run(
        solenoid.fetch(f"fsspec+file://{source}", tmp_path / "out", progress=change)
    )
    assert changed
    assert set((tmp_path / "out").read_bytes()) == {ord("b")}


# --- Swift --------------------------------------------------------------------


def test_wrong_password(stack: Cloud, tmp_path: Path) -> None:
    """Who has the wrong one is told so, by the address that was asked."""
    options = {**stack.options, "password": "wr0ng"}
    with pytest.raises(solenoid.AccessError, match=r"/auth/v1\.0: 401") as caught:
        fetch(f"{stack.base}/x.tgz", tmp_path / "out", options)
    assert "wr0ng" not in str(caught.value)


def test_given_token(stack: Cloud, tmp_path: Path) -> None:
    """A token does without a password; one that has expired is said to be so."""
    url, token = swift_token(stack.endpoint)
    (tmp_path / "in").write_bytes(b"content")
    options: dict[str, object] = {"storageUrl": url, "token": token}
    push(tmp_path / "in", f"{stack.base}/token.tgz", options)
    fetch(f"{stack.base}/token.tgz", tmp_path / "out", options)
    assert (tmp_path / "out").read_bytes() == b"content"
    with pytest.raises(solenoid.AccessError, match="401"):
        fetch(f"{stack.base}/token.tgz", tmp_path / "x", {**options, "token": "old"})


class Keystone:
    """Answers as Keystone's manual says, with the real Swift's address and token.

    Keystone itself takes a database and a web server, more than a test can have.
    """

    def __init__(self, endpoint: str) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.stale = 0  # so many of the next tokens have expired
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                server.asked.append((self.path, json.loads(data)["auth"]))
                url, token = swift_token(endpoint)
                if server.stale:
                    server.stale -= 1
                    token = "stale"
                body = json.dumps(_catalog(self.path, url, token)).encode()
                self.send_response(200)
                self.send_header("X-Subject-Token", token)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _catalog(path: str, url: str, token: str) -> dict[str, Any]:
    if path.startswith("/v3"):
        faces = [
            {"interface": "internal", "region": "one", "url": "http://127.0.0.1:1"},
            {"interface": "public", "region": "two", "url": "http://127.0.0.1:2"},
            {"interface": "public", "region": "one", "url": url},
        ]
        services = [
            {"type": "compute", "endpoints": faces[:1]},
            {"type": "object-store", "endpoints": faces},
        ]
        return {"token": {"catalog": services}}
    faces = [
        {"region": "two", "publicURL": "http://127.0.0.1:2"},
        {"region": "one", "publicURL": url, "internalURL": "http://127.0.0.1:1"},
    ]
    services = [{"type": "object-store", "endpoints": faces}]
    return {"access": {"token": {"id": token}, "serviceCatalog": services}}


@pytest.fixture
def keystone(stack: Cloud) -> Iterator[Keystone]:
    """One that knows two regions."""
    server = Keystone(stack.endpoint)
    yield server
    server.close()


@pytest.mark.parametrize(
    ("given", "path", "asked"),
    [
        (
            {"password": "p", "tenantId": "t"},
            "/v2.0/tokens",
            {
                "passwordCredentials": {"username": "u", "password": "p"},
                "tenantId": "t",
            },
        ),
        (
            {"apiKey": "k", "provider": "rackspace"},
            "/v2.0/tokens",
            {"RAX-KSKEY:apiKeyCredentials": {"username": "u", "apiKey": "k"}},
        ),
        (
            {"password": "p", "keystoneAuthVersion": "v3", "tenantName": "shop"},
            "/v3/auth/tokens",
            {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {
                            "name": "u",
                            "domain": {"name": "Default"},
                            "password": "p",
                        }
                    },
                },
                "scope": {"project": {"name": "shop", "domain": {"name": "Default"}}},
            },
        ),
    ],
    ids=["v2", "rackspace", "v3"],
)
def test_keystone(
    keystone: Keystone, tmp_path: Path, given: Any, path: str, asked: Any
) -> None:
    """The token comes from Keystone of either version, the address from its list."""
    (tmp_path / "in").write_bytes(b"content")
    options = {"authUrl": f"{keystone.url}/", "username": "u", "region": "one", **given}
    url = f"swift://{BUCKET}/keystone.tgz"
    push(tmp_path / "in", url, options)
    assert keystone.asked == [(path, asked)]
    keystone.stale = 1
    fetch(url, tmp_path / "out", options)
    assert (tmp_path / "out").read_bytes() == b"content"
    assert len(keystone.asked) == 3  # the stale token was replaced, once
    with pytest.raises(solenoid.AccessError, match="no object store in region three"):
        fetch(url, tmp_path / "x", {**options, "region": "three"})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "needs the option 'authUrl'"),
        ({"authUrl": "http://x", "username": "u"}, "needs the option 'password'"),
        ({"authUrl": "http://x", "username": "u", "passwd": "p"}, "no option 'passwd'"),
        (
            {
                "authUrl": "x",
                "username": "u",
                "password": "p",
                "keystoneAuthVersion": "4",
            },
            "is not v1.0, v2.0 or v3",
        ),
    ],
)
def test_options(options: dict[str, object], why: str) -> None:
    """What is missing or unknown is said before anybody is asked."""
    with pytest.raises(solenoid.StorageError, match=why):
        open_storage("swift://x/y", options)
