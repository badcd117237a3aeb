# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Real children, spawned and reaped with libuv's semantics; nothing is left of them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pwd
import resource
import select
import signal
import stat
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import forza
from forza import _native as native
from forza._pipe import Pipe
from forza._process import Exit, Process, ProcessOptions
from forza._spawn import spawn
from tests.conftest import CHILDREN, ROOT
from tests.forza.conftest import PATIENCE, Run, children, descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TELLS = (sys.executable, "-S", str(CHILDREN / "tells.py"))

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may change its user")


class Child:
    """A child, what it writes, and its exits (there should be one)."""

    def __init__(self, *args: str, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.process = spawn(ProcessOptions(args, **options))
        self.exits: list[Exit] = []
        self.output = {1: b"", 2: b"", 3: b""}
        self.ends: list[int] = []
        self._changed = asyncio.Event()
        self.pipes = {
            target: Pipe(self.loop, fd, self._reader(target), self._closer(target))
            for target, fd in enumerate(self.process.fds, 1)
        }
        for pipe in self.pipes.values():
            pipe.read_start()
        self.process.watch(self.loop, self._exited)

    def _reader(self, target: int) -> Any:
        def read_cb(data: bytes) -> None:
            assert data
            self.output[target] += data
            self._changed.set()

        return read_cb

    def _closer(self, target: int) -> Any:
        def close_cb() -> None:
            self.ends.append(target)
            self._changed.set()

        return close_cb

    def _exited(self, exit: Exit) -> None:
        self.exits.append(exit)
        self._changed.set()

    async def until(self, condition: Any) -> None:
        """Wait until something has happened."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> Exit:
        """Wait for the exit and for all output, and reap."""
        await self.until(lambda: self.exits and len(self.ends) == 3)
        self.process.close()
        (exit,) = self.exits
        return exit

    def close(self) -> None:
        """End whatever is left."""
        self.process.close()
        for pipe in self.pipes.values():
            pipe.close()


@pytest.fixture(autouse=True, params=["guard", "direct"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All of this holds with the guard, and where it could not be built."""
    if request.param == "direct":
        monkeypatch.setenv("FORZA_NATIVE", "no")
    elif native.path("guard") is None:
        pytest.skip("there is no guard: it needs a C compiler")
    name: str = request.param
    return name


def wait_until_dead(pid: int) -> None:
    """Wait for a process's end, and leave it a zombie."""
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)


def reap(pid: int) -> None:
    """Be another part of the program, which waits for all children there are."""
    os.waitpid(pid, 0)


async def told(*args: str, **options: Any) -> dict[str, Any]:
    """Run the child that tells what it sees."""
    child = Child(*TELLS, *args, **options)
    exit = await child.end()
    assert exit.code == 0, child.output[2].decode()
    seen: dict[str, Any] = json.loads(child.output[1])
    return seen


async def output(*args: str, **options: Any) -> str:
    """Run a child and return what it writes to stdout."""
    child = Child(*args, **options)
    await child.end()
    assert child.output[2] == b""
    return child.output[1].decode()


# Endings.


@pytest.mark.parametrize("status", [0, 1, 127, 255])
def test_exit_status(run: Run, status: int) -> None:
    """The status is the child's, and there is no signal."""

    async def main() -> None:
        exit = await Child("sh", "-c", f"exit {status}").end()
        assert (exit.exit_status, exit.term_signal, exit.core) == (status, 0, False)
        assert exit.code == status

    run(main())


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_term_signal(run: Run, signum: int) -> None:
    """The signal is the one that killed it, and the status is 0: two values."""

    async def main() -> None:
        child = Child("sleep", "1000")
        child.process.kill(signum)
        exit = await child.end()
        assert (exit.exit_status, exit.term_signal) == (0, signum)
        assert exit.code == 128 + signum
        assert repr(exit) == f"Exit(exit_status=0, term_signal={int(signum)})"

    run(main())


def test_exit_before_the_last_output(run: Run) -> None:
    """Exited and closed are two events: a grandchild may hold the pipes open."""

    async def main() -> None:
        child = Child("sh", "-c", "sleep 1000 & echo $!")
        await child.until(lambda: child.exits and 3 in child.output)
        assert child.ends == []
        child.process.close()  # which kills what is left of the group
        await child.until(lambda: len(child.ends) == 3)
        assert len(child.exits) == 1

    run(main())


def test_output_before_the_exit(run: Run) -> None:
    """A child that closes its pipes early lives on until it exits."""

    async def main() -> None:
        child = Child("sh", "-c", "exec >&- 2>&- 3>&-; exec sleep 1000")
        await child.until(lambda: len(child.ends) == 3)
        assert child.exits == []
        child.process.kill(signal.SIGTERM)
        assert (await child.end()).term_signal == signal.SIGTERM

    run(main())


def test_exit_cb_once(run: Run) -> None:
    """However long the loop runs on, `exit_cb` is called once."""

    async def main() -> None:
        child = Child("true")
        await child.until(lambda: child.exits)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert len(child.exits) == 1
        await child.end()
        child.process.close()
        assert len(child.exits) == 1

    run(main())


def test_killed_before_it_is_watched(run: Run) -> None:
    """A child that died before anybody looked is told of all the same."""

    async def main() -> None:
        process = spawn(ProcessOptions(["sh", "-c", "exit 6"]))
        wait_until_dead(process.pid)
        told: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        process.watch(asyncio.get_running_loop(), told.set_result)
        assert (await told).exit_status == 6
        assert process.ended is told.result()
        process.close()
        for fd in process.fds:
            os.close(fd)

    run(main())


def test_reaped_by_somebody_else(run: Run, way: str) -> None:
    """If another part of the program reaps the child, its end is told, if not how."""
    if way == "guard":
        pytest.skip("the child is not the program's own")

    async def main() -> None:
        child = Child("sleep", "1000")
        os.kill(child.process.pid, signal.SIGKILL)
        reap(child.process.pid)
        exit = await child.end()
        assert exit.code == 255

    run(main())


def test_core(run: Run) -> None:
    """Whether there is a core is what the kernel says."""

    async def main() -> None:
        exit = await Child("sh", "-c", "ulimit -c 0; kill -ABRT $$").end()
        assert exit.term_signal == signal.SIGABRT
        assert not exit.core

    run(main())


# Signals.


def test_kill_after_exit(run: Run) -> None:
    """A child that has exited can't be signalled: ESRCH, as libuv has it."""

    async def main() -> None:
        child = Child("true")
        await child.until(lambda: child.exits)
        with pytest.raises(ProcessLookupError) as caught:
            child.process.kill(0)
        assert caught.value.errno == errno.ESRCH
        await child.end()

    run(main())


def test_kill_after_close(run: Run) -> None:
    """Once it is reaped no signal can hit a stranger."""

    async def main() -> None:
        child = Child("true")
        await child.end()
        assert child.process.pid == 0
        with pytest.raises(ProcessLookupError) as caught:
            child.process.kill(signal.SIGKILL)
        assert caught.value.errno == errno.ESRCH

    run(main())


def test_kill_is_for_the_whole_group(run: Run) -> None:
    """The child's own children get the signal too."""

    async def main() -> None:
        child = Child(
            "sh",
            "-c",
            'sh -c \'trap "echo inner; exit" TERM; '
            "echo ready; while :; do sleep 0.01; done' & wait",
        )
        await child.until(lambda: b"ready" in child.output[1])
        child.process.kill(signal.SIGTERM)
        await child.until(lambda: child.exits and len(child.ends) == 3)
        assert b"inner" in child.output[1]
        child.process.close()

    run(main())


def test_close_kills_what_is_left(run: Run) -> None:
    """`close` on a child that runs ends it, and its group, and reaps it."""

    async def main() -> None:
        child = Child("sh", "-c", "sleep 1000 & echo ready; sleep 1000")
        await child.until(lambda: child.output[1])
        child.process.close()
        await child.until(lambda: len(child.ends) == 3)
        assert child.exits == []

    run(main())


# What the child is given. The contract's tests have the rest of it.


def test_args(run: Run) -> None:
    """`args[0]` is what the child has for a name, `file` is what is run."""

    async def main() -> None:
        options = ProcessOptions(["sh", "-c", "echo $0 $1", "a b", "c"])
        assert options.file == "sh"
        assert await output(*options.args) == "a b c\n"

    run(main())


def test_name_is_not_the_file(run: Run) -> None:
    """A plugin may set `args[0]` to something else than the file."""

    async def main() -> None:
        options = ProcessOptions(["cat", "/proc/self/cmdline"])
        options.args = ("another name", "/proc/self/cmdline")
        for cwd in None, "/":
            options.cwd = cwd
            process = spawn(options)
            await until_exit(process)
            assert os.read(process.fds[0], 100) == b"another name\0/proc/self/cmdline\0"
            close_all(process)

    run(main())


@pytest.mark.parametrize("cwd", [None, "/"])
def test_env(run: Run, cwd: str | None) -> None:
    """A given environment is the whole of it."""

    async def main() -> None:
        env = {"A": "b=c\nd", "EMPTY": "", "PATH": os.environ["PATH"]}
        seen = await output("env", "-0", env=env, cwd=cwd)
        assert dict(e.split("=", 1) for e in seen.split("\0")[:-1]) == env
        inherited = await output("env", "-0", cwd=cwd)
        variables = dict(e.split("=", 1) for e in inherited.split("\0")[:-1])
        variables.pop("_", None)
        assert variables == {k: v for k, v in os.environ.items() if k != "_"}

    run(main())


@pytest.mark.parametrize("cwd", [None, "/"])
def test_path_is_that_of_the_given_env(
    run: Run, tmp_path: Path, cwd: str | None
) -> None:
    """A command is looked up in the PATH that the child gets, not in ours."""
    for name in "first", "second":
        (tmp_path / name).mkdir()
        program = tmp_path / name / "my-program"
        program.write_text(f"#!/bin/sh\necho {name}\n")
        program.chmod(0o755 if name == "second" else 0o644)

    async def main() -> None:
        path = f"/nowhere:{tmp_path}/first:{tmp_path}/second"
        env = {"PATH": path}
        assert await output("my-program", env=env, cwd=cwd) == "second\n"
        with pytest.raises(forza.SpawnError) as caught:
            spawn(ProcessOptions(["my-program"], cwd=cwd))
        assert caught.value.errno == errno.ENOENT
        env = {"PATH": f"{tmp_path}/first"}
        with pytest.raises(forza.SpawnError) as caught:
            spawn(ProcessOptions(["my-program"], env=env, cwd=cwd))
        assert caught.value.errno == errno.EACCES
        # Without a PATH there is the system's default one.
        assert await output("echo", "found", env={}, cwd=cwd) == "found\n"

    run(main())


def test_cwd(run: Run, tmp_path: Path) -> None:
    """The child starts in the given folder, from which a relative file is found."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\npwd\n")
    program.chmod(0o755)

    async def main() -> None:
        assert await output("./program", cwd=str(tmp_path)) == f"{tmp_path}\n"
        assert (await told(cwd="/usr"))["cwd"] == "/usr"

    run(main())


@pytest.mark.parametrize("way", ["plain", "cwd"])
def test_script_without_interpreter_line(run: Run, tmp_path: Path, way: str) -> None:
    """A script that names no interpreter is the shell's, as with execvp."""
    script = tmp_path / "script"
    script.write_text('echo "$1" $#\n')
    script.chmod(0o755)

    async def main() -> None:
        cwd = None if way == "plain" else "/"
        assert await output(str(script), "a b", "c", cwd=cwd) == "a b 2\n"

    run(main())


@as_root
@pytest.mark.parametrize("give", [("uid", "gid"), ("uid",), ("gid",)])
def test_user_and_group(run: Run, give: tuple[str, ...]) -> None:
    """The child runs as the user it is given, without our other groups."""
    nobody = pwd.getpwnam("nobody")
    ids = {"uid": nobody.pw_uid, "gid": nobody.pw_gid}
    given = {name: ids[name] for name in give}

    async def main() -> None:
        status = await output("cat", "/proc/self/status", **given)
        fields = dict(
            line.split(":\t", 1) for line in status.splitlines() if "\t" in line
        )
        for field, name in ("Uid", "uid"), ("Gid", "gid"):
            assert fields[field].split() == [str(given.get(name, 0))] * 4
        if "uid" in given:
            assert fields["Groups"].split() == []

    run(main())


@as_root
def test_user_without_rights(run: Run, tmp_path: Path) -> None:
    """What that user may not run is EACCES."""
    tmp_path.chmod(0o700)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    nobody = pwd.getpwnam("nobody")

    async def main() -> None:
        with pytest.raises(forza.SpawnError) as caught:
            spawn(ProcessOptions([str(program)], uid=nobody.pw_uid, gid=nobody.pw_gid))
        assert caught.value.errno == errno.EACCES

    run(main())


WAYS = [{}, {"cwd": "/"}, {"ipc": True}, {"ipc": True, "cwd": "/"}]
if os.getuid() == 0:
    WAYS.append({"uid": pwd.getpwnam("daemon").pw_uid})


# Any user may run this; the descriptor that lists the folder is gone when looked at.
LISTS = "for fd in /proc/$$/fd/*; do [ -e $fd ] && echo ${fd##*/} $(readlink $fd); done"


def batched(words: list[str]) -> list[tuple[str, str]]:
    """Return pairs."""
    return list(zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_descriptors(run: Run, options: dict[str, Any]) -> None:
    """The child has 0 to 3 and no other, inheritable ones of ours included."""

    async def main() -> None:
        read, write = os.pipe()
        os.set_inheritable(write, True)
        try:
            seen = (await output("sh", "-c", LISTS, **options)).split()
        finally:
            os.close(read)
            os.close(write)
        kinds = {fd: what.partition(":")[0] for fd, what in batched(seen)}
        third = "socket" if options.get("ipc") else "pipe"
        assert kinds == {"0": kinds["0"], "1": "pipe", "2": "pipe", "3": third}

    run(main())


@pytest.mark.parametrize("options", WAYS[:3], ids=str)
def test_signals_and_session(run: Run, options: dict[str, Any], way: str) -> None:
    """Nothing is ignored or blocked, whatever the program does; its session is new."""

    async def main() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            text = await output("grep", "Sig[IB]", "/proc/self/status", **options)
            seen = await told(**options)
        finally:
            signal.signal(signal.SIGUSR2, old)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        masks = dict(line.split() for line in text.splitlines())
        assert {int(mask, 16) & 0x7FFFFFFF for mask in masks.values()} == {0}
        assert seen["leads_session"]
        assert (seen["parent"] == os.getpid()) == (way == "direct")

    run(main())


# A program of its own, since this is about the descriptors that a program starts with.
CLOSED = """
import os, sys, asyncio
sys.path.insert(0, {root!r})
for fd in {closed!r}: os.close(fd)
out = os.open({out!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
if out < 4: import fcntl; fcntl.fcntl(out, 1030, 10); os.close(out)
import forza
async def main():
    ended = await forza.run(
        ["sh", "-c", "echo out; echo err >&2; echo port=7 >&3; exit 5"],
        to=["file:" + {out!r}], say=lambda text: None, cwd={cwd!r})
    os._exit(ended.code)
asyncio.run(main())
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("cwd", [None, "/"])
def test_closed_stdio(tmp_path: Path, closed: tuple[int, ...], cwd: str | None) -> None:
    """In a program started without 0, 1 or 2 the child's words still go their ways."""
    out = tmp_path / "out"
    program = CLOSED.format(root=str(ROOT), closed=closed, out=str(out), cwd=cwd)
    ended = subprocess.run(
        [sys.executable, "-c", program],
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 5
    events = [json.loads(line) for line in out.read_text().splitlines()]
    said = {e["service"]: e.get("description") for e in events}
    assert said["logs/stdout"] == "out\n"
    assert said["logs/stderr"] == "err\n"
    ports = [e["meta"].get("port") for e in events]
    assert 7 in ports


# Failures.


@pytest.mark.parametrize("cwd", [None, "/"])
@pytest.mark.parametrize(
    ("kind", "number", "says"),
    [
        ("missing", errno.ENOENT, "no such file or directory"),
        ("name", errno.ENOENT, "command not found"),
        ("folder", errno.EACCES, "permission denied"),
        ("mode", errno.EACCES, "permission denied"),
        ("interpreter", errno.ENOENT, "the interpreter it names is missing"),
        ("under a file", errno.ENOTDIR, "not a directory"),
        ("loop", errno.ELOOP, "too many levels of symbolic links"),
        ("too long", errno.ENAMETOOLONG, "file name too long"),
    ],
)
def test_spawn_error(
    run: Run, tmp_path: Path, kind: str, number: int, says: str, cwd: str | None
) -> None:
    """A failed exec is an error at once, with its errno, and leaves nothing behind."""
    path = tmp_path / "program"
    file = str(path)
    if kind == "name":
        file = "no-such-program"
    elif kind == "folder":
        path.mkdir()
    elif kind == "mode":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
    elif kind == "interpreter":
        path.write_text("#!/no/such/interpreter\n")
        path.chmod(0o755)
    elif kind == "under a file":
        path.write_text("")
        file = f"{path}/program"
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "too long":
        file = "/" + "x" * 300

    async def main() -> None:
        before = descriptors()
        with pytest.raises(forza.SpawnError) as caught:
            spawn(ProcessOptions([file, "argument"], cwd=cwd))
        assert descriptors() == before
        assert children() == set()
        assert caught.value.errno == number
        assert isinstance(caught.value, OSError)
        assert isinstance(caught.value, forza.ForzaError)
        assert caught.value.strerror == f"cannot run {file}: {says}"
        assert isinstance(caught.value.__cause__, OSError)

    run(main())


def test_missing_cwd(run: Run, tmp_path: Path) -> None:
    """A folder that isn't there is told from a program that isn't."""

    async def main() -> None:
        folder = str(tmp_path / "missing")
        with pytest.raises(forza.SpawnError) as caught:
            spawn(ProcessOptions(["true"], cwd=folder))
        assert caught.value.errno == errno.ENOENT
        assert folder in str(caught.value)

    run(main())


@pytest.mark.parametrize("args", [["true", "a\0b"], ["tr\0ue"]], ids=str)
def test_arguments_that_no_exec_takes(run: Run, args: list[str]) -> None:
    """A NUL in the arguments is refused, and leaves no descriptors behind."""

    async def main() -> None:
        before = descriptors()
        with pytest.raises((ValueError, forza.SpawnError)):
            spawn(ProcessOptions(args))
        assert descriptors() == before

    run(main())


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Leave so many descriptors to be had, whichever are open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(fd for fd, _ in descriptors())
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + count + 1, hard))
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def test_no_descriptors_left(run: Run) -> None:
    """With few descriptors left to be had, spawning fails or works, and keeps none."""

    async def main() -> None:
        before = descriptors()
        failures = 0
        for count in range(14):
            process = None
            with room_for(count):
                try:
                    process = spawn(ProcessOptions(["true"]))
                except forza.SpawnError as error:
                    failures += 1
                    assert error.errno == errno.EMFILE  # noqa: PT017
            if process is not None:
                await until_exit(process)
                close_all(process)
            assert descriptors() == before
        assert 0 < failures < 14

    run(main())


def test_nothing_is_left_after_many(run: Run) -> None:
    """Two hundred children later there is no zombie and no descriptor more."""

    async def main() -> None:
        before = descriptors()
        for number in range(200):
            exit = await Child("sh", "-c", f"exit {number}").end()
            assert exit.exit_status == number
        assert descriptors() == before
        assert children() == set()

    run(main())


# Pipes.


async def until_exit(process: Process) -> None:
    """Wait for a child's end, and reap it."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Exit] = loop.create_future()
    process.watch(loop, told.set_result)
    await told
    process.close()


def close_all(process: Process) -> None:
    """Close our ends of its pipes."""
    for fd in process.fds:
        os.close(fd)


class Source:
    """A pipe that the test writes to, read by a `Pipe`."""

    def __init__(self) -> None:
        read, self.fd = os.pipe()
        os.set_blocking(read, False)
        self.reads: list[bytes] = []
        self.closed = 0
        self.changed = asyncio.Event()
        self.pipe = Pipe(asyncio.get_running_loop(), read, self._read, self._close)

    def _read(self, data: bytes) -> None:
        self.reads.append(data)
        self.changed.set()

    def _close(self) -> None:
        self.closed += 1
        self.changed.set()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def end(self) -> None:
        os.close(self.fd)


def test_pipe_reads_all(run: Run) -> None:
    """Every byte comes, in order, in reads of at most 64 KiB; then one close."""

    async def main() -> None:
        source = Source()
        source.pipe.read_start()
        source.pipe.read_start()
        data = os.urandom(300_000)

        def write() -> None:
            sent = data
            while sent:
                sent = sent[os.write(source.fd, sent) :]
            source.end()

        await asyncio.to_thread(write)
        await source.until(lambda: source.closed)
        assert b"".join(source.reads) == data
        assert max(map(len, source.reads)) <= 65536
        assert source.closed == 1
        assert source.pipe.closed
        source.pipe.close()
        source.pipe.read_stop()
        source.pipe.read_start()
        source.pipe.drain()
        assert source.closed == 1

    run(main())


def test_pipe_stops_and_goes_on(run: Run) -> None:
    """Between `read_stop` and `read_start` nothing is read, whatever the pace."""

    async def main() -> None:
        source = Source()
        source.pipe.read_start()
        for round_ in range(5):
            os.write(source.fd, b"a" * (round_ + 1))
            await source.until(lambda: source.reads)
            source.pipe.read_stop()
            source.reads.clear()
            os.write(source.fd, b"b" * 10)
            await asyncio.sleep(0.03)  # longer than any rest between two reads
            assert source.reads == []
            source.pipe.read_start()
            await source.until(lambda: source.reads)
            assert b"".join(source.reads) == b"b" * 10
            source.reads.clear()
        source.end()
        await source.until(lambda: source.closed)

    run(main())


def test_pipe_stops_from_its_callback(run: Run) -> None:
    """The callback may stop the reading, and close the pipe."""

    async def main() -> None:
        source = Source()
        stopped: list[bytes] = []

        def stop(data: bytes) -> None:
            stopped.append(data)
            source.pipe.read_stop()
            source.changed.set()

        source.pipe._read_cb = stop
        for _ in range(3):
            os.write(source.fd, b"x" * 20_000)
            source.pipe.read_start()
            stopped.clear()
            await source.until(lambda: stopped)
            await asyncio.sleep(0.03)
            assert len(stopped) == 1
        os.write(source.fd, b"x")
        source.pipe._read_cb = lambda data: source.pipe.close()
        source.pipe.read_start()
        await source.until(lambda: source.closed)
        source.end()
        await asyncio.sleep(0.03)
        assert source.closed == 1

    run(main())


def test_pipe_drain(run: Run) -> None:
    """`drain` reads what is there, without the loop, and no more than a pipe holds."""

    async def main() -> None:
        source = Source()
        os.write(source.fd, b"x" * 30_000)
        source.pipe.drain()
        assert sum(map(len, source.reads)) == 30_000
        assert not source.pipe.closed
        os.write(source.fd, b"end")
        source.end()
        source.pipe.drain()
        assert source.reads[-1] == b"end"
        assert source.closed == 1

    run(main())


def test_pipe_of_short_lines(run: Run) -> None:
    """The shorter the lines, the smaller the reads: events are larger than lines."""

    async def main() -> None:
        source = Source()
        os.write(source.fd, b"\n" * 60_000)
        source.pipe.drain()
        assert b"".join(source.reads) == b"\n" * 60_000
        assert max(map(len, source.reads[1:])) <= 1024
        source.reads.clear()
        os.write(source.fd, b"x" * 60_000)
        source.pipe.drain()
        assert max(map(len, source.reads)) > 8192
        source.end()
        source.pipe.close()

    run(main())


def test_pipe_from_a_socket_that_is_reset(run: Run) -> None:
    """The end of an IPC socket with our words unread is an end of file like others."""

    async def main() -> None:
        child = Child("sleep", "1000", ipc=True)
        os.write(child.process.fds[2], b"unread\n")
        child.process.kill(signal.SIGKILL)
        assert (await child.end()).term_signal == signal.SIGKILL
        assert sorted(child.ends) == [1, 2, 3]

    run(main())


def test_pipes_are_large(run: Run) -> None:
    """The child may run ahead of the monitor by 256 KiB, if the kernel grants it."""

    async def main() -> None:
        process = spawn(ProcessOptions(["sleep", "1000"]))
        import fcntl

        sizes = [fcntl.fcntl(fd, 1032) for fd in process.fds[:2]]
        assert set(sizes) <= {256 * 1024, 64 * 1024, 4096}
        assert all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in process.fds)
        assert not any(os.get_blocking(fd) for fd in process.fds)
        process.close()
        close_all(process)

    run(main())


# From one program to the next.


def test_hand_over(run: Run) -> None:
    """A child can be handed to the program that takes this one's place."""

    async def main() -> None:
        process = spawn(ProcessOptions(["sh", "-c", "echo hi; exit 3"], ipc=True))
        described = process.hand_over()
        assert all(os.get_inheritable(fd) for fd in process.fds)
        adopted = Process.adopt(described)
        assert (adopted.pid, adopted.fds, adopted.ipc) == (
            process.pid,
            process.fds,
            True,
        )
        assert not any(os.get_inheritable(fd) for fd in process.fds)
        await until_exit(adopted)
        assert adopted.ended is not None
        assert adopted.ended.exit_status == 3
        close_all(adopted)

    run(main())


def test_ipc_is_for_node(run: Run) -> None:
    """Unless it is said, only node itself gets its channel."""
    for file, expected in ("node", True), ("/usr/bin/nodejs", True), ("npm", False):
        assert ProcessOptions([file]).ipc is expected
        assert ProcessOptions([file], ipc=not expected).ipc is not expected
