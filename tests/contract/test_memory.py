# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold the monitor to its promise: a few megabytes, at rest, after and in a burst."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from forza._native import path as native_path
from tests.conftest import CHILDREN, PATIENCE
from tests.contract.test_listen import Listener, soon

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates
    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

MIB = 1024
# Resident and anonymous kB, idle. Resident counts clean pages of the interpreter's own
# file, and those differ from build to build: a static one (Debian's) has more.
IDLE = {
    # With the guard, which has 0.05, it is 4.43.
    (3, 11): (10 * MIB, 4.5 * MIB),
    (3, 12): (11 * MIB, 5.3 * MIB),
    (3, 13): (11 * MIB, 5.3 * MIB),
}
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] not in IDLE or os.uname().machine != "x86_64",
    reason="the figures are those of CPython 3.11 to 3.13 on x86-64",
)


@pytest.fixture(autouse=True)
def lean_only(forza: Forza) -> None:
    """The plain runtime has no such promise."""
    if forza.runtime == "plain":
        pytest.skip("only the lean runtime promises it")


def memory(pid: int) -> dict[str, int]:
    """Return the sums of a process's mappings, in kB."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        words = [line.split() for line in file][1:]
    return {word[0].rstrip(":"): int(word[1]) for word in words}


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def peak(pid: int) -> int:
    """Return the most that a process has had resident so far, in kB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1])


def descendants(pid: int) -> list[str]:
    """Name the programs that have come of a process: forza's guard is between."""
    names = []
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in map(int, file.read().split()):
            with open(f"/proc/{child}/comm", encoding="ascii") as comm:
                names.append(comm.read().strip())
            names += descendants(child)
    return names


def settled(server: MetricsServer, pid: int) -> dict[str, int]:
    """Wait for the ticks after which the monitor has settled; return its memory."""
    seen = len(server.of("health/process/uptime"))
    server.wait_for("health/process/uptime", count=seen + 3)
    time.sleep(0.1)  # settling comes last in a tick
    return memory(pid)


def test_idle(forza: Forza, server: MetricsServer) -> None:
    """Connected, all plugins on, with a node app that does nothing."""
    # Once before, so that nothing is compiled in the monitor that is measured.
    forza.run("-h", server.address, "--", "true")
    program = forza.start(
        *("-h", server.address, "--", "node", "-e", "setInterval(() => {}, 1000)")
    )
    found = settled(server, program.pid)
    resident, anonymous = IDLE[sys.version_info[:2]]
    more = 0.7 * MIB if sys.base_prefix == "/usr" else 0
    assert found["Anonymous"] <= anonymous
    assert found["Rss"] <= resident + more
    program.terminate()
    assert forza.wait(program).status == 143


def test_kept(forza: Forza, server: MetricsServer) -> None:
    """Monitor, keeper and guard together; only the monitor is Python when at rest."""
    if native_path("sleeper") is None:
        pytest.skip("there was no C compiler: the keeper sleeps in Python")
    forza.run("-h", server.address, "--", "true")
    keeper = forza.start(
        *("--keep", "-h", server.address, "--"),
        *("node", "-e", "setInterval(() => {}, 1000)"),
    )
    server.wait_for("health/process/spawn", count=2)
    (monitor,) = children_of(keeper.pid)
    guards = children_of(monitor)
    ours = [settled(server, monitor), *map(memory, (keeper.pid, *guards))]
    assert sum(found["Pss"] for found in ours) <= 11 * MIB
    assert sum(found["Anonymous"] for found in ours) <= 6 * MIB
    assert memory(keeper.pid)["Anonymous"] <= 0.3 * MIB
    keeper.terminate()
    assert forza.wait(keeper).status == 0


class Counter(threading.Thread):
    """A server that counts lines and ticks, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.lines = self.ticks = 0
        self.changed = threading.Condition()

    def run(self) -> None:
        """Count until the client goes."""
        with self.listener, self.listener.accept()[0] as connection:
            tail = b""
            while data := connection.recv(1 << 20):
                whole, _, rest = (tail + data).rpartition(b"\n")
                tail = rest
                with self.changed:
                    self.lines += whole.count(b'"logs/stdout"')
                    self.ticks += whole.count(b'"health/process/uptime"')
                    self.changed.notify_all()

    def wait_for(self, lines: int, more_ticks: int) -> None:
        """Wait for so many lines in all, and then for so many ticks."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.lines >= lines, PATIENCE)
            until = self.ticks + more_ticks
            assert self.changed.wait_for(lambda: self.ticks >= until, PATIENCE)


def test_after_a_burst(forza: Forza) -> None:
    """A million lines later it is as small again."""
    counter = Counter()
    counter.start()
    script = f"{sys.executable} -S {CHILDREN / 'flood.py'} 1000000; exec sleep 1000"
    program = forza.start("-h", counter.address, "--", "sh", "-c", script)
    counter.wait_for(1_000_000, more_ticks=3)
    time.sleep(0.1)  # settling comes last in a tick
    found = memory(program.pid)
    assert found["Anonymous"] <= IDLE[sys.version_info[:2]][1] + 1 * MIB
    assert found["Rss"] <= 11.5 * MIB
    program.terminate()
    forza.wait(program)
    counter.join(PATIENCE)


def test_peak_while_the_sink_stalls(forza: Forza) -> None:
    """At full speed into a server that does not read, it holds back, and drops."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = f"{sys.executable} -S {CHILDREN / 'flood.py'} 1000000; exec sleep 1000"
        program = forza.start(
            *("-h", f"127.0.0.1:{port}", "--flush-timeout", 0.1, "--"),
            *("sh", "-c", script),
        )
        connection, _ = listener.accept()
        deadline = time.monotonic() + PATIENCE
        # Once the flood is over, sh has become sleep.
        while time.monotonic() < deadline:
            if "sleep" in descendants(program.pid):
                break
            time.sleep(0.1)
        else:
            pytest.fail("the app was held up")
        assert peak(program.pid) <= 16 * MIB
        program.terminate()
        forza.wait(program)
        connection.close()


# What TLS may take more than TCP, in anonymous kB. 1.1 MB are OpenSSL itself; with
# Python's `ssl` whole it would be 3.1.
TLS = 1.8 * MIB


def test_tls(forza: Forza, certificates: Certificates, tmp_path: Path) -> None:
    """Encryption is affordable: connected and idle, and after a burst."""
    path = tmp_path / "events"
    found: dict[str, list[int]] = {}
    for way in "tcp", "tls":
        tls = ("--tls-cert", str(certificates.good)) if way == "tls" else ()
        listener = Listener(forza, "--to", f"file:{path}", *tls)
        to = f"{way}:127.0.0.1:{listener.port}"
        to += f"?ca={certificates.ca}" if tls else ""
        # Once before, so that nothing is compiled in the monitor that is measured.
        forza.run("--to", to, "--", "true")
        flood = f"{sys.executable} -S {CHILDREN / 'flood.py'} 300000"
        program = forza.start(
            *("--to", to, "--ready", "none", "--"),
            *("sh", "-c", f"read line; {flood}; exec cat"),
            stdin=subprocess.PIPE,
        )
        assert program.stdin is not None
        found[way] = [settled_with(path, program.pid)]
        program.stdin.write(b"go\n")
        program.stdin.flush()
        soon(lambda: b"line 299999 of the flood" in last_part(path))
        found[way].append(settled_with(path, program.pid))
        program.terminate()
        forza.wait(program)
        listener.stop()
        path.unlink()
    for plain, encrypted in zip(found["tcp"], found["tls"], strict=True):
        assert encrypted - plain <= TLS, found


def last_part(path: Path) -> bytes:
    """Return the end of a file that may be large."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 100_000))
        return file.read()


def settled_with(path: Path, pid: int) -> int:
    """Wait for the ticks after which the monitor has settled; return its anonymous
    memory."""
    ticks: set[bytes] = set()

    def ticked() -> bool:
        lines = last_part(path).splitlines() if path.exists() else []
        ticks.update(line for line in lines if b"health/process/uptime" in line)
        return len(ticks) >= 3

    soon(ticked)
    time.sleep(0.1)  # settling comes last in a tick
    return memory(pid)["Anonymous"]
