# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""How much memory it takes to bring an app and start it, the whole program included."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import SERVER

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.drone import Drone
    from tests.solenoid.servers import WebServer

ENTRIES = 12_202
FOLDERS = 1_200


def large(path: Path) -> bytes:
    """Return a snapshot with as many entries as a large node_modules tree has."""
    about = {"name": "shop", "version": "1.0.0", "scripts": {"start": "node server.js"}}
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        add("package.json", json.dumps(about).encode())
        add("server.js", SERVER.encode())
        for number in range(FOLDERS):
            entry = tarfile.TarInfo(f"package/node_modules/package-{number}/lib")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        # Half of it is text, half of it does not get smaller.
        for number in range(ENTRIES - FOLDERS - 2):
            folder = f"node_modules/package-{number % FOLDERS}/lib"
            data = f"exports.value = {number};\n".encode() * 50 + os.urandom(1000)
            add(f"{folder}/some-module-{number}.js", data)
    return path.read_bytes()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """That snapshot."""
    return large(tmp_path_factory.mktemp("large") / "large.tgz")


# A process that is forked counts what its parent had: so the parent is small.
MEASURED = """
import os, sys
pid = os.fork()
if not pid:
    os.execv(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    file.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_of(drone: Drone, *words: str) -> int:
    """Start an app, which shall work; return the most bytes that solenoid has had."""
    file = drone.place / "peak"
    command = [sys.executable, "-I", "-S", "-c", MEASURED, str(file)]
    command += [sys.executable, "-m", "solenoid", *words]
    command += ["--run-dir", str(drone.run_dir), "--start-timeout", str(PATIENCE)]
    if drone.root:
        command += ["--system-user", drone.user.name]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=drone.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return int(file.read_text()) * 1024


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_start_from_a_presigned_url(
    one: Drone,
    place: Path,
    request: pytest.FixtureRequest,
    content: bytes,
    tls: bool,
) -> None:
    """30 MB at the most: to fetch, check, unpack, start, and see that it runs."""
    web: WebServer = request.getfixturevalue("secure_web" if tls else "web")
    web.objects["/large.tgz"] = content
    options: dict[str, Any] = {"url": web.url}
    if tls:
        request.getfixturevalue("authority").cert_pem.write_to_path(
            str(place / "ca.pem")
        )
        options["cafile"] = str(place / "ca.pem")
    (place / "conf").write_text(json.dumps({"storage": options}))
    url = f"{web.url}/large.tgz"
    peak = peak_of(one, "start", "--from", url, "--config", str(place / "conf"))
    assert len(list((one.release / "package").rglob("*"))) > ENTRIES
    assert peak <= 30_000_000
