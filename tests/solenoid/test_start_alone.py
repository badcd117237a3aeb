# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What an app, or a solenoid that is killed, can do to others; and what stays."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from solenoid import _landlock
from tests.conftest import CHILDREN, PATIENCE
from tests.solenoid.drone import BROKEN, SERVER, Drone, ask, event_of, lives, snapshot

CANARY = "canary-5f2c1e"
# Starts what outlives it in a session of its own, and takes no notice of SIGTERM.
STUBBORN = (
    "process.on('SIGTERM', () => {});\n"
    "const child = require('child_process').spawn('sleep', ['1000'],"
    " { detached: true, stdio: 'ignore' });\nchild.unref();\n"
    "process.env.CHILD = child.pid;\n"
)
DENIED = {"EACCES", "EPERM", "EXDEV"}


def processes(word: str) -> dict[int, str]:
    """Return the processes that have a word among theirs, with what they are called."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if word in words and int(path.name) != os.getpid() and lives(int(path.name)):
            found[int(path.name)] = words
    return found


def wait_free(drone: Drone) -> None:
    """Wait until no solenoid is at work in a run directory."""
    with (drone.run_dir / "lock").open() as lock:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                assert time.monotonic() < deadline, "the lock is never free"
                time.sleep(0.02)


def test_secrets(drone: Drone, place: Path) -> None:
    """What comes by standard input is in one file, and in the app's environment."""
    given = f"TOKEN={CANARY}\n"
    archive = snapshot(place / "a.tgz")
    words = ("-t", "100", "-m", "0", "--env-file", "-")
    ended = drone.run("start", "--from", str(archive), *words, given=given)
    assert ended.returncode == 0, ended.stderr
    app = ask(event_of(ended))
    assert app["env"]["TOKEN"] == CANARY
    kept = (drone.release / json_of(drone)["launch"]["environ"]).resolve()

    def check() -> None:
        holders = {kept}
        for path in drone.run_dir.rglob("*"):
            if path.is_file() and CANARY in path.read_text(errors="replace"):
                assert path.resolve() in holders, path
        assert kept.stat().st_mode & 0o777 == 0o600
        assert kept.stat().st_uid == drone.user.uid
        running = processes(str(drone.run_dir)).keys() | {ask(now)["pid"]}
        assert len(running) >= 3
        for pid in running:
            environ = Path(f"/proc/{pid}/environ").read_text(errors="replace")
            assert (CANARY in environ) is (pid == ask(now)["pid"]), pid
            assert CANARY not in Path(f"/proc/{pid}/cmdline").read_text()

    now = event_of(ended)
    check()
    said = [ended, drone.run("status"), drone.run("status", "--json")]
    restarted = drone.run("restart")
    now = event_of(restarted)
    assert ask(now)["env"]["TOKEN"] == CANARY
    check()
    # By the keeper, too, after the app was killed.
    before = (drone.run_dir / "start.log").read_text()
    os.kill(ask(now)["pid"], signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while (line := (drone.run_dir / "start.log").read_text()) in (before, ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    now = json.loads(line)
    assert ask(now)["env"]["TOKEN"] == CANARY
    broken = snapshot(place / "b.tgz", "1.1.0", BROKEN)
    words = ("start", "--from", str(broken), "--env-file", "-", "--json")
    said += [restarted, drone.run(*words, given=given), drone.run("stop")]
    assert said[-2].returncode == 22
    for one in said:
        assert CANARY not in one.stdout + one.stderr


def json_of(drone: Drone) -> dict[str, Any]:
    """Return the record of the current release."""
    name = f"{drone.release.name}.json"
    found: dict[str, Any] = json.loads((drone.release.parent / name).read_text())
    return found


def test_two_apps(one: Drone, other: Drone, place: Path) -> None:
    """To stop one, whatever it has started, leaves the other: they have one user."""
    theirs = ask(other.start(snapshot(place / "b.tgz")))
    stubborn = snapshot(place / "a.tgz", server=STUBBORN + SERVER)
    mine = ask(one.start(stubborn, "--grace", "0.5"))
    child = int(mine["env"]["CHILD"])
    assert lives(child)
    ended = one.run("stop")
    assert ended.returncode == 0, ended.stderr
    assert not lives(mine["pid"])
    assert not lives(child)
    assert processes(str(one.run_dir) + "/") == {}
    assert other.status()["running"] is True
    assert lives(theirs["pid"])


def test_a_monitor_that_hangs(one: Drone, place: Path) -> None:
    """What does not end in time is killed, all of it."""
    mine = ask(one.start(snapshot(place / "a.tgz"), "--grace", "0.1"))
    os.kill(one.status()["pid"], signal.SIGSTOP)
    ended = one.run("stop")
    assert ended.returncode == 0, ended.stderr
    assert "SIGKILL" in ended.stderr
    assert not lives(mine["pid"])
    assert processes(str(one.run_dir) + "/") == {}


def test_a_stranger_in_the_state_file(one: Drone, other: Drone, place: Path) -> None:
    """A pid that is not the keeper's is nobody's to signal, whatever the file says."""
    one.start(snapshot(place / "a.tgz"))
    other.start(snapshot(place / "b.tgz"))
    assert other.run("stop").returncode == 0
    state = other.release / "aeternum.state"
    forged = json.loads(state.read_text())
    forged |= {"keeper": one.pid, "state": "running"}
    state.write_text(json.dumps(forged))
    with state.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        ended = other.run("stop")
        assert "nothing was running" in ended.stderr
    assert one.status()["running"] is True


def test_nothing_stays(one: Drone, place: Path) -> None:
    """After solenoid has ended there is keeper, monitor, guard and app, no more."""
    event = one.start(snapshot(place / "a.tgz"))
    wait_free(one)
    # Whoever was started by this test is in its folder, or below.
    there = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            cwd = os.readlink(path / "cwd")
            if cwd.startswith(str(place)) and lives(int(path.name)):
                there[int(path.name)] = (path / "cmdline").read_bytes().decode()
    app = ask(event)["pid"]
    assert there.pop(app).startswith("node\0")
    assert len(there) <= 3
    for words in there.values():
        assert words.startswith(("aeternum\0run", "forza-guard")) or "forza/" in words


def test_one_at_a_time(one: Drone, place: Path) -> None:
    """Whoever comes second is told, and disturbs nothing."""
    one.start(snapshot(place / "a.tgz"))
    with (one.run_dir / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["stop"], ["restart"], ["start"]):
            ended = one.run(*words)
            assert ended.returncode == 23
            assert "another solenoid is at work" in ended.stderr
    assert one.status()["running"] is True


@pytest.mark.skipif(
    _landlock.version() < _landlock.SCOPES_SINCE,
    reason="this kernel's Landlock has no scopes",
)
@pytest.mark.parametrize("level", ["default", "strict"])
def test_hostile(drone: Drone, place: Path, level: str) -> None:
    """An app that tries it all gets its own, and nothing of its neighbour's."""
    other = Drone(place, "other", root=drone.root)
    try:
        check_hostile(drone, other, place, level)
    finally:
        other.close()


def check_hostile(one: Drone, other: Drone, place: Path, level: str) -> None:
    """Let the app of `one` try."""
    theirs = ask(other.start(snapshot(place / "b.tgz")))
    (other.release / "package" / "secret").write_text("canary")
    outside = place / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    setuid = place / "id"
    shutil.copy(shutil.which("id") or "", setuid)
    setuid.chmod(0o4755)
    told = {
        "other": str(other.release / "package"),
        "outside": str(outside),
        "victim": theirs["pid"],
        "setuid": "",
        "monitor": other.status()["pid"],
    }
    archive = snapshot(
        place / "a.tgz",
        server=(CHILDREN / "hostile.js").read_text(),
        start='node server.js "$TOLD"',
    )
    ended = one.run(
        *("start", "--from", str(archive), "-t", "100", "--restrict", level),
        *("-e", json.dumps({"TOLD": json.dumps(told)})),
    )
    if level == "strict" and ended.returncode == 20:
        # What keeper and monitor would need to read, strict does not lend them.
        assert "may not read" in ended.stderr
        return
    assert ended.returncode == 0, ended.stderr
    found = ask(event_of(ended))["found"]
    assert found.pop("descriptors") == "EMFILE"
    assert 100 < found.pop("taken") <= 16384
    own = {name: found.pop(name) for name in list(found) if name.startswith("own")}
    assert own.pop("own mode") == "600"
    assert own.pop("own child") == "ok\n"
    assert set(own.values()) == {"done"}, own
    assert found.pop("cpus") is True
    assert found.pop("core files") == "0"
    assert found.pop("capabilities") == "0,0"
    found.pop("setuid program")
    found.pop("abstract socket")
    assert "canary" not in found.pop("read by child")
    assert found.keys() >= {"read other", "kill other", "kill monitor", "chown"}
    assert {name: how for name, how in found.items() if how not in DENIED} == {}
    assert lives(theirs["pid"])
    assert one.status()["running"] is True
    assert other.status()["running"] is True


def end_with(signum: signal.Signals, child: subprocess.Popen[str]) -> None:
    """Kill solenoid, and with SIGKILL also the switch that it has started."""
    below = Path(f"/proc/{child.pid}/task/{child.pid}/children")
    pids = []
    if signum == signal.SIGKILL:
        try:
            pids = [int(word) for word in below.read_text().split()]
        except OSError:
            pids = []
    child.send_signal(signum)
    for pid in pids:
        if "_switch" in processes("solenoid._switch").get(pid, ""):
            os.kill(pid, signal.SIGKILL)
    child.communicate()


def wait_running(drone: Drone) -> dict[str, Any]:
    """Wait until an app has started: it may be just on its way."""
    deadline = time.monotonic() + PATIENCE
    while not ((now := drone.status())["running"] and now["start"]):
        assert time.monotonic() < deadline, now
        time.sleep(0.05)
    assert now["start"]["metric"] == 1, now
    return now


@pytest.mark.parametrize("alone", [True, False], ids=["solenoid", "and its switch"])
@pytest.mark.parametrize("order", ["start-first", "stop-first"])
def test_killed(one: Drone, place: Path, order: str, alone: bool) -> None:
    """Whenever it is killed: the old release or the new, and the next start works."""
    one.start(snapshot(place / "a.tgz"))
    begun = time.monotonic()
    one.start(snapshot(place / "b.tgz", "1.0.1"), "--order", order)
    took = time.monotonic() - begun
    steps = 6
    for step in range(steps):
        version = f"1.1.{step}"
        archive = snapshot(place / "c.tgz", version)
        words = ("--from", str(archive), "-t", "100", "--order", order)
        before = one.status()["version"]
        with one.popen("start", *words) as child:
            time.sleep(took * step / steps)
            if alone:
                child.kill()
                child.communicate()
            else:
                end_with(signal.SIGKILL, child)
        wait_free(one)
        now = one.status()
        assert now["version"] in (before, version)
        # There is no moment without the one or the other.
        running = wait_running(one)
        assert running["version"] in (before, version)
        assert ask(running["start"])["version"] == running["version"]
    # Whatever was left, there is one app now, and it is whole.
    event = one.start(snapshot(place / "d.tgz", "2.0.0"), "--order", order)
    assert ask(event)["version"] == "2.0.0"
    keepers = [w for w in processes(f"{one.run_dir}/").values() if "aeternum run" in w]
    assert len(keepers) == 1, keepers
    assert one.pid == one.status()["keeper"]


def test_told_to_end(one: Drone, place: Path) -> None:
    """SIGTERM in the middle of a switch: the old release runs, and 143."""
    one.start(snapshot(place / "a.tgz"))
    idle = "console.log('thinking'); setInterval(() => {}, 1000);\n"
    archive = snapshot(place / "b.tgz", "1.1.0", idle)
    words = ("--from", str(archive), "--order", "stop-first")
    with one.popen("start", *words) as child:
        assert child.stderr is not None
        while "starting release 1.1.0" not in (line := child.stderr.readline()):
            assert line, "it has ended"
        child.terminate()
        child.communicate()
    assert child.returncode == 143
    now = one.status()
    assert now["running"] is True
    assert ask(now["start"])["version"] == "1.0.0"
    assert processes("1.1.0-").keys() == set()


def test_not_installed(one: Drone, place: Path) -> None:
    """PYTHONPATH alone will do, although keeper, monitor and app do not inherit it."""
    python = os.path.join(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    alone = [python, "-I", "-c", "import solenoid"]
    if (
        sys.base_prefix == sys.prefix
        or not subprocess.run(alone, stderr=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("needs a Python in which solenoid is not installed")
    library = place / "library"
    library.mkdir()
    for name in ("solenoid", "forza", "uvloop", "orjson"):
        found = find_spec(name)
        assert found is not None
        assert found.origin is not None
        shutil.copytree(Path(found.origin).parent, library / name)
    one.environ = {**one.environ, "PYTHONPATH": str(library)}
    words = ["start", "--from", str(snapshot(place / "a.tgz"))]
    words += ["--run-dir", str(one.run_dir), "--start-timeout", str(PATIENCE)]
    if one.root:
        words += ["--system-user", one.user.name]
    ended = subprocess.run(
        [python, "-m", "solenoid", *words],
        cwd=place,
        env=one.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    app = ask(event_of(ended))
    assert "PYTHONPATH" not in app["env"]
    # What keeps it is of the copy, and so is what starts it again.
    restarted = subprocess.run(
        [python, "-m", "solenoid", "restart", "--run-dir", str(one.run_dir)],
        cwd=place,
        env=one.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert restarted.returncode == 0, restarted.stderr
    assert ask(event_of(restarted))["pid"] != app["pid"]
