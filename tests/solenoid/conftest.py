# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Offer the tests drones, web servers, S3 servers and packages from npm."""

from __future__ import annotations

import contextlib
import fcntl
import ssl
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.solenoid import sshd
from tests.solenoid.drone import ROOT as ROOT_USER
from tests.solenoid.drone import Drone
from tests.solenoid.servers import S3Server, WebServer, free_port, program, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme

CACHE = ROOT / "tests" / ".cache"
BUCKET = "snapshots"


def npm_package(folder: Path, *packages: str) -> Path:
    """Install packages of npm into a folder, once, and return its node_modules."""
    folder.mkdir(parents=True, exist_ok=True)
    # Two test runs in one checkout do not install into the same folder at once.
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done, wanted = folder / "done", "\n".join(packages)
        if not done.exists() or done.read_text() != wanted:
            (folder / "package.json").write_text('{"private": true}\n')
            command = ["npm", "install", "--no-audit", "--no-fund", "--no-save"]
            ended = subprocess.run(
                [*command, "--force", *packages],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ended.returncode == 0, ended.stderr
            done.write_text(wanted)
    return folder / "node_modules"


@pytest.fixture
def web() -> Iterator[WebServer]:
    """A web server of one's own, which behaves until told otherwise."""
    server = WebServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority that nobody else trusts."""
    import trustme

    return trustme.CA()


@pytest.fixture
def secure_web(authority: trustme.CA) -> Iterator[WebServer]:
    """The same over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server = WebServer(context)
    yield server
    server.close()


@contextlib.contextmanager
def _moto(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    command = [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, port, folder / "log"):
        endpoint = f"http://127.0.0.1:{port}"
        make = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(make).close()
        yield S3Server("moto", endpoint, _options(endpoint, "test", "test"))


@contextlib.contextmanager
def _s3rver(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    modules = npm_package(CACHE / "s3rver", "s3rver@3.7.1")
    command = ["node", "--no-deprecation", str(modules / "s3rver/bin/s3rver.js")]
    command += ["-d", str(folder), "-a", "127.0.0.1", "-p", str(port)]
    command += ["--configure-bucket", BUCKET]
    with running(command, port, folder / "log"):
        endpoint = f"http://127.0.0.1:{port}"
        yield S3Server("s3rver", endpoint, _options(endpoint, "S3RVER", "S3RVER"))


@contextlib.contextmanager
def _rclone(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    (folder / "data" / BUCKET).mkdir(parents=True)
    command = [program("rclone"), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", "an-id,a-secret", str(folder / "data")]
    env = {"RCLONE_CONFIG": str(folder / "none")}
    with running(command, port, folder / "log", env):
        endpoint = f"http://127.0.0.1:{port}"
        options = _options(endpoint, "an-id", "a-secret")
        yield S3Server("rclone", endpoint, options, checks_signatures=True)


def _options(endpoint: str, key_id: str, key: str) -> dict[str, object]:
    return {"endpoint": endpoint, "keyId": key_id, "key": key, "region": "us-east-1"}


SERVERS = {"moto": _moto, "s3rver": _s3rver, "rclone": _rclone}


@pytest.fixture(scope="session", params=sorted(SERVERS))
def s3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """Each of the servers in turn, with an empty bucket."""
    with SERVERS[request.param](tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server that checks signatures."""
    with _rclone(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server that knows most of S3."""
    with _moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def ssh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's home with nothing in it, and no agent."""
    home = tmp_path / "operator"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(CACHE / "xdg"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def fleet(tmp_path: Path, ssh_home: Path) -> Iterator[sshd.Fleet]:
    """Real OpenSSH servers, to be added as wanted, and an operator with a key."""
    if sshd.SSHD is None:
        pytest.skip("needs OpenSSH's server (apt install openssh-server)")
    with sshd.fleet(tmp_path / "fleet", ssh_home) as fleet:
        yield fleet


@pytest.fixture
def three(fleet: sshd.Fleet) -> tuple[sshd.Sshd, sshd.Sshd, sshd.Sshd]:
    """Three drones that behave."""
    return fleet.add("web1"), fleet.add("web2"), fleet.add("web3")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="solenoid-test-") as made:
        path = Path(made)
        path.chmod(0o777 if ROOT_USER else 0o755)
        yield path


WHO = [pytest.param(True, id="root")] if ROOT_USER else []
WHO += [pytest.param(False, id="plain user")]


@pytest.fixture(params=WHO)
def drone(place: Path, request: pytest.FixtureRequest) -> Iterator[Drone]:
    """A run directory of root's, and one of a plain user's."""
    made = Drone(place, root=request.param)
    yield made
    made.close()


@pytest.fixture
def one(place: Path) -> Iterator[Drone]:
    """A run directory of whoever runs the tests."""
    made = Drone(place)
    yield made
    made.close()


@pytest.fixture
def other(place: Path) -> Iterator[Drone]:
    """Another one beside it."""
    made = Drone(place, "other")
    yield made
    made.close()
