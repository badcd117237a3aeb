# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""An app that turns against its guard, being of the same user, harms itself alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forza import _native
from tests.conftest import PATIENCE, ROOT
from tests.contract.test_tree import guarded, parent, stamp, wait_until_gone

if TYPE_CHECKING:
    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

# The kernel is not to kill it when the guard dies; it kills the guard.
UNTIED = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
os.kill(os.getppid(), signal.SIGKILL)
while True:
    signal.pause()
"""
# Processes that each leave for a session of their own, have a child, and end. A pause
# leaves the machine some process numbers: the ended ones are there until forza's turn.
HOPS = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    for (int left = atoi(argv[argc - 1]); left; left--)
        if (fork() == 0) {
            close(1);
            close(2);
            close(3);
            for (;;) {
                setsid();
                if (fork())
                    _exit(0);
                usleep(200 * atoi(argv[argc - 1]));
            }
        }
    write(1, "ready\\n", 6);
    for (;;)
        pause();
}
"""


@guarded
def test_a_stopped_guard_tells_of_the_end(lean_forza: Forza) -> None:
    """An app that stops its guard and ends has ended all the same."""
    for _ in range(10):  # also before it could say that the app runs
        ended = lean_forza.run("--", "sh", "-c", "kill -STOP $PPID; exit 5")
        assert ended.status == 5
        assert ended.events[-1]["meta"]["code"] == 5


@guarded
def test_a_guard_that_is_stopped_again_and_again(lean_forza: Forza) -> None:
    """Somebody who is left behind stops the guard, whatever wakes it up: forza ends,
    and nobody is left."""
    again = "while kill -STOP $GUARD; do :; done"
    script = f'GUARD=$PPID; export GUARD; setsid sh -c "{again}" >/dev/null 2>&1 3>&1 &'
    ended = lean_forza.run("--", "sh", "-c", f"{script} sleep 0.2; exit 5")
    assert ended.status in (5, 255)
    (last,) = ended.of("health/process/exit")
    assert last == ended.events[-1]


@guarded
def test_the_reports_are_the_guard_s(lean_forza: Forza) -> None:
    """Nobody else can speak to forza in its place, from the very first instruction."""
    forged = 'printf "exited         0" > /proc/$PPID/fd/4'
    for _ in range(10):
        ended = lean_forza.run("--", "sh", "-c", f"({forged}) 2>/dev/null; exit 5")
        assert ended.status == 5
        assert ended.events[-1]["meta"]["code"] == 5


@guarded
@pytest.mark.parametrize("before", [False, True])
def test_an_app_that_outlives_its_guard(
    lean_forza: Forza, server: MetricsServer, before: bool
) -> None:
    """It is killed, also by a forza that is no subreaper, as it had a child before."""
    words = [sys.executable, "-m", "forza", "-h", server.address, "--"]
    words += [sys.executable, "-S", "-c", UNTIED]
    if before:
        words = ["sh", "-c", 'sleep 1000 & exec "$@"', "sh", *words]
    program = subprocess.Popen(
        words, env={**os.environ, "FORZA_TEST_RUN": lean_forza.mark}, cwd=ROOT
    )
    assert program.wait(PATIENCE) == 128 + signal.SIGKILL
    (last,) = server.wait_for("health/process/exit")
    wait_until_gone({mark for mark in [stamp(last["meta"]["pid"])] if mark[1]})
    for pid, command in lean_forza.descendants():
        if "sleep" in command:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("native", ["", "no"])
@pytest.mark.parametrize("count", [1, 20])
def test_a_tree_that_is_never_the_same(
    lean_forza: Forza,
    server: MetricsServer,
    tmp_path: Path,
    native: str,
    count: int,
) -> None:
    """Processes that are always other processes are caught as well."""
    if shutil.which("cc") is None or (not native and _native.path("guard") is None):
        pytest.skip("it needs a C compiler")
    (tmp_path / "hops.c").write_text(HOPS)
    hops = str(tmp_path / "hops")
    command = ["cc", "-O2", "-w", "-o", hops, f"{hops}.c"]
    subprocess.run(command, check=True)
    program = lean_forza.start(
        *("--grace", 0.2, "-h", server.address, "--", hops, count),
        env={"FORZA_NATIVE": native},
    )
    server.wait_for("logs/stdout", containing="ready")
    server.wait_for("health/process/heartbeat")
    app: int = server.of("health/process/spawn")[0]["meta"]["pid"]
    assert parent(app) > 1
    program.terminate()
    assert program.wait(PATIENCE) == 143
    # And the fixture sees that nobody is left.
