# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The app's figures are of all that it has started, and of nobody else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import psutil
import pytest

from forza import _native

if TYPE_CHECKING:
    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

MIB = 1024 * 1024
# The app has a grandchild that is nobody's child any more, in a session of its own:
# that one holds 96 MiB, and burns what it can get. The app itself rests.
ORPHAN = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    kept = b"x" * (96 << 20)
    print("held", flush=True)
    while True:
        pass
os.wait()
while True:
    time.sleep(1000)
"""
# Four workers, all of whose big mapping is their parent's.
WORKERS = """
import mmap, os, signal
shared = mmap.mmap(-1, 128 << 20)
shared.write(b"x" * (128 << 20))
for _ in range(4):
    if os.fork() == 0:
        sum(shared[::4096])
        print("mapped", flush=True)
        signal.pause()
print("mapped", flush=True)
signal.pause()
"""
# Holds 96 MiB, and does not end when it is asked to.
DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
kept = b"x" * (96 << 20)
while True:
    signal.pause()
"""
guards = pytest.mark.parametrize(
    "native",
    [
        pytest.param(
            "",
            marks=pytest.mark.skipif(
                _native.path("guard") is None, reason="it needs a C compiler"
            ),
            id="guard",
        ),
        pytest.param("no", id="no guard"),
    ],
)


@guards
def test_orphans_count(lean_forza: Forza, server: MetricsServer, native: str) -> None:
    """What an orphan uses is the app's memory and the app's time."""
    lean_forza.start(
        *("--mem-interval", 0.2, "--cpu-interval", 0.2, "-h", server.address),
        *("--", sys.executable, "-S", "-c", ORPHAN),
        env={"FORZA_NATIVE": native},
    )
    server.wait_for("logs/stdout", containing="held")

    def counted() -> bool:
        memory = server.of("health/process/memory")
        cpu = server.of("health/process/cpu")
        held = any(event["metric"] > 96 * MIB for event in memory)
        return held and sum(event["metric"] for event in cpu) > 0.2

    server.wait_until(counted, "figures with the orphan's")
    last = server.of("health/process/memory")[-1]
    assert last["metric"] < 150 * MIB


@guards
def test_nobody_else_counts(
    lean_forza: Forza, server: MetricsServer, native: str
) -> None:
    """Of a single process the figure is its own to the page: no guard, no monitor."""
    lean_forza.start(
        *("--mem-interval", 0.2, "-h", server.address, "--", "sleep", "1000"),
        env={"FORZA_NATIVE": native},
    )
    seen = server.wait_for("health/process/memory", 3)[-1]
    process = psutil.Process(seen["meta"]["pid"])
    assert seen["meta"]["kind"] == "rss"
    assert seen["metric"] == process.memory_info().rss


@guards
def test_shared_pages_count_once(
    lean_forza: Forza, server: MetricsServer, native: str
) -> None:
    """Four workers and their parent share 128 MiB: that is counted once, ±5 %."""
    lean_forza.start(
        *("--mem-interval", 0.2, "-h", server.address),
        *("--", sys.executable, "-S", "-c", WORKERS),
        env={"FORZA_NATIVE": native},
    )
    server.wait_for("logs/stdout", 5)
    told = len(server.of("health/process/memory"))
    # What was being read when the last worker came is not yet of all.
    server.wait_for("health/process/memory", told + 3)
    seen = server.of("health/process/memory")[-1]
    root = psutil.Process(seen["meta"]["pid"])
    tree = [root, *root.children(recursive=True)]
    assert len(tree) == 5
    assert seen["meta"]["kind"] == "pss"
    own = sum(process.memory_full_info().uss for process in tree)
    assert seen["metric"] == pytest.approx(128 * MIB + own, rel=0.05)
    assert sum(process.memory_info().rss for process in tree) > 600 * MIB


@guards
def test_soft_limit_of_an_orphan(lean_forza: Forza, native: str) -> None:
    """What an orphan holds counts for the limit, too."""
    ended = lean_forza.run(
        *("--memory-soft", "64M", "--", sys.executable, "-S", "-c", ORPHAN),
        env={"FORZA_NATIVE": native},
    )
    (event,) = ended.of("health/process/memory-limit")
    assert event["meta"]["action"] == "stop"
    assert event["meta"]["kind"] == "pss"
    assert ended.events[-1]["meta"]["reason"] == "memory"


def test_limit_counts_nobody_else(lean_forza: Forza, server: MetricsServer) -> None:
    """The figure in the event is the app's and the monitor's, and not the guard's."""
    lean_forza.start(
        *("--memory-soft", "64M", "--grace", 1000, "-h", server.address),
        *("--", sys.executable, "-S", "-c", DEAF),
    )
    (event,) = server.wait_for("health/process/memory-limit")
    process = psutil.Process(event["meta"]["pid"])
    app = event["metric"] - event["meta"]["own"]
    # It may have been seen while it grew. Once it has, the guard would be too much.
    assert event["metric"] > 64 << 20
    assert app <= process.memory_full_info().pss + 64 * 1024
    process.kill()
    server.wait_for("health/process/exit")
