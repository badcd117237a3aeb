# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Restart as the options say, hold the lock, and tell how it goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza import _state
from tests.conftest import PATIENCE, ROOT, MetricsServer
from tests.contract.test_aeternum import (
    STAYS,
    Aeternum,
    aeternum,
    children_of,
    error_line,
    is_alive,
    lean_aeternum,
    line,
    parent_of,
    pids,
    status_of,
    stop,
    told_pids,
    wait_asleep,
    wait_gone,
    wait_until,
    without_connections,
    written_pid,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.conftest import Forza

__all__ = ("aeternum", "lean_aeternum")  # fixtures

NO_PAUSE = ("--min-delay", "0")


def state_of(program: Aeternum, *places: Path, cwd: Path | None = None) -> Any:
    """Return what `aeternum status --json` says of one app."""
    ended = program.run("status", "--json", *places, cwd=cwd)
    assert ended.stderr == ""
    state = orjson.loads(ended.stdout)
    parked = 5 if state["state"] == "parked" else 1
    assert ended.status == (0 if state["running"] else parked)
    return state


# ---- Which ends are final


@pytest.mark.parametrize(
    ("options", "script", "status", "said"),
    [
        (("--restart", "never"), "exit 0", 0, "exited with 0"),
        (("--restart", "never"), "exit 7", 7, "exited with 7"),
        (("--restart=never",), "kill -9 $$", 137, "killed by signal 9"),
        (("--restart", "on-failure"), "exit 0", 0, "exited with 0"),
        (("--stop-codes", "3,64"), "exit 64", 64, "exited with 64"),
        (("--stop-codes", "143"), "kill -TERM $$", 143, "killed by signal 15"),
    ],
)
@pytest.mark.parametrize("kept", [(), ("forza", "--plugin", "logs", "--")])
def test_final_ends(
    aeternum: Aeternum,
    tmp_path: Path,
    options: tuple[str, ...],
    script: str,
    status: int,
    said: str,
    kept: tuple[str, ...],
) -> None:
    """The keeper leaves with the status of an end after which there is no start."""
    if kept:
        said = f"exited with {status}"
    pidfile = tmp_path / "app.pid"
    words = ("--", *kept, "sh", "-c", script)
    ended = aeternum.run("run", *options, "-p", pidfile, *words)
    assert ended.status == status
    assert ended.stderr == f"Child {said}, not restarting.\n"
    assert not pidfile.exists()
    state = state_of(aeternum, pidfile)
    assert (state["state"], state["reason"]) == ("ended", said)
    assert (state["keeper"], state["pid"], state["restarts"]) == (None, None, 0)


def test_on_failure_restarts_a_failure(aeternum: Aeternum, tmp_path: Path) -> None:
    """Only 0 is final; what fails first is tried again."""
    script = f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; exit 1; }}"
    ended = aeternum.run(
        *("run", "--restart", "on-failure", *NO_PAUSE, "--", "sh", "-c", script)
    )
    assert ended.status == 0
    assert ended.stderr == (
        "Child exited with 1, restarting.\nChild exited with 0, not restarting.\n"
    )


def test_on_failure_restarts_what_was_stopped_for_its_memory(
    aeternum: Aeternum, tmp_path: Path
) -> None:
    """An app over its soft limit that ends with 0, in good order, has not done."""
    script = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
        f"told = {str(tmp_path / 'told')!r}\n"
        "if os.path.exists(told): sys.exit(0)\n"
        "open(told, 'w').close()\n"
        "kept = b'x' * (96 << 20)\n"
        "while True: time.sleep(0.05)\n"
    )
    ended = aeternum.run(
        *("run", "--restart", "on-failure", *NO_PAUSE, "--", "forza"),
        *("--memory-soft", "64M", "--", sys.executable, "-S", "-c", script),
    )
    assert ended.status == 0
    assert ended.stderr == (
        "Child exited with 143, restarting.\nChild exited with 0, not restarting.\n"
    )
    first, second = ended.of("health/process/exit")
    assert (first["meta"]["code"], first["meta"]["reason"]) == (0, "memory")
    assert (second["meta"]["code"], second["meta"]["reason"]) == (0, "exit")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1])
def test_what_was_told_to_end_is_not_final(
    lean_aeternum: Aeternum, signum: signal.Signals
) -> None:
    """A stop is a stop, and a restart a restart, also with --restart never."""
    program = lean_aeternum.keep("--restart", "never", "--", *STAYS)
    (first,) = pids(program)
    program.send_signal(signum)
    if signum == signal.SIGUSR1:
        assert pids(program) != [first]
        program.terminate()
    ended = lean_aeternum.wait(program)
    assert (ended.status, ended.stderr) == (0, "")


# ---- Crash loops


@pytest.mark.parametrize("kept", [(), ("forza", "--plugin", "logs", "--")])
def test_a_crash_loop_is_parked(
    aeternum: Aeternum, lean_forza: Forza, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    """After so many ends there are no more starts, until it is resumed."""
    pidfile, mended, told = (tmp_path / name for name in ("app.pid", "mended", "told"))
    script = f"echo >> {told}; test -e {mended} && exec sleep 1000; exit 4"
    program = aeternum.keep(
        *NO_PAUSE,
        *("--park", "3/3600", "-p", pidfile, "--"),
        *(*kept, "sh", "-c", script),
    )
    for _ in range(2):
        assert error_line(program) == "Child exited with 4, restarting."
    why = "exited with 4, the last of 3 ends in 3600 s"
    assert error_line(program) == f"Child {why}: parked until SIGUSR2."
    # Whoever tells the app's stream of it ends by itself.
    wait_until(lambda: children_of(program.pid) == [], "end of all children")
    wait_asleep(program.pid)
    state = state_of(aeternum, pidfile)
    assert (state["state"], state["reason"]) == ("parked", why)
    assert (state["pid"], state["next"], state["restarts"]) == (None, None, 2)
    assert state["last"]["code"] == 4
    assert told.read_text().count("\n") == 3
    # It is parked again if nothing has changed, and runs if something has.
    assert aeternum.run("resume", pidfile).status == 0
    for _ in range(2):
        assert error_line(program) == "Child exited with 4, restarting."
    assert error_line(program) == f"Child {why}: parked until SIGUSR2."
    mended.touch()
    resumed = lean_forza.run("resume", tmp_path)  # which is the same
    assert (resumed.status, resumed.stderr) == (0, "")
    wait_until(lambda: state_of(aeternum, pidfile)["state"] == "running", "start")
    program.terminate()
    assert aeternum.wait(program).status == 0


@pytest.mark.parametrize("there", [True, False])
def test_the_stream_tells_of_it(
    aeternum: Aeternum, server: MetricsServer, tmp_path: Path, there: bool
) -> None:
    """An app's receiver hears that it is parked, and that it is resumed: from the
    spool, if it was not there."""
    pidfile, mended, spool = (
        tmp_path / name for name in ("app.pid", "mended", "spool")
    )
    script = f"test -e {mended} && exec sleep 1000; exit 4"
    if not there:
        server.stop_listening()
    program = aeternum.keep(
        *(*NO_PAUSE, "--park", "3/3600", "-p", pidfile, "--"),
        *("forza", "-h", server.address, "--spool", spool, "--flush-timeout", "0.5"),
        *("--app-user", "user", "--app-name", "name", "--", "sh", "-c", script),
    )
    while not (said := error_line(program)).endswith("parked until SIGUSR2."):
        assert said.startswith(("Child exited with 4,", "forza: "))
    if not there:
        wait_until(lambda: children_of(program.pid) == [], "end of all children")
        late = MetricsServer(server.port)
    with contextlib.nullcontext(server) if there else late as told:
        if there:
            told.wait_for("health/process/parked")
        mended.touch()
        assert aeternum.run("resume", pidfile).status == 0
        parked, resumed = told.wait_for("health/process/parked", 2)
        why = "exited with 4, the last of 3 ends in 3600 s"
        assert (parked["metric"], parked["description"]) == (1, why)
        meta = dict(parked["meta"])
        assert meta.pop("boot") != resumed["meta"]["boot"]
        assert meta == {
            "seq": 1,
            "app": {"user": "user", "name": "name"},
            "ends": 3,
            "seconds": 3600,
            "restarts": 2,
            "code": 4,
        }
        assert (resumed["metric"], resumed["meta"]["seq"]) == (0, 1)
        events = told.events
        spawns = told.wait_for("health/process/spawn", 4)
        assert events.index(resumed) < events.index(spawns[-1])
        assert len(told.of("health/process/exit")) == 3
        # It is told once: the next monitor has nothing to say of it.
        assert aeternum.run("restart", pidfile).status == 0
        told.wait_for("health/process/spawn", 5)
        assert len(told.of("health/process/parked")) == 2
        program.terminate()
        aeternum.wait(program)
        told.wait_for("health/process/exit", 5)


def test_nobody_to_tell(lean_aeternum: Aeternum) -> None:
    """A command that is no forza has no stream; a sink that cannot be is said."""
    program = lean_aeternum.keep(*NO_PAUSE, "--park", "1/60", "--", "false")
    assert error_line(program).endswith("parked until SIGUSR2.")
    wait_asleep(program.pid)
    program.terminate()
    assert lean_aeternum.wait(program).stderr == ""


@pytest.mark.parametrize(("stable", "failures"), [("1.5", 1), ("1000", 4)])
def test_health_is_remembered(
    lean_aeternum: Aeternum, tmp_path: Path, stable: str, failures: int
) -> None:
    """After a run of --stable the next pause is the first again; else it grows."""
    pidfile, runs = tmp_path / "app.pid", tmp_path / "runs"
    script = (
        f"echo >> {runs}; case $(wc -l < {runs}) in 4) sleep 2;; 5) exec sleep 1000;;"
        "esac; exit 1"
    )
    program = lean_aeternum.keep(
        *("--min-delay", "0.1", "--stable", stable, "-p", pidfile),
        *("--", "sh", "-c", script),
    )
    for _ in range(4):
        assert error_line(program) == "Child exited with 1, restarting."
    wait_until(
        lambda: (
            state_of(lean_aeternum, pidfile)["state"] == "running"
            and runs.read_text().count("\n") == 5
        ),
        "the fifth run",
    )
    assert state_of(lean_aeternum, pidfile)["failures"] == failures


def test_stopping_what_is_parked(aeternum: Aeternum, tmp_path: Path) -> None:
    """`stop` ends a keeper that keeps nothing at the moment."""
    state = tmp_path / "app.state"
    program = aeternum.keep("--park", "1/60", "--state", state, "--", "false")
    assert error_line(program).endswith("parked until SIGUSR2.")
    assert aeternum.run("stop", state).status == 0
    assert aeternum.wait(program).status == 0
    assert state_of(aeternum, state)["state"] == "stopped"


def test_parking_can_be_turned_off(lean_aeternum: Aeternum) -> None:
    """With --park never it goes on for ever."""
    program = lean_aeternum.keep(*NO_PAUSE, "--park", "never", "--", "false")
    for _ in range(30):
        assert error_line(program) == "Child exited with 1, restarting."


def test_resume_leaves_alone_what_runs(aeternum: Aeternum, tmp_path: Path) -> None:
    """SIGUSR2 is for a pause: a running app does not notice."""
    state = tmp_path / "app.state"
    program = aeternum.keep("--state", state, "--", *STAYS)
    (app,) = pids(program)
    assert aeternum.run("resume", state).status == 0
    wait_until(lambda: int(status_of(program.pid)["ShdPnd"], 16) == 0, "being taken")
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", "")
    assert not is_alive(app)


def test_resume_ends_a_pause(lean_aeternum: Aeternum) -> None:
    """A pause of an hour, too."""
    program = lean_aeternum.keep("--min-delay", 3600, "--", "sh", "-c", "echo on")
    for _ in range(3):
        assert line(program) == "on"
        assert error_line(program) == "Child exited with 0, restarting."
        program.send_signal(signal.SIGUSR2)
    assert line(program) == "on"


def test_restart_by_name(aeternum: Aeternum, tmp_path: Path) -> None:
    """`restart` starts all in a folder anew."""
    for name in "one", "two":
        aeternum.detach("-p", tmp_path / f"{name}.pid", "--", "sleep", "1000")
    first = {name: written_pid(tmp_path / f"{name}.pid") for name in ("one", "two")}
    assert aeternum.run("restart", tmp_path).status == 0
    for name, pid in first.items():
        written_pid(tmp_path / f"{name}.pid", after=pid)
        assert not is_alive(pid)
    assert aeternum.run("stop", tmp_path).status == 0


# ---- Too little of something


def test_waiting_for_processes(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """A fork that fails for want of processes is tried again, and is no crash."""
    python = shutil.which("python3", path="/usr/bin")
    if os.getuid() != 0 or python is None or not _will_do(python):
        pytest.skip("takes root, and a Python that another user can run")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        shutil.copytree(ROOT / "forza", f"{folder}/forza")
        program = lean_aeternum.keep(
            *("--max-delay", "0.1", "--min-delay", "0.1", "--park", "1/3600", "--"),
            *STAYS,
            executable=python,
            env={"PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            preexec_fn=_be_a_user_without_room,
        )
        said = "cannot start sh: resource temporarily unavailable, trying again."
        for _ in range(3):
            assert error_line(program) == said
        subprocess.run(
            ["prlimit", f"--pid={program.pid}", "--nproc=100:100"],
            user=54321,
            check=True,
        )
        (app,) = pids(program)
        assert parent_of(app) == program.pid
        program.terminate()
        assert lean_aeternum.wait(program).status == 0


def _will_do(python: str) -> bool:
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([python, "-c", check], check=False).returncode == 0


def _be_a_user_without_room() -> None:
    os.setgroups([])
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 100))
    os.setresuid(54321, 54321, 54321)


def test_waiting_for_descriptors(aeternum: Aeternum, tmp_path: Path) -> None:
    """A keeper that cannot even start for want of descriptors waits until it can."""
    program = aeternum.keep(*NO_PAUSE, "--park", "1/3600", "--", *STAYS)
    (app,) = pids(program)
    wait_asleep(program.pid)
    before = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    program.send_signal(signal.SIGUSR1)
    said = "The installed version of forza does not start, waiting."
    assert error_line(program) == said
    assert is_alive(app)
    resource.prlimit(program.pid, resource.RLIMIT_NOFILE, before)
    assert pids(program) != [app]
    program.terminate()
    assert aeternum.wait(program).status == 0


# ---- One keeper


def test_a_second_keeper(aeternum: Aeternum, tmp_path: Path) -> None:
    """It says so, leaves with 4, and disturbs nothing."""
    pidfile, told = tmp_path / "app.pid", tmp_path / "told"
    keeper = aeternum.detach("-p", pidfile, "--", *STAYS)
    app = written_pid(pidfile)
    second = ("-p", pidfile, "--", "sh", "-c", f"touch {told}; exec sleep 1000")
    for action in "start", "run":
        ended = aeternum.run(action, *second)
        assert (ended.status, ended.stdout) == (4, b"")
        held = tmp_path / "app.state"
        assert ended.stderr == f"aeternum: another keeper holds {held}\n"
    assert not told.exists()
    assert int(pidfile.read_text()) == app
    # Restarts keep the lock, though the file is another one each time.
    os.kill(keeper, signal.SIGUSR1)
    written_pid(pidfile, after=app)
    assert aeternum.run("run", *second).status == 4
    stop(keeper)
    third = aeternum.keep(*second)
    wait_until(told.exists, "the second app, once the first keeper has gone")
    third.terminate()
    assert aeternum.wait(third).status == 0


def test_many_keepers_at_once(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """Of ten that start together, one stays."""
    told = tmp_path / "told"
    words = ("run", "--state", tmp_path / "app.state", "--")
    script = f"echo $$ >> {told}; exec sleep 1000"
    programs = [lean_aeternum.start(*words, "sh", "-c", script) for _ in range(10)]

    def left() -> list[subprocess.Popen[bytes]]:
        return [program for program in programs if program.poll() is None]

    wait_until(lambda: len(left()) == 1 and told.exists(), "one of ten")
    assert told.read_text().count("\n") == 1
    (winner,) = left()
    assert [p.returncode for p in programs if p is not winner] == [4] * 9
    winner.terminate()


def open_files(pid: int) -> list[str]:
    """Name what a process has open; it may close some of it meanwhile."""
    names = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    assert names
    return names


def test_the_app_does_not_hold_the_lock(
    lean_aeternum: Aeternum, tmp_path: Path
) -> None:
    """What outlives a killed keeper is no keeper: nobody else has the descriptor."""
    state = tmp_path / "app.state"
    program = lean_aeternum.keep("--state", state, "--", *STAYS)
    (app,) = pids(program)
    assert _state.read(str(state))[1]
    assert not any(str(state) in name for name in open_files(app))
    program.kill()
    program.wait()
    with state.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    wait_gone(app)


# ---- SIGKILL, whomever it hits


@pytest.mark.parametrize("hit", ["keeper", "monitor", "both", "app"])
def test_killed(aeternum: Aeternum, tmp_path: Path, hit: str) -> None:
    """All runs again, or nothing is left, of an app that ignores SIGTERM and hides."""
    if hit == "both" and aeternum.runtime == "no sleeper":
        pytest.skip("without a compiler there is no guard: nobody would be left to act")
    pidfile, told = tmp_path / "app.pid", tmp_path / "told"
    # Not by stdout, which a test can see ending only when the last stray has gone.
    script = f"trap '' TERM; setsid sleep 1000 & echo $! $$ >> {told}; wait; wait"
    program = aeternum.keep(
        *(
            *NO_PAUSE,
            "-p",
            pidfile,
            "--",
            "forza",
            "--grace",
            0.5,
            "--plugin",
            "process",
        ),
        *("--", "sh", "-c", script),
        stdout=subprocess.DEVNULL,
    )
    monitor = written_pid(pidfile)

    def tree() -> list[int]:
        return [int(word) for word in told.read_text().split()]

    wait_until(lambda: told.exists() and len(tree()) == 2, "the app")
    first = tree()
    victims = {
        "keeper": [program.pid],
        "monitor": [monitor],
        "both": [program.pid, monitor],
        "app": first[1:],
    }
    for victim in victims[hit]:
        os.kill(victim, signal.SIGKILL)
    wait_gone(*first, *([monitor] if hit != "app" else []))
    if hit in ("monitor", "app"):
        assert written_pid(pidfile, after=monitor) != monitor
        wait_until(lambda: len(tree()) == 4, "the app, again")
        assert all(is_alive(pid) for pid in tree()[2:])
        program.terminate()
        assert aeternum.wait(program).status == 0
    else:
        assert program.wait(PATIENCE) == -signal.SIGKILL
    wait_gone(*tree())


# ---- status


def test_status_of_what_runs(
    server: MetricsServer, aeternum: Aeternum, tmp_path: Path
) -> None:
    """Its pids, and how often it was restarted."""
    pidfile = tmp_path / "web.pid"
    words = ("-p", pidfile, "--", "forza", "-h", server.address, "--", *STAYS)
    keeper = aeternum.detach(*words)
    monitor = written_pid(pidfile)
    told_pids(server, 0, 1)
    for place in pidfile, tmp_path / "web.state", tmp_path:
        state = state_of(aeternum, place)
        assert (state["name"], state["state"]) == ("web", "running")
        assert (state["keeper"], state["pid"]) == (keeper, monitor)
        assert (state["restarts"], state["last"], state["next"]) == (0, None, None)
    os.kill(monitor, signal.SIGKILL)
    monitor = written_pid(pidfile, after=monitor)
    wait_until(lambda: state_of(aeternum, pidfile)["pid"] == monitor, "new pid")
    state = state_of(aeternum, tmp_path)
    assert (state["restarts"], state["last"]["signal"]) == (1, 9)
    ended = aeternum.run("status", cwd=tmp_path)
    assert ended.status == 0
    assert f"pid {monitor}, keeper {keeper}, 1 restart".encode() in ended.stdout
    stop(keeper)
    state = state_of(aeternum, tmp_path)
    assert (state["state"], state["keeper"], state["pid"]) == ("stopped", None, None)


def test_status_in_a_pause(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """Why it does not run, and when it will."""
    state = tmp_path / "app.state"
    program = lean_aeternum.keep(
        "--min-delay", 3600, "--state", state, "--", "sh", "-c", "exit 9"
    )
    assert error_line(program) == "Child exited with 9, restarting."
    wait_until(lambda: b"pausing" in state.read_bytes(), "pause")
    told = state_of(lean_aeternum, state)
    assert (told["state"], told["reason"]) == ("pausing", "exited with 9")
    assert 3500 < told["next"] - told["last"]["at"] < 3600 * 1.2
    said = lean_aeternum.run("status", state)
    assert said.status == 1
    assert said.stdout.startswith(b"app  pausing, for ")
    assert b"exited with 9, next start in " in said.stdout
    assert b"ago with status 9" in said.stdout


def test_status_when_all_are_dead(aeternum: Aeternum, tmp_path: Path) -> None:
    """A keeper that was killed is known to be gone, whoever has its pid now."""
    state = tmp_path / "app.state"
    program = aeternum.keep("--state", state, "--", *STAYS)
    (app,) = pids(program)
    wait_until(lambda: str(app).encode() in state.read_bytes(), "state")
    program.kill()
    program.wait()
    told = state_of(aeternum, state)
    assert (told["state"], told["pid"]) == ("lost", None)
    assert told["reason"] == f"the keeper is gone, pid {program.pid}"
    # The pid goes to somebody else, which no command may hit.
    state.write_bytes(
        state.read_bytes().replace(b"%d" % program.pid, b"%d" % os.getpid())
    )
    for verb in "stop", "restart", "resume":
        ended = aeternum.run(verb, state)
        assert ended.status == 1
        assert ended.stderr.startswith("aeternum: app has no keeper: ")


def test_status_of_fifty(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """One line each, of those that are gone and those that are not."""
    program = lean_aeternum.keep("--state", tmp_path / "app.state", "--", *STAYS)
    pids(program)
    state = tmp_path / "app.state"
    wait_until(lambda: b"running" in state.read_bytes(), "state")
    text = state.read_bytes()
    for number in range(49):
        (tmp_path / f"dead{number}.state").write_bytes(text)
    ended = lean_aeternum.run("status", "--json", tmp_path)
    states = [orjson.loads(text) for text in ended.stdout.splitlines()]
    assert len(states) == 50
    assert [s["name"] for s in states if s["running"]] == ["app"]
    assert {s["state"] for s in states if not s["running"]} == {"lost"}
    assert ended.status == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "1", '"x"', "{}", '{"state": 1}'),
        '{"state": "running", "since": "x"}',
        '{"state": "running", "since": 1, "last": {"at": "x"}}',
        '{"state": "running", "since": 1, "keeper": true}',
    ],
)
def test_a_forged_state(lean_aeternum: Aeternum, tmp_path: Path, text: str) -> None:
    """What no keeper writes is no state file, and no reason to fall over."""
    path = tmp_path / "app.state"
    path.write_text(text)
    ended = lean_aeternum.run("status", path)
    assert (ended.status, ended.stderr) == (1, "")
    assert b"it is no state file" in ended.stdout
    stop = lean_aeternum.run("stop", path)
    assert stop.status == 1
    assert stop.stderr == "aeternum: app has no keeper: it is no state file\n"


def test_a_state_to_be_shown(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """Nobody's terminal is told anything by a state; a fifo holds nobody up."""
    path = tmp_path / "app.state"
    path.write_text('{"state": "ended", "since": 1, "reason": "\\u001b[2J\\nx"}')
    ended = lean_aeternum.run("status", path)
    assert b"?[2J?x" in ended.stdout
    assert ended.stdout.count(b"\n") == 1
    path.unlink()
    os.mkfifo(path)
    assert b"it is no state file" in lean_aeternum.run("status", path).stdout


def test_a_stranger_for_a_keeper(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """A file that names somebody else, held by whoever has forged it, gets nobody
    signalled."""
    path = tmp_path / "app.state"
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = f'"state": "running", "since": 1, "keeper": {stranger.pid}'
            path.write_text(f"{{{state}}}")
            for verb in "stop", "restart", "resume":
                ended = lean_aeternum.run(verb, path)
                assert ended.status == 1
                assert ended.stderr == "aeternum: app has no keeper any more\n"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_links_in_the_way(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """Nothing is written through a link that somebody has put where a file is made."""
    pidfile, victim = tmp_path / "app.pid", tmp_path / "victim"
    victim.write_text("precious")
    script = (
        f"for end in pid state; do ln -sf {victim} {tmp_path}/app.$end.$PPID; done;"
        "exit 1"
    )
    program = lean_aeternum.keep(
        *(*NO_PAUSE, "--park", "3/60", "-p", pidfile, "--", "sh", "-c", script)
    )
    while not (said := error_line(program)).endswith("parked until SIGUSR2."):
        # The link may come between: then the file is not written, and that is said.
        assert said.startswith(("Child exited with 1,", "cannot write "))
    wait_asleep(program.pid)
    assert victim.read_text() == "precious"
    assert state_of(lean_aeternum, pidfile)["state"] == "parked"


def test_status_of_something_else(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """A file that is none of ours is said to be that; a missing one is an error."""
    other = tmp_path / "app.state"
    other.write_text("[")
    told = state_of(lean_aeternum, other)
    assert (told["state"], told["reason"]) == ("unknown", "it is no state file")
    for place in "no-such-file", "no-such.state", ".":
        other.unlink(missing_ok=True)
        ended = lean_aeternum.run("status", place, cwd=tmp_path)
        assert (ended.status, ended.stdout) == (1, b"")
        assert ended.stderr == f"aeternum: there is no state file: {place}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("status", "--yaml"), "unknown option --yaml"),
        (("stop", "--json", "app.pid"), "unknown option --json"),
        (("resume",), "resume needs a pidfile, a state file or a folder"),
        (("run", "--restart", "no", "true"), "--restart must be always, on-failure,"),
        (("run", "--stop-codes", "0;1", "true"), "--stop-codes must be numbers"),
        (("run", "--stop-codes", "256", "true"), "--stop-codes must be numbers"),
        (("run", "--park", "3", "true"), "--park must be COUNT/SECONDS or never"),
        (("run", "--park", "0/3", "true"), "--park must be COUNT/SECONDS or never"),
        (("run", "--park", "3/x", "true"), "--park must be a number of seconds"),
        (("run", "--min-delay", "-1", "true"), "--min-delay must be a number of"),
        (("run", "--stable", "nan", "true"), "--stable must be a number of seconds"),
    ],
)
def test_mistakes(
    lean_aeternum: Aeternum, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    """One line, and status 2."""
    ended = lean_aeternum.run(*words, cwd=tmp_path)
    assert (ended.status, ended.stdout) == (2, b"")
    assert ended.stderr.startswith("aeternum: ")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_nothing_of_the_keeper_reaches_the_app(
    aeternum: Aeternum, tmp_path: Path
) -> None:
    """No variable, no descriptor of the keeper's, also after it has slept."""
    script = "env | grep -a _FORZA_; ls /proc/self/fd | tr '\\n' ' '; exec sleep 1000"
    log, pidfile = tmp_path / "log", tmp_path / "app.pid"
    program = aeternum.keep("-o", log, "-p", pidfile, "--", "sh", "-c", script)
    first = written_pid(pidfile)
    wait_until(lambda: log.exists() and "0 1 2 3 " in log.read_text(), "output")
    program.send_signal(signal.SIGUSR1)
    written_pid(pidfile, after=first)
    wait_until(lambda: log.read_text() == "0 1 2 3 " * 2, "the same output")
    program.terminate()
    assert without_connections(aeternum.wait(program).stderr) == ""
