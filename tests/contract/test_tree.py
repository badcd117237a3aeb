# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""No orphan, no stranger: whoever dies of what, the app's whole tree goes with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forza import _native as native
from tests.conftest import CHILDREN, PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

guarded = pytest.mark.skipif(
    native.path("guard") is None, reason="there is no guard: it needs a C compiler"
)
# How many processes each kind is, at least.
KINDS = {
    "ignores": 2,
    "double_forks": 3,
    "sessions": 4,
    "bomb": 201,
    "stopped": 2,
    "holds": 2,
    "sh": 2,
    "node": 2,
    "c": 2,
}
# Those that test_matrix.py does not have.
OTHERS = ("holds", "sh", "node", "c")
Stamp = tuple[int, str]


@pytest.fixture(scope="module")
def escapes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The child that is a static program."""
    path = tmp_path_factory.mktemp("children") / "escapes"
    command = ["cc", "-static", "-o", str(path), str(CHILDREN / "escapes.c")]
    if shutil.which("cc") is None or subprocess.run(command, check=False).returncode:
        pytest.skip("no static program can be built here")
    return str(path)


@pytest.fixture(params=KINDS)
def app(request: pytest.FixtureRequest) -> tuple[str, tuple[str, ...]]:
    """A kind of app, and its command."""
    kind: str = request.param
    if kind == "c":
        return kind, (request.getfixturevalue("escapes"),)
    if kind == "node":
        return kind, ("node", str(CHILDREN / "detaches.js"))
    if kind == "sh":
        return kind, ("sh", "-c", "setsid sleep 1000 & echo ready; wait")
    return kind, (sys.executable, "-S", str(CHILDREN / "tree.py"), kind)


@pytest.fixture
def stranger() -> Iterator[Callable[[], bytes]]:
    """Somebody who is none of our business, and tells of all signals that come."""
    command = [sys.executable, "-S", str(CHILDREN / "signals.py"), "USR2"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"

    def told() -> bytes:
        program.send_signal(signal.SIGUSR2)
        return program.communicate(timeout=PATIENCE)[0]

    yield told
    program.kill()
    program.wait()


def stamp(pid: int) -> Stamp:
    """Return what tells a process from a later one of the same pid."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return pid, ""
    return pid, "" if fields[0] in "ZX" else fields[19]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])


def wait_until_gone(tree: set[Stamp]) -> None:
    """Wait until none of these processes lives."""
    deadline = time.monotonic() + PATIENCE
    while left := {each for each in tree if stamp(each[0]) == each}:
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def grown(
    forza: Forza, server: MetricsServer, kind: str, but: int = 0
) -> tuple[int, set[Stamp]]:
    """Wait for the app's tree; return its monitor, and the tree with the guard."""
    server.wait_for("logs/stdout", containing="ready")
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    guard = parent(pid)
    monitor = parent(guard)
    deadline = time.monotonic() + PATIENCE
    while True:
        tree = {pid for pid, _ in forza.descendants()} - {monitor, but}
        if len(tree) >= KINDS[kind]:
            return monitor, {stamp(pid) for pid in tree} | {stamp(guard)}
        assert time.monotonic() < deadline, f"only {len(tree)} processes"
        time.sleep(0.01)


@guarded
@pytest.mark.parametrize("app", OTHERS, indirect=True)
@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_monitor(
    lean_forza: Forza,
    server: MetricsServer,
    app: tuple[str, tuple[str, ...]],
    name: str,
    stranger: Callable[[], bytes],
) -> None:
    """Nothing is left when the monitor has been ended, in order or not."""
    kind, command = app
    program = lean_forza.start(
        "--grace", 0.2, "-h", server.address, "--", *command, stderr=None
    )
    _, tree = grown(lean_forza, server, kind)
    program.send_signal(signal.Signals[f"SIG{name}"])
    program.wait(PATIENCE)
    if name != "KILL":  # forza ends last
        assert not {each for each in tree if stamp(each[0]) == each}
        server.wait_for("health/process/exit")
    wait_until_gone(tree)
    assert stranger() == b"got 12\n"


@guarded
@pytest.mark.parametrize("app", OTHERS, indirect=True)
@pytest.mark.parametrize("victims", ["keeper", "both"])
def test_keeper(
    lean_forza: Forza,
    server: MetricsServer,
    app: tuple[str, tuple[str, ...]],
    victims: str,
    stranger: Callable[[], bytes],
) -> None:
    """Nothing is left when the keeper was killed, and its monitor with it or not."""
    kind, command = app
    program = lean_forza.start(
        "--keep", "--grace", 0.2, "-h", server.address, "--", *command, stderr=None
    )
    monitor, tree = grown(lean_forza, server, kind, but=program.pid)
    tree.add(stamp(monitor))
    program.kill()
    if victims == "both":
        os.kill(monitor, signal.SIGKILL)
    program.wait(PATIENCE)
    wait_until_gone(tree)
    assert stranger() == b"got 12\n"


@guarded
def test_guard_killed(
    lean_forza: Forza, server: MetricsServer, app: tuple[str, tuple[str, ...]]
) -> None:
    """If the guard is killed, the kernel kills the app, and forza what is left."""
    kind, command = app
    program = lean_forza.start("-h", server.address, "--", *command, stderr=None)
    server.wait_for("health/process/heartbeat")
    _, tree = grown(lean_forza, server, kind)
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    os.kill(parent(pid), signal.SIGKILL)
    assert program.wait(PATIENCE) == 128 + signal.SIGKILL
    wait_until_gone(tree)
    (last,) = server.wait_for("health/process/exit")
    assert last["meta"]["signal"] == "SIGKILL"


@guarded
def test_stopped_guard(lean_forza: Forza, server: MetricsServer) -> None:
    """A guard that somebody has stopped does its work all the same."""
    program = lean_forza.start("-h", server.address, "--", "sleep", 1000)
    server.wait_for("health/process/heartbeat")
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    tree = {stamp(pid), stamp(parent(pid))}
    os.kill(parent(pid), signal.SIGSTOP)
    program.kill()
    program.wait(PATIENCE)
    wait_until_gone(tree)


@guarded
def test_guard_keeps_secrets(lean_forza: Forza, server: MetricsServer) -> None:
    """The app's words and environment are not shown of a second process."""
    program = lean_forza.start(
        *("-h", server.address, "--", "sleep", "1000"), env={"TOKEN": "canary"}
    )
    server.wait_for("health/process/heartbeat")
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    folder = Path(f"/proc/{parent(pid)}")
    assert folder.joinpath("cmdline").read_bytes().strip(b"\0") == b"forza-guard"
    assert folder.joinpath("comm").read_text() == "forza-guard\n"
    assert folder.joinpath("environ").read_bytes().strip(b"\0") == b""
    assert b"TOKEN=canary" in Path(f"/proc/{pid}/environ").read_bytes()
    # Neither does it hold the app's pipes, nor anything but where it reports to.
    assert os.listdir(folder / "fd") == ["4"]
    program.kill()


@guarded
def test_guard_is_small(lean_forza: Forza, server: MetricsServer) -> None:
    """It is a tenth of a megabyte."""
    program = lean_forza.start("-h", server.address, "--", "sleep", "1000")
    server.wait_for("health/process/heartbeat")
    pid: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    text = Path(f"/proc/{parent(pid)}/smaps_rollup").read_text()
    sizes = {line.split()[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    assert sizes["Anonymous:"] <= 128
    program.kill()


def test_orphans_of_others_are_spared(lean_forza: Forza, server: MetricsServer) -> None:
    """Children that were here before forza, and theirs, are left alone."""
    inside = f"{sys.executable} -m forza -h {server.address} -- sh -c 'exit 3'"
    script = f"sleep 1000 & (sleep 1000 & ) ; exec {inside}"
    environ = {**os.environ, "FORZA_TEST_RUN": lean_forza.mark}
    program = subprocess.run(
        ["sh", "-c", script], env=environ, cwd=ROOT, check=False, timeout=PATIENCE
    )
    assert program.returncode == 3
    left = [pid for pid, words in lean_forza.descendants() if "sleep" in words]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(left) == 2


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_without_guard(lean_forza: Forza, server: MetricsServer, name: str) -> None:
    """Where there was no compiler, an orderly end leaves nothing either."""
    command = (sys.executable, "-S", CHILDREN / "tree.py", "holds")
    program = lean_forza.start(
        *("--grace", 0.2, "-h", server.address, "--", *command),
        env={"FORZA_NATIVE": "no"},
        stderr=None,
    )
    server.wait_for("health/process/heartbeat")
    server.wait_for("logs/stdout", containing="ready")
    program.send_signal(signal.Signals[f"SIG{name}"])
    program.wait(PATIENCE)
    assert dict(lean_forza.descendants()) == {}
