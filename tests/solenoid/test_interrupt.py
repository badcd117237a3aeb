# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""^C in each step of a start: nothing is left half-done, the old release runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PATIENCE
from tests.solenoid.drone import (
    ROOT,
    SERVER,
    Drone,
    ask,
    become_plain,
    large,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.solenoid.servers import WebServer

# Once, and several times, as the impatient do.
TIMES = [1, 3]


def begun(drone: Drone, *words: str, **more: Any) -> subprocess.Popen[str]:
    """Start solenoid as a shell does at a terminal: with a process group of its own."""

    def ready() -> None:
        # Whoever runs the tests in the background has it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if ROOT and not drone.root:
            become_plain()

    return drone.popen(*words, start_new_session=True, preexec_fn=ready, **more)


def interrupt(child: subprocess.Popen[str], times: int) -> str:
    """Press ^C so often, and return what is on stderr when it has ended."""
    for _ in range(times):
        os.killpg(child.pid, signal.SIGINT)
        time.sleep(0.01)
    out, err = child.communicate(timeout=PATIENCE)
    assert (child.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in err
    return err


def wait_until(condition: Callable[[], object], child: subprocess.Popen[str]) -> None:
    """Wait until something holds, as long as the child is there."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def everything(drone: Drone) -> set[str]:
    """Return what is in the run directory, and in its releases."""
    return {*os.listdir(drone.run_dir), *os.listdir(drone.run_dir / "releases")}


@pytest.fixture
def before(drone: Drone, place: Path) -> dict[str, Any]:
    """An app that runs, and shall go on running."""
    return ask(drone.start(snapshot(place / "a.tgz")))


def still(drone: Drone, before: dict[str, Any], *, same: bool = True) -> None:
    """See that it does, and that the next start is no worse for it."""
    status = drone.status()
    assert status["running"] is True
    now = ask(status["start"])
    assert now["version"] == before["version"]
    assert (now["pid"] == before["pid"]) is same
    assert (
        ask(drone.start(snapshot(drone.place / "z.tgz", "9.0.0")))["version"] == "9.0.0"
    )


@pytest.mark.parametrize("times", TIMES)
def test_fetch(
    drone: Drone, place: Path, web: WebServer, before: dict[str, Any], times: int
) -> None:
    """While the snapshot comes."""
    web.objects["/b.tgz"] = large(place / "b.tgz", 1000).read_bytes()
    web.behaviour.stall = stall = threading.Event()
    web.behaviour.stall_after = 65536
    there = everything(drone)
    with begun(drone, "start", "--from", f"{web.url}/b.tgz") as child:
        wait_until(lambda: list(drone.run_dir.glob(".snapshot.tgz.*.part")), child)
        wait_until(lambda: web.behaviour.stall is None, child)
        interrupt(child, times)
    stall.set()
    assert everything(drone) == there
    still(drone, before)


@pytest.mark.parametrize("times", TIMES)
def test_unpack(drone: Drone, place: Path, before: dict[str, Any], times: int) -> None:
    """While it is unpacked."""
    archive = large(place / "b.tgz", 12_000)
    there = everything(drone)
    with begun(drone, "start", "--from", str(archive)) as child:
        wait_until(lambda: list(drone.run_dir.glob("releases/.*.part")), child)
        interrupt(child, times)
    assert everything(drone) == there
    still(drone, before)


@pytest.mark.parametrize("times", TIMES)
def test_install(
    drone: Drone, place: Path, web: WebServer, before: dict[str, Any], times: int
) -> None:
    """While npm installs: it ends, with all that it has started."""
    url = f"{web.url}/dep/-/dep-1.0.0.tgz"
    web.objects["/dep/-/dep-1.0.0.tgz"] = bytes(1 << 20)
    web.behaviour.stall = stall = threading.Event()
    dep = {
        "version": "1.0.0",
        "resolved": url,
        "integrity": "sha512-" + "A" * 86 + "==",
    }
    root = {"name": "shop", "version": "2.0.0", "dependencies": {"dep": "1.0.0"}}
    lock = {"lockfileVersion": 3, "packages": {"": root, "node_modules/dep": dep}}
    about = {**root, "scripts": {"start": "node server.js"}}
    files = {
        "package.json": json.dumps(about),
        "package-lock.json": json.dumps({**root, "requires": True, **lock}),
        ".npmrc": f"registry={web.url}/\nreplace-registry-host=never\n",
    }
    archive = snapshot(place / "b.tgz", "2.0.0", **files)
    there = everything(drone)
    with begun(drone, "start", "--from", str(archive)) as child:
        wait_until(lambda: web.behaviour.stall is None, child)
        interrupt(child, times)
    stall.set()
    assert everything(drone) == there
    assert not [words for words in commands() if str(drone.run_dir) in words]
    still(drone, before)


def commands() -> list[str]:
    """Return the words and folders of all npm that run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().replace(b"\0", b" ").decode(errors="replace")
            if "npm" in words:
                found.append(f"{words} in {os.readlink(f'/proc/{name}/cwd')}")
        except OSError:
            continue
    return found


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_gate(
    drone: Drone, place: Path, before: dict[str, Any], order: str, times: int
) -> None:
    """While the new release is on probation: it goes, the old one stays or is back."""
    silent = SERVER.replace(".listen(", ".on('never', ").replace(
        "const http", "console.log('quiet'); setInterval(() => {}, 1000);\nconst http"
    )
    archive = snapshot(place / "b.tgz", "2.0.0", silent)
    quiet = ["start", "--from", str(archive), "--order", order]
    with begun(drone, *quiet) as child:
        said = drone.run_dir.glob
        wait_until(
            lambda: [p for p in said("releases/2.*/events.ndjson") if _quiet(p)], child
        )
        interrupt(child, times)
    # It is complete, and has been tried: it may be looked at, but runs no more.
    assert not [name for name in everything(drone) if name.endswith(".part")]
    assert drone.status()["why"] == "told to end"
    still(drone, before, same=order == "start-first")


def _quiet(path: Path) -> bool:
    return "quiet" in path.read_text(errors="replace")


@pytest.mark.parametrize("words", [["--env-file", "-"], ["--from", "-"]])
def test_nobody_types(one: Drone, place: Path, words: list[str]) -> None:
    """While it waits for standard input, which goes on for ever."""
    given = [*words, "--from", str(place / "a.tgz")] if "--from" not in words else words
    with begun(one, "start", *given, stdin=subprocess.PIPE) as child:
        wait_until(lambda: _reads(child.pid), child)
        os.killpg(child.pid, signal.SIGINT)
        child.wait(PATIENCE)
        assert child.returncode == 130
        assert child.stderr is not None
        assert child.stderr.read() == "error: interrupted\n"
    assert not one.run_dir.exists()


def _reads(pid: int) -> bool:
    """Say whether a process has come so far as to have a thread that reads."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1
