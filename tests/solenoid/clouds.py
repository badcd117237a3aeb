# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run OpenStack Swift, and what stands in for Azure's and Google's storages."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.solenoid.conftest import BUCKET, CACHE, npm_package
from tests.solenoid.servers import await_port, begun, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Cloud:
    """A storage with an empty container, and how to be its client."""

    base: str
    options: dict[str, object]
    endpoint: str


_SERVER = """
[DEFAULT]
devices = {top}/srv
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {top}
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
_PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {top}
[pipeline:main]
pipeline = cache tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{memory}
[filter:tempauth]
use = egg:swift#tempauth
user_shop_deploy = a-secret .admin
"""
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for place, _, port in (word.rpartition(":") for word in sys.argv[1:]):
    ring = RingBuilder(4, 1, 0)
    ring.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1",
                      replication_ip="127.0.0.1", replication_port=int(port), weight=1))
    ring.rebalance()
    ring.get_ring().save(place.replace(".builder", ".ring.gz"))
"""
_NEEDED = ("swift-proxy-server", "swift-object-server", "swift-container-server")


@contextlib.contextmanager
def swift(top: Path) -> Iterator[Cloud]:
    """Run all of Swift on one disk, as the Swift All In One of its manual."""
    for needed in (*_NEEDED, "swift-account-server", "memcached"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed (Debian has it)")
    user = getpass.getuser()
    (top / "srv" / "d1").mkdir(parents=True)
    (top / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = a\nswift_hash_path_suffix = b\n"
        "[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    env = {"SWIFT_DIR": str(top)}
    names = ("account", "container", "object")
    ports = {name: free_port() for name in (*names, "proxy", "memcached")}
    words = [f"{top}/{name}.builder:{ports[name]}" for name in names]
    # Debian's own, which is where Debian's swift is.
    subprocess.run(["/usr/bin/python3", "-c", _RINGS, *words], check=True)
    for name in names:
        text = _SERVER.format(top=top, port=ports[name], user=user, name=name)
        (top / f"{name}.conf").write_text(text)
    port, memory = ports["proxy"], ports["memcached"]
    text = _PROXY.format(top=top, port=port, user=user, memory=memory)
    (top / "proxy.conf").write_text(text)
    commands = {
        name: [f"swift-{name}-server", f"{top}/{name}.conf"]
        for name in (*names, "proxy")
    }
    commands["memcached"] = ["memcached", "-l", "127.0.0.1", "-u", user]
    commands["memcached"] += ["-p", str(memory)]
    with contextlib.ExitStack() as stack:
        # All at once: each of them takes seconds to begin.
        children = {
            name: stack.enter_context(begun(command, top / f"{name}.log", env))
            for name, command in commands.items()
        }
        for name, child in children.items():
            await_port(child, ports[name], top / f"{name}.log")
        endpoint = f"http://127.0.0.1:{port}"
        options: dict[str, object] = {
            "provider": "openstack",
            "container": BUCKET,
            "authUrl": f"{endpoint}/auth/v1.0",
            "username": "shop:deploy",
            "password": "a-secret",
            "keystoneAuthVersion": "v1.0",
        }
        url, token = swift_token(endpoint)
        make = urllib.request.Request(
            f"{url}/{BUCKET}", method="PUT", headers={"X-Auth-Token": token}
        )
        urllib.request.urlopen(make).close()
        yield Cloud(f"swift://{BUCKET}", options, endpoint)


def swift_token(endpoint: str) -> tuple[str, str]:
    """Sign in as a client would; return where the containers are, and a token."""
    words = {"X-Auth-User": "shop:deploy", "X-Auth-Key": "a-secret"}
    ask = urllib.request.Request(f"{endpoint}/auth/v1.0", headers=words)
    with urllib.request.urlopen(ask) as answer:
        return answer.headers["X-Storage-Url"], answer.headers["X-Auth-Token"]


@contextlib.contextmanager
def azure(top: Path) -> Iterator[Cloud]:
    """Run azurite, which is Microsoft's own."""
    modules = npm_package(CACHE / "azurite", "azurite@3.35.0")
    port = free_port()
    account, key = "shop", "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"
    script = modules / "azurite/dist/src/blob/main.js"
    command = ["node", "--no-deprecation", str(script), "--blobPort", str(port)]
    command += ["-l", str(top), "--silent", "--skipApiVersionCheck"]
    env = {"AZURITE_ACCOUNTS": f"{account}:{key}"}
    with running(command, port, top / "log", env):
        from azure.storage.blob import BlobServiceClient

        endpoint = f"http://127.0.0.1:{port}/{account}"
        text = (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={key};"
            f"BlobEndpoint={endpoint};"
        )
        with BlobServiceClient.from_connection_string(text) as client:
            client.create_container(BUCKET)
        options: dict[str, object] = {
            "provider": "azure",
            "storageAccount": account,
            "storageAccessKey": key,
            "account_host": f"127.0.0.1:{port}",
            "connection_string": text,
        }
        yield Cloud(f"az://{BUCKET}", options, endpoint)


@contextlib.contextmanager
def google(top: Path) -> Iterator[Cloud]:
    """Run an emulator of Google's storage."""
    port = free_port()
    command = [program("gcp-storage-emulator"), "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", BUCKET]
    with running(command, port, top / "log"):
        endpoint = f"http://127.0.0.1:{port}"
        options: dict[str, object] = {
            "provider": "google",
            "projectId": "shop",
            "token": "anon",
            "endpoint_url": endpoint,
        }
        yield Cloud(f"gs://{BUCKET}", options, endpoint)
