# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Every way in which an app escapes, against every way in which it is ended: nobody of
its tree is left, and nobody else is hit."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forza import _native
from forza._proc import pids as tree_of
from tests.conftest import CHILDREN, PATIENCE, MetricsServer
from tests.contract.conftest import become_user
from tests.contract.test_aeternum import Aeternum, is_guard, lean_aeternum
from tests.contract.test_tree import (
    KINDS,
    parent,
    stamp,
    stranger,
    wait_until_gone,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.conftest import Forza
    from tests.contract.test_tree import Stamp

__all__ = ("lean_aeternum", "stranger")  # fixtures

SHAPES = ("ignores", "double_forks", "sessions", "bomb", "stopped")
SIGNALS = ("TERM", "INT", "HUP", "KILL")
GONE, AGAIN, UNCHANGED = "gone", "again", "unchanged"
# To whom, and what follows. `kept` is a monitor that has a keeper.
OUTCOMES: dict[tuple[str, str], str] = {
    **{("monitor", name): GONE for name in SIGNALS},
    **{("kept", name): AGAIN for name in SIGNALS},
    **{("keeper", name): GONE for name in SIGNALS},
    **{("both", name): GONE for name in SIGNALS},
    ("keeper", "HUP"): UNCHANGED,
    ("both", "HUP"): AGAIN,
}
# Listens on a port, which a grandchild goes on to hold, in a session of its own.
HOLDS_A_PORT = """
import os, signal, socket, sys
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen()
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pause()
"""
# What only the guard can do: act when nobody else is there any more.
NEEDS_GUARD = (("monitor", "KILL"), ("both", "KILL"))


CASES = [
    pytest.param(
        *(whom, name, native),
        id=f"{whom}-{name}-{'no guard' if native else 'guard'}",
    )
    for whom, name in OUTCOMES
    for native in ("", "no")
    if not (native and (whom, name) in NEEDS_GUARD)
]


@pytest.fixture(params=["root", "user"])
def who(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Forza is run as what the tests are run as, and as an ordinary user."""
    if request.param == "root":
        return {}
    if os.geteuid() != 0:
        pytest.skip("the tests are run by an ordinary user")
    tmp_path.chmod(0o777)
    return {"preexec_fn": become_user}


class Run:
    """One app of a shape, and whoever is above it."""

    def __init__(
        self, forza: Forza, aeternum: Aeternum, folder: Path, shape: str, whom: str
    ) -> None:
        self.shape = shape
        self.whom = whom
        self.server = MetricsServer()
        flag = folder / shape
        tree = f'exec "{sys.executable}" -S "{CHILDREN}/tree.py" {shape}'
        # Started again, it is of no shape.
        script = f"test -e {flag} && exec sleep 1000; : > {flag}; {tree}"
        self.words = "-h", self.server.address, "--grace", 0.2, "--", "sh", "-c", script
        self._forza = forza
        self._aeternum = aeternum
        self.monitor = 0
        self.tree: set[Stamp] = set()

    def start(self, native: str, who: dict[str, Any]) -> None:
        """Start all that is wanted above the app."""
        options = {"env": {"FORZA_NATIVE": native}, "stderr": None, **who}
        if self.whom == "monitor":
            self.program = self._forza.start(*self.words, **options)
        else:
            kept = "--min-delay", 0, "--", "forza", *self.words
            self.program = self._aeternum.keep(*kept, **options)

    def wait_grown(self, native: str) -> None:
        """Wait until the tree is as large as it gets."""
        self.server.wait_for("logs/stdout", containing="ready")
        # Only then is the monitor through with its start.
        self.server.wait_for("health/process/heartbeat")
        app: int = self.server.of("health/process/spawn")[0]["meta"]["pid"]
        top = app if native else parent(app)
        self.monitor = parent(top)
        deadline = time.monotonic() + PATIENCE
        wanted = KINDS[self.shape] + (0 if native else 1)
        while len(pids := tree_of(self.monitor)) - 1 < wanted:
            assert time.monotonic() < deadline, f"{self.shape}: only {len(pids)}"
            time.sleep(0.01)
        marks = map(stamp, set(pids) - {self.monitor})
        self.tree = {mark for mark in marks if mark[1]}

    def signal(self, signum: int) -> None:
        """Tell whom it is for."""
        if self.whom in ("keeper", "both"):
            self.program.send_signal(signum)
        if self.whom != "keeper":
            os.kill(self.monitor, signum)

    def check(self, name: str) -> None:
        """Wait for what follows, and see that it is just that."""
        outcome = OUTCOMES[self.whom, name]
        if outcome == GONE:
            above = stamp(self.monitor)
            status = self.program.wait(PATIENCE)
            if name == "KILL":
                assert status == -signal.SIGKILL
            else:  # whoever ends in order ends last
                assert not self.left(), self.shape
                self.server.wait_for("health/process/exit")
                assert status >= 128 if self.whom == "monitor" else status == 0
            wait_until_gone(self.tree | ({above} if above[1] else set()))
            return
        if outcome == UNCHANGED:
            # Whoever heeded it would have by the time that this is over.
            self.program.send_signal(signal.SIGUSR1)
        self.server.wait_for("health/process/spawn", 2)
        # It was gone before the next was started.
        assert not self.left(), self.shape
        assert len({event["meta"]["boot"] for event in self.server.events}) == 2
        if outcome == UNCHANGED:
            (first,) = self.server.of("health/process/exit")
            assert first["meta"]["reason"] != "signal:HUP"
        self.program.terminate()
        assert self.program.wait(PATIENCE) == 0

    def left(self) -> set[Stamp]:
        """Return those of the tree that live."""
        return {each for each in self.tree if stamp(each[0]) == each}


@pytest.mark.parametrize(("whom", "name", "native"), CASES)
def test_matrix(
    lean_forza: Forza,
    lean_aeternum: Aeternum,
    stranger: Callable[[], bytes],
    who: dict[str, Any],
    tmp_path: Path,
    whom: str,
    name: str,
    native: str,
) -> None:
    """Whoever gets which signal: the tree is gone, and as the case may be, anew."""
    if not native and _native.path("guard") is None:
        pytest.skip("there is no guard: it needs a C compiler")
    runs = [Run(lean_forza, lean_aeternum, tmp_path, shape, whom) for shape in SHAPES]
    try:
        for run in runs:
            run.start(native, who)
        for run in runs:
            run.wait_grown(native)
        for run in runs:
            run.signal(signal.Signals[f"SIG{name}"])
        for run in runs:
            run.check(name)
        assert stranger() == b"got 12\n"
        assert dict(lean_forza.descendants()) == {}
        assert dict(lean_aeternum.descendants()) == {}
    finally:
        for run in runs:
            run.server.close()


@pytest.mark.parametrize("name", SIGNALS)
def test_the_port_is_free_again(
    lean_aeternum: Aeternum, server: MetricsServer, name: str
) -> None:
    """Though an orphan in another session holds the socket: what is started again
    listens where it did before."""
    with MetricsServer() as other:
        port = other.port
    program = lean_aeternum.keep(
        *("--min-delay", 0, "--", "forza", "--grace", 0.2, "-h", server.address),
        *("--", sys.executable, "-S", "-c", HOLDS_A_PORT, port),
        stderr=None,
    )
    (first,) = server.wait_for("health/process/start")
    assert (first["metric"], first["meta"]["port"]) == (1, port)
    app: int = first["meta"]["pid"]
    above = parent(app)
    monitor = parent(above) if is_guard(above) else above
    os.kill(monitor, signal.Signals[f"SIG{name}"])
    second = server.wait_for("health/process/start", 2)[1]
    assert (second["metric"], second["meta"]["port"]) == (1, port)
    program.terminate()
    assert program.wait(PATIENCE) == 0
