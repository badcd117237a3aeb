# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ctrl-C once, Ctrl-C twice, and SIGKILL, in each phase of a rollout to real drones."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.error import HTTPError

import pytest

from solenoid.drones.remote.lock import holder
from tests.conftest import PATIENCE
from tests.proxy import Proxy
from tests.solenoid.drone import SERVER
from tests.solenoid.drones.test_deploy import (
    BREAKS_ON_WEB2,
    NAMES,
    put_between,
    settled,
    slow,
    started,
    wait_until,
)

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.solenoid.drones.operator import Operator

    # Waits until the phase has begun, and lets it go on.
    Steps = tuple[Callable[[], None], Callable[[], None]]

# Takes its time to install, and says when it has begun.
SLOW_PYTHON = """#!/bin/sh
case "$5" in *sha256*) touch {begun}; sleep 3 ;; esac
exec {python} "$@"
"""
ILL_AT_FIRST = SERVER.replace(
    "response.end(",
    "if (process.uptime() < 4) response.statusCode = 503; response.end(",
)


@contextmanager
def bootstrap(operator: Operator) -> Iterator[Steps]:
    """Solenoid is being installed on web1, which has none yet."""
    begun = operator.folder / "begun"
    python = operator.folder / "python"
    found = shutil.which("python3")
    python.write_text(SLOW_PYTHON.format(begun=begun, python=found))
    python.chmod(0o755)
    text = operator.inventory.read_text()
    old = f'base = "{operator.bases / "web1"}"'
    new = f'base = "{operator.place / "base"}", python = "{python}"'
    assert old in text
    operator.inventory.write_text(text.replace(old, new))
    yield lambda: wait_until(begun.exists, "installation"), nothing
    for path in (operator.place / "base").iterdir():
        assert not path.name.endswith(".part")


@contextmanager
def send(operator: Operator) -> Iterator[Steps]:
    """The snapshot is on its way to web1, and the network has a bad minute."""
    (operator.app / "picture").write_bytes(os.urandom(40_000_000))
    with Proxy(operator.drones["web1"].port) as proxy:
        put_between(operator, "web1", proxy)

        def begun() -> None:
            wait_until(lambda: proxy.seen > 4_000_000, "transfer")
            proxy.stall()

        yield begun, proxy.come_back
    incoming = operator.run_dir("web1") / ".incoming"
    wait_until(lambda: not any(incoming.iterdir()), "end of what was sent")


@contextmanager
def start(operator: Operator) -> Iterator[Steps]:
    """The new release takes its time to start on web1."""
    operator.version("2.0.0", slow(3))
    place = operator.run_dir("web1") / "releases"
    yield lambda: wait_until(lambda: len(started(place)) > 1, "start"), nothing


@contextmanager
def gate(operator: Operator) -> Iterator[Steps]:
    """It has started, and is not well yet."""
    operator.version("2.0.0", ILL_AT_FIRST)
    place = operator.run_dir("web1") / "releases"
    passed = '"version": "2.0.0"', '"passed": 1'
    yield lambda: wait_until(lambda: has(place, *passed), "start"), nothing


@contextmanager
def undo(operator: Operator) -> Iterator[Steps]:
    """It has failed on web2, and web1 goes back to the one before, which is slow."""
    operator.version("2.0.0", BREAKS_ON_WEB2)
    log = operator.run_dir("web1") / "solenoid.log"
    back = "going back to release 1.0.0"
    yield lambda: wait_until(lambda: back in log.read_text(), "way back"), nothing


def nothing() -> None:
    """Let it go on: it does by itself."""


def has(releases: Path, *words: str) -> bool:
    """Say whether the record of a release there has all these."""
    texts = [path.read_text() for path in releases.glob("*.json")]
    return any(all(word in text for word in words) for text in texts)


def well(operator: Operator) -> bool:
    """Say whether no solenoid is at work any more, and no app is ill."""
    with suppress(HTTPError):
        return all(settled(operator, name) for name in NAMES)
    return False


def free(operator: Operator) -> bool:
    """Say whether nobody has the deploy lock anywhere."""
    return all(holder(str(operator.run_dir(name))) is None for name in NAMES)


def interrupt(
    child: subprocess.Popen[str], times: int, go_on: Callable[[], None]
) -> str:
    """Press Ctrl-C, each time when the one before was heard; return stderr."""
    assert child.stderr is not None
    said = ""
    for number in range(times):
        child.send_signal(signal.SIGINT)
        while not number and (line := child.stderr.readline()):
            said += line
            if "interrupted: " in line:
                break
    if times == 1:
        go_on()
    return said + child.stderr.read()


PHASES = (bootstrap, send, start, gate, undo)


CASES = [(phase, how) for phase in PHASES for how in ("once", "twice")]
# In the start: test_killed_deployer.
CASES += [(send, "killed"), (undo, "killed")]


@pytest.mark.parametrize(("phase", "how"), CASES)
def test_interrupted(
    phase: Callable[[Operator], AbstractContextManager[Steps]],
    how: str,
    operator: Operator,
) -> None:
    """Each drone has the one release or the other, whole, and is free for the next."""
    going_back = phase is PHASES[-1]
    operator.version("1.0.0", slow(3) if going_back else SERVER)
    operator.deploy()
    operator.version("2.0.0")
    words = ("deploy", str(operator.app), "--batch", "1", "--probe", "/")
    with phase(operator) as (begun, go_on), operator.popen(*words) as child:
        begun()
        if how == "killed":
            child.kill()
        err = interrupt(child, {"once": 1, "twice": 2}.get(how, 0), go_on)
        status = child.wait(PATIENCE)
        go_on()
        wait_until(lambda: free(operator), "end of the lock")
    operator.ports.clear()
    operator.write()
    if how == "killed":
        # What it has left at work on the drones is waited for.
        operator.version("3.0.0")
        operator.deploy("--wait", "2m")
        assert operator.versions() == dict.fromkeys(NAMES, "3.0.0")
        return
    wait_until(lambda: well(operator), "end on the drones")
    found = operator.versions()
    assert set(found.values()) <= {"1.0.0", "2.0.0"}, err
    assert found["web3"] == "1.0.0"
    if how == "once":
        # Who was in the middle has gone on to its end, and nobody else has begun.
        ends = (31, "1.0.0") if going_back else (30, "2.0.0")
        assert (status, found["web1"]) == ends, err
        assert "waiting for web1 (once more to leave them)" in err
        assert "untouched" in err
    else:
        assert status == 130
        assert "left in the middle: web1 (" in err
