# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What the app may use: memory, descriptors, cores, processors."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from tests.contract.test_figures import guards

if TYPE_CHECKING:
    from tests.contract.conftest import Forza

SERVICE = "health/process/memory-limit"
# Grows by 4 MiB at a time to what it is told, then waits; on SIGTERM leaves with 5.
GROWS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
kept = []
for _ in range(int(sys.argv[1]) // 4):
    kept.append(b"x" * (4 << 20))
    time.sleep(0.01)
print("grown", flush=True)
while True:
    time.sleep(1)
"""


def test_soft_limit(forza: Forza) -> None:
    """Over the soft limit the app is stopped in order, and the events say why."""
    ended = forza.run("--memory-soft", "64M", "--", sys.executable, "-c", GROWS, 100)
    assert ended.status == 5
    (event,) = ended.of(SERVICE)
    assert event["metric"] > event["meta"]["bytes"] == 64 * 1024 * 1024
    assert event["meta"]["limit"] == "soft"
    assert event["meta"]["action"] == "stop"
    assert 1_000_000 < event["meta"]["own"] < 100_000_000
    last = ended.events[-1]
    assert last["service"] == "health/process/exit"
    assert last["meta"]["code"] == 5
    assert last["meta"]["reason"] == "memory"


def test_within_the_limits(lean_forza: Forza) -> None:
    """An app that keeps within its limits hears nothing of them."""
    script = "kept = b'x' * (20 << 20); import time; time.sleep(2.5)"
    ended = lean_forza.run(
        *("--memory-soft", "200M", "--memory-hard", "1G"),
        *("--", sys.executable, "-S", "-c", script),
    )
    assert ended.status == 0
    assert ended.of(SERVICE) == []
    assert ended.events[-1]["meta"]["reason"] == "exit"


def test_hard_limit_of_a_tree(forza: Forza) -> None:
    """Together over the hard limit, though none is alone: the whole tree is killed."""
    script = f'for n in 1 2 3; do "{sys.executable}" -c "$0" 60 & done; wait'
    ended = forza.run("--memory-hard", "128M", "--", "sh", "-c", script, GROWS)
    assert ended.status == 137
    last = ended.events[-1]
    assert last["meta"]["signal"] == "SIGKILL"
    (event,) = ended.of(SERVICE)
    assert event["meta"]["limit"] == "hard"
    assert event["meta"]["action"] in ("kill", "oom")
    assert last["meta"]["reason"] in ("memory", "oom")
    if event["meta"]["action"] == "kill":
        assert event["meta"]["kind"] == "pss"


def test_hard_limit_of_one_process(lean_forza: Forza) -> None:
    """What one process allocates beyond the hard limit, it does not get."""
    script = (
        "import time; time.sleep(1.5)\n"
        "try: b'x' * (512 << 20)\n"
        "except MemoryError: print('refused')\n"
    )
    ended = lean_forza.run(
        "--memory-hard", "64M", "--", sys.executable, "-S", "-c", script
    )
    if not ended.of(SERVICE):  # no cgroup, where the kernel kills
        assert ended.text("logs/stdout") == "refused\n"
        assert ended.status == 0


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_node_under_a_hard_limit(lean_forza: Forza) -> None:
    """A node that needs 40 MB runs within a hard limit of 128 MB."""
    script = "setTimeout(() => console.log('ran'), 1500)"
    ended = lean_forza.run("--memory-hard", "128M", "--", "node", "-e", script)
    assert ended.status == 0
    assert ended.text("logs/stdout") == "ran\n"


def test_shared_memory_counts_once(lean_forza: Forza) -> None:
    """Four forked workers that share 60 MB are not taken for 240."""
    script = (
        "import os, time\n"
        "kept = b'x' * (60 << 20)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "time.sleep(3)\n"
    )
    ended = lean_forza.run(
        "--memory-soft", "150M", "--", sys.executable, "-S", "-c", script
    )
    assert ended.status == 0
    assert ended.of(SERVICE) == []


@guards
def test_limits_of_the_child(forza: Forza, native: str) -> None:
    """The app has them from the first; forza has its own back."""
    script = "ulimit -n; ulimit -c; ulimit -Hn; ulimit -Hc; nproc; nice"
    cpu = min(os.sched_getaffinity(0))
    ended = forza.run(
        *("--nofile", "100", "--core", "0", "--nice", "7", "--cpus", cpu),
        *("--", "sh", "-c", script),
        env={"FORZA_NATIVE": native},
    )
    assert ended.text("logs/stdout").split() == ["100", "0", "100", "0", "1", "7"]


@guards
def test_limits_before_the_first_instruction(lean_forza: Forza, native: str) -> None:
    """What the app's very first look at itself shows is the hard limits, all of them,
    of fifty apps."""
    for _ in range(50):
        ended = lean_forza.run(
            *("--nofile", "100", "--core", "0", "--memory-hard", "64M"),
            *("--plugin", "logs", "--", "cat", "/proc/self/limits"),
            env={"FORZA_NATIVE": native},
        )
        lines = ended.text("logs/stdout").splitlines()
        words = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        assert words["Max open files"] == ["100", "100"]
        assert words["Max core file size"] == ["0", "0"]
        # Where a cgroup keeps to it, there need be none.
        assert words["Max data size"] in ([str(64 << 20)] * 2, ["unlimited"] * 2)


def test_node_cannot_raise_them(lean_forza: Forza) -> None:
    """node raises its soft limit of descriptors to the hard one: both are set."""
    if shutil.which("node") is None:
        pytest.skip("needs node")
    script = (
        "process.stdout.write(require('fs').readFileSync('/proc/self/limits', 'utf8'))"
    )
    ended = lean_forza.run("--nofile", "200", "--", "node", "-e", script)
    (line,) = [
        event["description"].split()
        for event in ended.of("logs/stdout")
        if event["description"].startswith("Max open files")
    ]
    assert line[3:5] == ["200", "200"]


def test_unlimited_core(lean_forza: Forza) -> None:
    """`unlimited` is a size of a core, where the hard limit has it."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    ended = lean_forza.run("--core", "unlimited", "--", "sh", "-c", "ulimit -c")
    if hard == resource.RLIM_INFINITY:
        assert ended.text("logs/stdout") == "unlimited\n"
    elif ended.status:
        assert ended.status == 125
        assert "cannot set --core unlimited: the hard limit is" in ended.stderr


@guards
def test_limit_that_cannot_be_had(lean_forza: Forza, native: str) -> None:
    """A limit that cannot be set is told in one line, and nothing runs."""
    ended = lean_forza.run(
        *("--cpus", "0,1023", "--", "echo", "ran"), env={"FORZA_NATIVE": native}
    )
    assert ended.status == 125
    assert "cannot set --cpus 0,1023: there are" in ended.stderr
    assert "ran\n" not in ended.text("logs/stdout")
    assert ended.events[-1]["meta"]["reason"] == "bad limit"
    assert ended.of("health/process/spawn") == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--memory-soft 1M", "--memory-soft must be at least 16M"),
        ("--memory-hard much", "--memory-hard must be a number of bytes"),
        ("--memory-soft 64M --memory-hard 64M", "must be less than --memory-hard"),
        ("--nofile 15", "--nofile must be from 16 to 1048576, not 15"),
        ("--nofile many", "--nofile must be a whole number, not 'many'"),
        ("--core -1", "--core must be unlimited or a number of bytes, as 65536"),
        ("--core x", "--core must be unlimited or a number of bytes, as 65536"),
        ("--nice 20", "--nice must be from -20 to 19"),
        ("--cpus 1-", "--cpus must be a list"),
        ("--cpus 3-1", "--cpus must be a list"),
    ],
)
def test_bad_limits(lean_forza: Forza, words: str, problem: str) -> None:
    """A bad value is named in one line."""
    ended = lean_forza.run(*words.split(), "--", "true")
    assert ended.status == 2
    assert problem in ended.stderr
    assert ended.stderr.count("\n") == 1
