# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep a command running, and let nothing survive that should not."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza import _native as native
from forza._unit import INITS
from forza._version import __version__
from forza.aeternum import _OPTIONS, KEEPING, TELLING
from tests.conftest import CHILDREN, PATIENCE, ROOT, MetricsServer
from tests.contract.conftest import _MARK, Ended, Forza

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Say who you are, and stay.
STAYS = ("sh", "-c", "echo $$; exec sleep 1000")
# Stay, with two children in sessions of their own, one of them nobody's child.
STRAYS = """
setsid sleep 1000 & echo $!
(setsid sleep 1000 & echo $!)
echo $$
"""
STRAYS_PIDS = 3
CONNECTED = b"forza: connected to "


class Aeternum(Forza):
    """Start aeternum by its command line, and leave nothing of it behind."""

    def __init__(self, runtime: str) -> None:
        super().__init__(runtime)
        self.environ = {"FORZA_NATIVE": "no"} if runtime == "no sleeper" else {}
        self._detached: list[int] = []

    def start(
        self,
        *args: str | Path | float,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start aeternum with these arguments; what it says is piped to the test."""
        environ = {**os.environ, _MARK: self.mark, "PYTHONPATH": str(ROOT)}
        environ.pop("FORZA_RUNTIME", None)
        if self.runtime == "plain":
            environ["FORZA_RUNTIME"] = "plain"
        program = subprocess.Popen(
            [sys.executable, "-m", "forza.aeternum", *map(str, args)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**environ, **self.environ, **(env or {})},
            **options,
        )
        self._programs.append(program)
        return program

    def keep(
        self, *args: str | Path | float, **options: Any
    ) -> subprocess.Popen[bytes]:
        """Keep a command in the foreground."""
        return self.start("run", *args, **options)

    def detach(self, *args: str | Path | float, **options: Any) -> int:
        """Keep a command in the background; return the keeper's pid."""
        ended = self.run("start", *args, **options)
        assert (ended.status, ended.stderr) == (0, "")
        pid = int(ended.stdout)
        assert ended.stdout == b"%d\n" % pid
        self._detached.append(pid)
        return pid

    def close(self) -> None:
        """End what the test started, and fail if it should have ended itself."""
        for pid in self._detached:
            if is_alive(pid):
                stop(pid)
        super().close()


@pytest.fixture(params=["lean", "plain", "no sleeper"])
def aeternum(request: pytest.FixtureRequest) -> Iterator[Aeternum]:
    """The keeper as a program: lean, plain, and where there was no compiler."""
    program = Aeternum(request.param)
    yield program
    program.close()


@pytest.fixture
def lean_aeternum() -> Iterator[Aeternum]:
    """The keeper as it runs by default, for what no runtime can change."""
    program = Aeternum("lean")
    yield program
    program.close()


# ---- What the kernel knows.


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for what no descriptor tells of: files, and other people's processes."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"in vain: {what}")
        time.sleep(0.01)


def status_of(pid: int) -> dict[str, str]:
    """Return what /proc says of a process; empty if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (x.partition(":") for x in lines)}


def is_alive(pid: int) -> bool:
    return status_of(pid).get("State", "Z")[0] not in "ZX"


def wait_gone(*pids: int) -> None:
    for pid in pids:
        wait_until(lambda pid=pid: not is_alive(pid), f"the end of {pid}")  # type: ignore[misc]


def wait_asleep(keeper: int) -> None:
    """Wait until the keeper has nothing to do, and sleeps in sigtimedwait."""
    wait_until(
        lambda: "sigtimedwait" in Path(f"/proc/{keeper}/wchan").read_text(),
        "a keeper that sleeps",
    )


def parent_of(pid: int) -> int:
    """Return a process's parent; an app's is its monitor, above the guard."""
    parent = int(status_of(pid).get("PPid", 0))
    return parent_of(parent) if is_guard(parent) else parent


def is_guard(pid: int) -> bool:
    return bool(pid) and status_of(pid).get("Name") == "forza-guard"


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def descriptors_of(pid: int) -> list[str]:
    """Return what a process has open, by number."""
    folder = Path(f"/proc/{pid}/fd")
    return sorted(f"{fd} {os.readlink(folder / fd)}" for fd in os.listdir(folder))


def stop(pid: int, signum: signal.Signals = signal.SIGTERM) -> None:
    """Signal a process that is not ours, and wait for its end."""
    os.kill(pid, signum)
    wait_gone(pid)


# ---- What the programs say.


def line(program: subprocess.Popen[bytes]) -> str:
    """Return the next line on stdout."""
    assert program.stdout is not None
    return program.stdout.readline().decode().removesuffix("\n")


def error_line(program: subprocess.Popen[bytes]) -> str:
    """Return the next line on stderr that is not of forza's connections."""
    assert program.stderr is not None
    for text in program.stderr:
        if not text.startswith(CONNECTED):
            return text.decode().removesuffix("\n")
    raise AssertionError("the end of stderr")


def without_connections(text: str) -> str:
    """Return what was said on stderr but forza's lines about its connections."""
    lines = text.splitlines(keepends=True)
    return "".join(x for x in lines if not x.startswith(CONNECTED.decode()))


def pids(program: subprocess.Popen[bytes], count: int = 1) -> list[int]:
    """Return the pids that a kept command tells, one a line."""
    return [int(line(program)) for _ in range(count)]


def written_pid(path: Path, *, after: int = 0) -> int:
    """Wait for a pidfile with another pid than that; return the pid."""

    def found() -> int:
        try:
            return int(path.read_text())
        except FileNotFoundError:
            return after

    wait_until(lambda: found() != after, f"pid in {path.name}")
    return found()


def told_pids(server: MetricsServer, skip: int, count: int) -> list[int]:
    """Return the pids that a kept app tells through its monitor."""
    server.wait_until(
        lambda: server.text("logs/stdout").count("\n") >= skip + count, "pids"
    )
    return [int(word) for word in server.text("logs/stdout").split()][skip:]


# ---- start and run


def test_start_detaches(aeternum: Aeternum, tmp_path: Path) -> None:
    """`start` prints the keeper's pid; that has a session and no stdio of ours."""
    pidfile, log = tmp_path / "app.pid", tmp_path / "app.log"
    keeper = aeternum.detach("-p", pidfile, "-o", log, "--", *STAYS, cwd=tmp_path)
    app = written_pid(pidfile)
    assert os.getsid(keeper) == keeper
    assert parent_of(keeper) != os.getpid()
    for fd in range(3):
        assert os.readlink(f"/proc/{keeper}/fd/{fd}") == os.devnull
    assert parent_of(app) == keeper
    assert os.readlink(f"/proc/{app}/fd/0") == os.devnull
    assert os.readlink(f"/proc/{app}/cwd") == str(tmp_path)
    wait_until(lambda: log.exists() and log.read_text() == f"{app}\n", "output")
    stop(keeper)
    assert not is_alive(app)
    assert sorted(os.listdir(tmp_path)) == ["app.log", "app.state"]


def test_a_signal_just_after_start(aeternum: Aeternum, tmp_path: Path) -> None:
    """From the moment its pid is known, the keeper heeds signals."""
    pidfile = tmp_path / "app.pid"
    keeper = aeternum.detach("-p", pidfile, "--", *STAYS)
    for signum in signal.SIGHUP, signal.SIGUSR1:
        os.kill(keeper, signum)
    written_pid(pidfile)
    assert is_alive(keeper)


def test_run_stays(aeternum: Aeternum) -> None:
    """`run` is the keeper itself, and the command has its stdio."""
    program = aeternum.keep("--", "cat", stdin=subprocess.PIPE)
    assert program.stdin is not None
    program.stdin.write(b"hello\n")
    program.stdin.flush()
    assert line(program) == "hello"
    assert len(children_of(program.pid)) == 1
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", "")


def test_run_with_closed_stdio(aeternum: Aeternum, tmp_path: Path) -> None:
    """Nothing of the keeper's lands where 0, 1 and 2 are closed."""
    log = tmp_path / "app.log"

    def close_stdio() -> None:
        os.closerange(0, 3)

    program = aeternum.keep(
        "-o",
        log,
        *("--", "sh", "-c", "readlink /proc/self/fd/0; echo out; echo err >&2"),
        preexec_fn=close_stdio,
    )
    wait_until(lambda: log.exists() and log.read_text().count("\n") >= 3, "output")
    program.terminate()
    assert aeternum.wait(program).status == 0
    assert log.read_text().startswith("/dev/null\nout\nerr\n")


@pytest.mark.parametrize("separate", [False, True])
def test_files(aeternum: Aeternum, tmp_path: Path, separate: bool) -> None:
    """-o and -e append, to one file or two, -i is read; the files are 0660."""
    source, out, err = (tmp_path / name for name in ("in", "out", "err"))
    source.write_text("from the file\n")
    out.write_text("before\n")
    out.chmod(0o600)
    options = ["-i", str(source), f"--stdout={out}"]
    if separate:
        options += ["-e", str(err)]
    program = aeternum.keep(
        *options,
        "--",
        *("sh", "-c", "cat; echo words >&2; exec sleep 1000"),
        umask=0o027,
    )
    last = err if separate else out
    wait_until(lambda: last.exists() and "words\n" in last.read_text(), "words")
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"", "")
    expected = "before\nfrom the file\n"
    assert out.read_text() == expected + ("" if separate else "words\n")
    if separate:
        assert err.read_text() == "words\n"
        assert err.stat().st_mode & 0o777 == 0o640
    assert out.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("json", [False, True])
def test_pidfile(aeternum: Aeternum, tmp_path: Path, json: bool) -> None:
    """It has the command's pid, is replaced as a whole, and goes with the keeper."""
    path = tmp_path / "app.pid"
    options = ("-p", str(path), *(["-j"] if json else []))
    program = aeternum.keep(*options, "--", *STAYS, umask=0o027)

    def text(pid: int) -> str:
        return f'{{"pid": {pid}}}' if json else str(pid)

    (first,) = pids(program)
    wait_until(path.exists, "pidfile")
    assert path.stat().st_mode & 0o777 == 0o640
    with path.open() as file:
        program.send_signal(signal.SIGUSR1)
        (second,) = pids(program)
        wait_until(lambda: path.read_text() == text(second), "second pid")
        assert file.read() == text(first)
    if json:
        assert orjson.loads(path.read_bytes()) == {"pid": second}
    files = ["app.pid", "app.state"]
    wait_until(lambda: sorted(os.listdir(tmp_path)) == files, "just these files")
    program.send_signal(signal.SIGINT)
    assert aeternum.wait(program).status == 0
    assert os.listdir(tmp_path) == ["app.state"]


def test_pidfile_that_cannot_be_written(
    lean_aeternum: Aeternum, tmp_path: Path
) -> None:
    """Later it is no reason to stop: the keeper says so, and no old pid stays."""
    folder = tmp_path / "run"
    folder.mkdir()
    program = lean_aeternum.keep("-p", folder / "app.pid", "--", *STAYS)
    pids(program)
    wait_until((folder / "app.pid").exists, "pidfile")
    folder.rename(tmp_path / "elsewhere")
    program.send_signal(signal.SIGUSR1)
    pids(program)
    said = {error_line(program) for _ in range(3)}
    assert said == {
        f"cannot write {folder}/app.{name}: no such file or directory"
        for name in ("pid", "state")
    }
    assert program.poll() is None


# ---- Endings


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "Child exited with 0, restarting."),
        ("exit 3", "Child exited with 3, restarting."),
        ("kill -9 $$", "Child killed by signal 9, restarting."),
        ("kill -TERM $$", "Child killed by signal 15, restarting."),
    ],
)
def test_messages(lean_aeternum: Aeternum, script: str, says: str) -> None:
    """Whatever the end, there is one line, and a new start."""
    program = lean_aeternum.keep("--", "sh", "-c", f"echo on; {script}")
    assert [line(program), error_line(program), line(program)] == ["on", says, "on"]


def test_message_for_forza(server: MetricsServer, aeternum: Aeternum) -> None:
    """A forza that is kept ends as its app: 128 + signal."""
    program = aeternum.keep(
        "--", "forza", "-h", server.address, "--", CHILDREN / "dies.sh", "KILL"
    )
    assert error_line(program) == "Child exited with 137, restarting."
    assert server.wait_for("health/process/exit")[0]["description"] == "137"


@pytest.mark.parametrize("kept", [(), ("forza", "--plugin", "logs", "--")])
def test_min_uptime(aeternum: Aeternum, tmp_path: Path, kept: tuple[str, ...]) -> None:
    """A command that ends too soon is not started again: status 2."""
    pidfile = tmp_path / "app.pid"
    options = ("--min-uptime", 3_600_000, "-p", pidfile)
    ended = aeternum.run("run", *options, "--", *kept, "sh", "-c", "exit 7")
    assert ended.status == 2
    assert ended.stderr == "Child exited prematurely with 7, exiting.\n"
    assert not pidfile.exists()


def test_min_uptime_is_over(lean_aeternum: Aeternum) -> None:
    """It is counted from the keeper's start; after it there are restarts."""
    program = lean_aeternum.keep("--min-uptime=1", "--", "sh", "-c", "sleep 0.1")
    assert error_line(program) == "Child exited with 0, restarting."


def test_min_uptime_and_a_restart(lean_aeternum: Aeternum) -> None:
    """A restart that was asked for is not a premature end."""
    program = lean_aeternum.keep("--min-uptime", 3_600_000, "--", *STAYS)
    (first,) = pids(program)
    program.send_signal(signal.SIGUSR1)
    assert pids(program) != [first]


def test_pauses(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """What ends at once is started again, and again, and not a thousand times."""
    starts = {name: tmp_path / name for name in ("command", "app")}
    kept: dict[str, tuple[str, ...]] = {"command": (), "app": ("forza", "--")}
    programs = [
        lean_aeternum.keep("--", *kept[name], "sh", "-c", f"echo >> {path}")
        for name, path in starts.items()
    ]
    programs.append(lean_aeternum.keep("--", "no-such-program"))
    time.sleep(6)
    for program in programs:
        program.terminate()
    missing = [lean_aeternum.wait(program) for program in programs][-1]
    counts = {name: path.read_text().count("\n") for name, path in starts.items()}
    counts["missing"] = missing.stderr.count("cannot run")
    assert all(2 <= count <= 4 for count in counts.values()), counts


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [("missing", 127, "no such file or directory"), ("plain", 126, "permission")],
)
def test_a_command_that_cannot_run(
    aeternum: Aeternum, tmp_path: Path, name: str, status: int, reason: str
) -> None:
    """It is said, it counts as 127 or 126, and it is tried again when it may work."""
    path = tmp_path / name
    if name == "plain":
        path.write_text("#!/bin/sh\necho on\nexec sleep 1000\n")
    program = aeternum.keep("--", path)
    assert error_line(program).startswith(f"cannot run {path}: {reason}")
    assert error_line(program) == f"Child exited with {status}, restarting."
    made = tmp_path / "made"
    made.write_text("#!/bin/sh\necho on\nexec sleep 1000\n")
    made.chmod(0o755)
    made.rename(path)
    assert line(program) == "on"
    assert len(children_of(program.pid)) == 1


# ---- Signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_stopping(aeternum: Aeternum, name: str) -> None:
    """The command gets SIGTERM, and has its last word."""
    script = "trap 'echo bye; kill $!; exit 5' TERM; sleep 1000 & echo on; wait"
    program = aeternum.keep("--", "sh", "-c", script)
    assert line(program) == "on"
    program.send_signal(signal.Signals[name])
    ended = aeternum.wait(program)
    assert (ended.status, ended.stdout, ended.stderr) == (0, b"bye\n", "")


def test_stopping_what_will_not(lean_aeternum: Aeternum) -> None:
    """What ignores SIGTERM gets SIGKILL after the grace, and what it left, too."""
    stubborn = f"setsid sleep 1000 & exec {sys.executable} {CHILDREN}/stubborn.py"
    program = lean_aeternum.keep("--", "sh", "-c", stubborn)
    assert line(program) == "ready"
    program.terminate()
    ended = lean_aeternum.wait(program)
    assert (ended.status, ended.stdout) == (0, b"ignored SIGTERM\n")


def test_stopping_forza(server: MetricsServer, aeternum: Aeternum) -> None:
    """forza passes it on, has its own grace, and tells how it ended."""
    program = aeternum.keep(
        *("--", "forza", "-h", server.address, "--grace", 0.2, "--"),
        *(sys.executable, CHILDREN / "stubborn.py"),
    )
    server.wait_for("logs/stdout", containing="ready")
    program.terminate()
    ended = aeternum.wait(program)
    server.wait_closed()
    assert (ended.status, without_connections(ended.stderr)) == (0, "")
    assert server.text("logs/stdout") == "ready\nignored SIGTERM\n"
    assert server.events[-1]["service"] == "health/process/exit"
    assert server.events[-1]["description"] == "137"


def test_stopping_in_the_pause(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """Between an end and a start, too, and the pidfile goes."""
    pidfile = tmp_path / "app.pid"
    program = lean_aeternum.keep("-p", pidfile, "--", "true")
    assert error_line(program) == "Child exited with 0, restarting."
    assert pidfile.exists()
    program.terminate()
    assert lean_aeternum.wait(program).status == 0
    assert not pidfile.exists()


def test_interrupt_at_a_terminal(
    server: MetricsServer, lean_aeternum: Aeternum
) -> None:
    """One ^C reaches keeper and monitor alike; the app still has all its grace."""
    controller, terminal = pty.openpty()

    def control() -> None:
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    script = (
        "trap 'sleep 0.3; echo tidied; exit 0' INT TERM; echo on; sleep 1000 & wait"
    )
    program = lean_aeternum.keep(
        *("--", "forza", "-h", server.address, "--", "sh", "-c", script),
        stdin=terminal,
        start_new_session=True,
        preexec_fn=control,
    )
    os.close(terminal)
    server.wait_for("logs/stdout", containing="on")
    os.write(controller, b"\x03")
    ended = lean_aeternum.wait(program)
    os.close(controller)
    server.wait_closed()
    assert (ended.status, without_connections(ended.stderr)) == (0, "")
    assert server.text("logs/stdout") == "on\ntidied\n"
    assert server.events[-1]["description"] == "0"


def test_restarts(aeternum: Aeternum) -> None:
    """SIGUSR1 starts the command anew, as often as it comes, without a word."""
    program = aeternum.keep("--", *STAYS)
    seen = pids(program)
    for _ in range(3):
        program.send_signal(signal.SIGUSR1)
        seen += pids(program)
        assert not is_alive(seen[-2])
    assert len(set(seen)) == 4
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stderr) == (0, "")


def test_restart_in_the_pause(lean_aeternum: Aeternum) -> None:
    """SIGUSR1 ends a pause: seven that grow would be two minutes."""
    program = lean_aeternum.keep("--", "sh", "-c", "echo on; exit 1")
    for _ in range(7):
        assert line(program) == "on"
        assert error_line(program) == "Child exited with 1, restarting."
        program.send_signal(signal.SIGUSR1)
    assert line(program) == "on"


def test_hang_up_is_ignored(aeternum: Aeternum) -> None:
    """SIGHUP changes nothing."""
    program = aeternum.keep("--", *STAYS)
    (app,) = pids(program)
    program.send_signal(signal.SIGHUP)
    wait_until(
        lambda: int(status_of(program.pid)["ShdPnd"], 16) == 0, "SIGHUP is taken"
    )
    assert children_of(program.pid) == [app]
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stderr) == (0, "")


def test_started_where_children_are_ignored(lean_aeternum: Aeternum) -> None:
    """Who starts the keeper may ignore SIGCHLD, which is inherited."""

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    program = lean_aeternum.keep("--", "sh", "-c", "exit 3", preexec_fn=ignore)
    assert error_line(program) == "Child exited with 3, restarting."


# ---- Dying together


def test_monitor_killed(server: MetricsServer, aeternum: Aeternum) -> None:
    """The app's whole tree goes with its monitor, and both are started anew."""
    program = aeternum.keep(
        *("--", "forza", "-h", server.address, "--", "sh", "-c"),
        STRAYS + "exec sleep 1000",
    )
    tree = told_pids(server, 0, STRAYS_PIDS)
    assert all(is_alive(pid) for pid in tree)
    monitor = parent_of(tree[-1])
    os.kill(monitor, signal.SIGKILL)
    assert error_line(program) == "Child killed by signal 9, restarting."
    assert not any(is_alive(pid) for pid in tree)
    anew = told_pids(server, STRAYS_PIDS, STRAYS_PIDS)
    assert all(is_alive(pid) for pid in anew)
    boots = {event["meta"]["boot"] for event in server.of("health/process/spawn")}
    assert len(boots) == 2
    program.terminate()
    aeternum.wait(program)
    assert not any(is_alive(pid) for pid in anew)


def test_keeper_killed(server: MetricsServer, aeternum: Aeternum) -> None:
    """The monitor ends the app, and says so."""
    program = aeternum.keep("--", "forza", "-h", server.address, "--", *STAYS)
    (app,) = told_pids(server, 0, 1)
    monitor = parent_of(app)
    assert parent_of(monitor) == program.pid
    program.kill()
    wait_gone(monitor, app)
    server.wait_closed()
    assert server.events[-1]["service"] == "health/process/exit"
    assert server.events[-1]["description"] == "143"


def test_keeper_of_a_command_killed(aeternum: Aeternum) -> None:
    """A command that is not forza goes with its keeper, too."""
    program = aeternum.keep("--", *STAYS)
    (app,) = pids(program)
    program.kill()
    wait_gone(app)


@pytest.mark.parametrize("kept", [(), ("forza", "--plugin", "logs", "--")])
def test_strays(aeternum: Aeternum, tmp_path: Path, kept: tuple[str, ...]) -> None:
    """What the app leaves behind, wherever it hides, is gone at its end."""
    told = tmp_path / "pids"
    script = f"({STRAYS}) > {told}; exit 3"
    program = aeternum.keep("--", *kept, "sh", "-c", script)
    assert error_line(program) == "Child exited with 3, restarting."
    left = [int(word) for word in told.read_text().split()[:STRAYS_PIDS]]
    assert len(left) == STRAYS_PIDS
    assert not any(is_alive(pid) for pid in left[:2])
    program.send_signal(signal.SIGSTOP)  # so that no new ones come meanwhile
    assert dict(aeternum.descendants()).keys() == {program.pid}
    program.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("kept", [(), ("forza", "--to", "stdout:", "--")])
def test_twenty_restarts_leave_nothing(
    lean_aeternum: Aeternum, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    """No zombie, no descriptor, no child too many."""
    told = tmp_path / "pids"
    os.mkfifo(told)
    script = f"(sleep 1000 &); echo $$ > {told}; exec sleep 1000"
    options = ("-o", tmp_path / "log", "-p", tmp_path / "pid")
    program = lean_aeternum.keep(*options, "--", *kept, "sh", "-c", script)
    seen = [int(told.read_text())]
    first = written_pid(tmp_path / "pid")
    wait_asleep(program.pid)
    before = descriptors_of(program.pid)
    for _ in range(20):
        program.send_signal(signal.SIGUSR1)
        seen.append(int(told.read_text()))
    written_pid(tmp_path / "pid", after=first)
    wait_until(lambda: descriptors_of(program.pid) == before, "the same descriptors")
    assert len(set(seen)) == 21
    assert not any(status_of(pid) for pid in seen[:-1])
    # The command or the monitor, and the stray that the keeper has adopted, if there
    # is no guard to do so.
    states = [status_of(pid)["State"][0] for pid in children_of(program.pid)]
    guarded = kept and native.path("guard")
    assert len(states) == (1 if guarded else 2)
    assert "Z" not in states


# ---- forza, kept


def test_each_start_is_a_new_boot(server: MetricsServer, aeternum: Aeternum) -> None:
    """After a restart meta.boot is another, and seq begins anew."""
    program = aeternum.keep("--", "forza", "-h", server.address, "--", *STAYS)
    for starts in 1, 2, 3:
        told_pids(server, starts - 1, 1)
        program.send_signal(signal.SIGUSR1)
    server.wait_for("health/process/exit", 3)
    told_pids(server, 3, 1)
    spawned = server.of("health/process/spawn")
    assert len({event["meta"]["boot"] for event in spawned}) == 4
    assert len({event["meta"]["seq"] for event in spawned}) == 1
    exits = server.of("health/process/exit")
    assert [event["description"] for event in exits] == ["143"] * 3


@pytest.mark.parametrize(
    "kept", [("forza",), ("/somewhere/bin/forza",), ("python3", "-m", "forza")]
)
def test_which_command_is_forza(
    server: MetricsServer, lean_aeternum: Aeternum, kept: tuple[str, ...]
) -> None:
    """forza is not looked up: it is the keeper's own, started afresh."""
    program = lean_aeternum.keep("--", *kept, "-h", server.address, "--", *STAYS)
    (app,) = told_pids(server, 0, 1)
    monitor = parent_of(app)
    assert children_of(program.pid) == [monitor]
    lines = [Path(f"/proc/{n}/cmdline").read_bytes() for n in (program.pid, monitor)]
    words = "\0".join(("run", "--", *kept, "-h", server.address, "--", *STAYS, ""))
    assert lines[0] == b"aeternum\0" + words.encode()
    assert lines[1].endswith(b"/forza/__main__.py\0" + words.encode())


def test_forza_keep(server: MetricsServer, forza: Forza) -> None:
    """`forza --keep` is `aeternum run`."""
    program = forza.start("--keep", "-h", server.address, "--", *STAYS)
    (app,) = told_pids(server, 0, 1)
    program.send_signal(signal.SIGUSR1)
    told_pids(server, 1, 1)
    assert not is_alive(app)
    program.terminate()
    ended = forza.wait(program)
    assert (ended.status, without_connections(ended.stderr)) == (0, "")


def test_app_as_without_keeper(
    lean_aeternum: Aeternum, lean_forza: Forza, tmp_path: Path
) -> None:
    """What the app inherits is the same with a keeper and without."""
    script = (
        "grep -E '^Sig(Blk|Ign|Cgt)|^THP' /proc/self/status; ls /proc/self/fd;"
        "umask; ulimit -n; env | grep -E '^_?FORZA_' | grep -v TEST"
    )
    words = ("--plugin", "logs", "--", "sh", "-c", script)
    log = tmp_path / "log"
    ended = lean_aeternum.run(
        *("run", "--min-uptime", 3_600_000, "-o", log, "--", "forza", *words)
    )
    assert (ended.status, ended.stdout) == (2, b"")
    kept = Ended(0, log.read_bytes(), b"").text("logs/stdout")
    assert "SigIgn" in kept
    assert kept == lean_forza.run(*words).text("logs/stdout")


# ---- Upgrades


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package that a test may change."""
    return shutil.copytree(
        ROOT / "forza",
        tmp_path / "site" / "forza",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def upgrade(installed: Path, name: str, old: str, new: str) -> None:
    """Change the package's code, and write its version anew, as an installer does."""
    for path, before, after in (
        (installed / name, old, new),
        (installed / "_version.py", "__version__", "__version__"),
    ):
        text = path.read_text()
        assert before in text
        path.unlink()
        path.write_text(text.replace(before, after))


@pytest.mark.parametrize("restart", [signal.SIGUSR1, signal.SIGKILL])
@pytest.mark.parametrize("kept", [(), ("forza", "--grace", "3", "--")])
def test_upgrade(
    lean_aeternum: Aeternum,
    tmp_path: Path,
    installed: Path,
    kept: tuple[str, ...],
    restart: signal.Signals,
) -> None:
    """Whatever restarts the command, the keeper becomes what is installed now."""
    pidfile, log = tmp_path / "app.pid", tmp_path / "app.log"
    options = ("-p", pidfile, "-o", log, "--")
    program = lean_aeternum.keep(
        *options,
        *kept,
        *STAYS,
        env={"PYTHONPATH": str(installed.parent)},
        cwd=tmp_path,
    )
    first = written_pid(pidfile)
    upgrade(installed, "_keeper.py", "restarting.", "restarting anew.")
    os.kill(program.pid if restart == signal.SIGUSR1 else first, restart)
    second = written_pid(pidfile, after=first)
    assert parent_of(second) == program.pid
    os.kill(second, signal.SIGKILL)
    for _ in range(2 if restart == signal.SIGKILL else 1):
        assert error_line(program) == "Child killed by signal 9, restarting anew."
    third = written_pid(pidfile, after=second)
    program.terminate()
    assert lean_aeternum.wait(program).stderr == ""
    assert not is_alive(third)


@pytest.mark.parametrize("name", ["_monitor.py", "_keeper.py", "__main__.py"])
def test_upgrade_that_is_broken(
    aeternum: Aeternum, tmp_path: Path, installed: Path, name: str
) -> None:
    """The app runs on, the keeper says so, and restarts it once that can be."""
    program = aeternum.keep(
        *("--", "forza", "--plugin", "logs", "--", *STAYS),
        env={"PYTHONPATH": str(installed.parent)},
        cwd=tmp_path,
    )
    app = int(orjson.loads(line(program))["description"])
    broken = "import os\n", "import os, a half written file\n"
    upgrade(installed, name, *broken)
    program.send_signal(signal.SIGUSR1)
    said = "The installed version of forza does not start, waiting."
    assert error_line(program) == said
    assert is_alive(app)
    upgrade(installed, name, *reversed(broken))
    assert orjson.loads(line(program))["description"] != f"{app}\n"
    assert not is_alive(app)
    program.terminate()
    ended = aeternum.wait(program)
    assert (ended.status, ended.stderr) == (0, "")


@pytest.mark.parametrize("kept", [(), ("forza", "--plugin", "logs", "--")])
def test_stopping_while_the_upgrade_is_broken(
    aeternum: Aeternum, tmp_path: Path, installed: Path, kept: tuple[str, ...]
) -> None:
    """Without a keeper that starts, SIGTERM still ends the command, and what sleeps."""
    program = aeternum.keep(
        *("--", *kept, *STAYS),
        env={"PYTHONPATH": str(installed.parent)},
        cwd=tmp_path,
    )
    line(program)
    upgrade(installed, "__main__.py", "import os\n", "import os, half of\n")
    program.terminate()
    assert aeternum.wait(program).status == 0


# ---- Usage


@pytest.mark.parametrize("words", [("--help",), ("start", "--help"), ("run", "--help")])
def test_help(lean_aeternum: Aeternum, words: tuple[str, ...]) -> None:
    """The help names every option."""
    ended = lean_aeternum.run(*words)
    assert (ended.status, ended.stderr) == (0, "")
    text = ended.stdout.decode()
    for option in "--stdout", "--stderr", "--stdin", "--pidfile", "--json":
        assert f"-{option[2]}, {option}" in text or option in text
    assert "--min-uptime MS" in text
    assert all(name in text for name in (*_OPTIONS, *KEEPING, *TELLING, *INITS))
    assert max(map(len, text.splitlines())) <= 88


@pytest.mark.parametrize("action", ["start", "run"])
@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "no command given"),
        (("--",), 2, "no command given"),
        (("--no-such", "--", "true"), 2, "unknown option --no-such"),
        (("-p",), 2, "option -p needs a value"),
        (("-o", "--", "true"), 2, "option -o needs a value"),
        (("-e", "err", "--", "true"), 2, "-e goes with -o only"),
        (("--min-uptime", "soon", "true"), 2, "--min-uptime must be milliseconds"),
        (("--", "forza"), 2, "no command given"),
        (("--", "forza", "--no-such", "--", "true"), 2, "unknown option --no-such"),
        (("--", "forza", "-p", "70000", "--", "true"), 3, "70000"),
        (("-i", "no-such-file", "--", "true"), 125, "no such file or directory"),
        (("-o", "no-such/file", "--", "true"), 125, "no such file or directory"),
        (("-o", ".", "--", "true"), 125, "is a directory"),
        (("-p", "no-such/file", "--", "true"), 125, "no such file or directory"),
        (("-p", ".", "--", "true"), 125, "is a directory"),
    ],
)
def test_mistakes(
    lean_aeternum: Aeternum,
    tmp_path: Path,
    action: str,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    """A mistake is one line, while there is somebody to read it, and nothing runs."""
    ended = lean_aeternum.run(action, *words, cwd=tmp_path)
    assert (ended.status, ended.stdout) == (status, b"")
    assert ended.stderr.startswith("aeternum: ")
    assert says in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [(), ("halt",), ("-o", "log", "--", "true")])
def test_neither_start_nor_run(lean_aeternum: Aeternum, words: tuple[str, ...]) -> None:
    """The first word must be one that there is; all of them are named."""
    ended = lean_aeternum.run(*words)
    assert (ended.status, ended.stdout) == (2, b"")
    assert ended.stderr.startswith("aeternum: the first word must be start, run, unit")
    assert all(f" {word}" in ended.stderr for word in (*KEEPING, *TELLING))
    assert ended.stderr.count("\n") == 1
    if words:
        assert f"not '{words[0]}'" in ended.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("/nope",), 127, "cannot run /nope: no such file or directory"),
        (("no-such-program",), 127, "cannot run no-such-program: command not found"),
        (("./plain",), 126, "cannot run ./plain: permission denied"),
        (("/",), 126, "cannot run /: permission denied"),
        (("forza", "--", "/nope"), 127, "cannot run /nope: no such file or directory"),
        (("forza", "--cwd", "/no", "--", "ls"), 122, "cannot run ls in /no: no such"),
    ],
)
def test_a_slip_in_the_command(
    lean_aeternum: Aeternum,
    tmp_path: Path,
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    """`start` says it, while somebody is there to hear; nothing is left running."""
    (tmp_path / "plain").write_text("")
    ended = lean_aeternum.run("start", "-p", "pid", "--", *words, cwd=tmp_path)
    assert (ended.status, ended.stdout) == (status, b"")
    assert ended.stderr.startswith(f"aeternum: {says}")
    assert ended.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["plain"]
    assert dict(lean_aeternum.descendants()) == {}


def test_a_command_that_vanishes_later(lean_aeternum: Aeternum, tmp_path: Path) -> None:
    """What was there at the start, and is there again, is kept as ever."""
    app = tmp_path / "app"
    app.write_text(f"#!/bin/sh\necho >> {tmp_path}/runs\nexec sleep 1000\n")
    app.chmod(0o755)
    lean_aeternum.detach(
        "--min-delay",
        0.1,
        "--max-delay",
        0.1,
        "-p",
        tmp_path / "pid",
        "--",
        "./app",
        cwd=tmp_path,
    )
    first = written_pid(tmp_path / "pid")
    wait_until(lambda: (tmp_path / "runs").exists(), "first run")
    app.rename(tmp_path / "away")
    os.kill(first, signal.SIGKILL)
    wait_until(
        lambda: b'"code": 127' in (tmp_path / "pid.state").read_bytes(),
        "an end with 127",
    )
    (tmp_path / "away").rename(app)
    wait_until(lambda: (tmp_path / "runs").read_text().count("\n") == 2, "second run")


@pytest.mark.parametrize("word", ["--version", "-v"])
def test_version(lean_aeternum: Aeternum, lean_forza: Forza, word: str) -> None:
    """Each program says its version, after its verb, too."""
    version = f"{__version__}\n".encode()
    for words in (), ("start",), ("status",):
        ended = lean_aeternum.run(*words, word)
        assert (ended.status, ended.stdout) == (0, b"aeternum " + version)
    for words in (), ("listen",), ("flush",), ("status",):
        ended = lean_forza.run(*words, word)
        assert (ended.status, ended.stdout) == (0, b"forza " + version)
