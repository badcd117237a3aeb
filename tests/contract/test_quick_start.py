# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep the quick start's promise: a node app's life is seen in a plain `nc`."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.conftest import Forza

DEMO = ROOT / "examples" / "demo" / "app.js"


@pytest.fixture
def nc() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A `nc -k -l` on a free port, and the port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # In time for the first event or not: forza tries again until it listens.
    with subprocess.Popen(
        ["nc", "-k", "-l", "127.0.0.1", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as listener:
        try:
            yield listener, port
        finally:
            listener.kill()
            listener.wait(PATIENCE)


@pytest.mark.skipif(shutil.which("nc") is None, reason="there is no nc")
def test_quick_start(forza: Forza, nc: tuple[subprocess.Popen[bytes], int]) -> None:
    """Logs, metrics and the app's own figures show up, and the end is the last."""
    listener, port = nc
    # The app's use of the processor is known from the second reading on.
    program = forza.start(
        *("-h", "127.0.0.1", "-p", port, "--cpu-interval", 0.5, "--", "node", DEMO)
    )
    assert listener.stdout is not None
    services = set()
    texts = []
    for line in listener.stdout:
        event = orjson.loads(line)
        services.add(event["service"])
        texts.append(event.get("description", ""))
        if event["service"] == "demo/visits":
            program.send_signal(signal.SIGINT)
        if event["service"] == "health/process/exit":
            break
    assert forza.wait(program).status == 0
    assert services == {
        "demo/visits",
        "health/machine/cpu",
        "health/machine/memory",
        "health/process/cpu",
        "health/process/exit",
        "health/process/heartbeat",
        "health/process/memory",
        "health/process/spawn",
        "health/process/start",
        "health/process/uptime",
        "logs/stdout",
    }
    assert any(text.startswith("listening on http://") for text in texts)
    assert any(text.startswith("SIGINT: bye") for text in texts)
