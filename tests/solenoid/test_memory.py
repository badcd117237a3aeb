# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""How much memory it takes to bring an app and start it, the whole program included."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import large

if TYPE_CHECKING:
    from pathlib import Path

    from tests.solenoid.drone import Drone
    from tests.solenoid.servers import WebServer

ENTRIES = 12_202

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
    tls: bool,
) -> None:
    """30 MB at the most: to fetch, check, unpack, start, and see that it runs."""
    web: WebServer = request.getfixturevalue("secure_web" if tls else "web")
    web.objects["/large.tgz"] = large(place / "large.tgz", ENTRIES).read_bytes()
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
