# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell every ending as it was, each status and each signal; and be PID 1."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forza as library
from tests.conftest import CHILDREN, PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MetricsServer
    from tests.contract.conftest import Forza

CLONE_NEWUSER = 0x10000000
MEMORY = Path("/sys/fs/cgroup/memory")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may do this")


@pytest.mark.parametrize("native", ["", "no"])
def test_every_status(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    """All 256, each exactly, with the guard and without."""
    monkeypatch.setenv("FORZA_NATIVE", native)

    async def main() -> None:
        for status in range(256):
            command = ["sh", "-c", f"exit {status}"]
            ended = await library.run(command, to=[], plugins=[])
            told = ended.code, ended.exit_status, ended.term_signal, ended.reason
            assert told == (status, status, 0, "exit")

    asyncio.run(main())


FATAL = sorted(
    signal.valid_signals()
    - {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
    - {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
)


@pytest.mark.parametrize("native", ["", "no"])
def test_every_signal(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    """Each that ends a process by default is named, and is 128 + its number."""
    monkeypatch.setenv("FORZA_NATIVE", native)

    async def main() -> None:
        for number in map(int, FATAL):
            kill = f"import os; os.kill(os.getpid(), {number})"
            reset = f"import signal; signal.signal({number}, signal.SIG_DFL); "
            reset = "" if number == signal.SIGKILL else reset
            command = [sys.executable, "-S", "-c", reset + kill]
            ended = await library.run(command, to=[], plugins=[])
            told = ended.code, ended.exit_status, ended.term_signal
            assert told == (128 + number, 0, number)
            assert ended.reason.startswith("signal:")

    asyncio.run(main())


@pytest.mark.parametrize("native", ["", "no"])
@pytest.mark.parametrize(
    ("name", "most"), [("ABRT", "unlimited"), ("SEGV", "unlimited"), ("ABRT", "0")]
)
def test_core(
    lean_forza: Forza, tmp_path: Path, native: str, name: str, most: str
) -> None:
    """The exit event says that there is a core if, and only if, there is one."""
    script = f"import os; os.kill(os.getpid(), {int(signal.Signals[f'SIG{name}'])})"
    app = sys.executable, "-S", "-c", script
    # What the kernel does with cores here it says itself: a pipe may lack its reader.
    limit = f"ulimit -c {most} && cd {tmp_path} && exec"
    pid = os.spawnvp(os.P_NOWAIT, "sh", ["sh", "-c", f'{limit} "$@"', "sh", *app])
    dumps = os.WCOREDUMP(os.waitpid(pid, 0)[1])
    if most != "0" and not dumps:
        pytest.skip("this kernel writes no cores")
    ended = lean_forza.run(
        *("--core", most, "--cwd", tmp_path, "--", *app), env={"FORZA_NATIVE": native}
    )
    last = ended.events[-1]["meta"]
    assert (last["signal"], last["reason"]) == (f"SIG{name}", f"signal:{name}")
    assert last.get("core", False) == dumps
    # Where cores are plain files, here it is.
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" not in pattern and "|" not in pattern:
        assert any(map(Path.is_file, tmp_path.glob("core*"))) == dumps


@as_root
def test_user_and_folder(lean_forza: Forza) -> None:
    """What is in the way of an app that never ran has a status of its own."""
    unshare = ctypes.CDLL(None).unshare
    for options, status, reason, flags in (
        (("--cwd", "/no/such/folder"), 122, "bad cwd", 0),
        # In a user namespace without a mapping nobody may become anybody.
        (("--user", "7:8"), 123, "bad user", CLONE_NEWUSER),
    ):
        ended = lean_forza.run(
            *options, "--", "true", preexec_fn=lambda n=flags: unshare(n)
        )
        assert ended.status == status
        assert ended.events[-1]["meta"]["reason"] == reason
        assert ended.events[-1]["description"] == str(status)
        assert ended.of("health/process/spawn") == []
        assert ended.stderr.count("\n") == 1
    ended = lean_forza.run("--user", "7:8", "--cwd", "/", "--", "sh", "-c", "id; pwd")
    assert "uid=7(" in ended.text("logs/stdout")
    assert "gid=8(" in ended.text("logs/stdout")
    assert ended.text("logs/stdout").endswith("\n/\n")


@pytest.fixture
def small() -> Iterator[Path]:
    """A cgroup that has little memory."""
    if not (MEMORY / "memory.limit_in_bytes").exists():
        pytest.skip("no memory controller of version 1 here")
    group = MEMORY / f"forza-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(96 << 20))
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    yield group
    for pid in (group / "cgroup.procs").read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    group.rmdir()


@as_root
def test_oom(lean_forza: Forza, server: MetricsServer, small: Path) -> None:
    """An app that the kernel kills for want of memory is told from one that is shot."""
    greedy = "import time; input(); x = b'1' * (300 << 20); time.sleep(60)"
    program = lean_forza.start(
        *("-h", server.address, "--", sys.executable, "-S", "-c", greedy),
        stdin=subprocess.PIPE,
        preexec_fn=lambda: (small / "cgroup.procs").write_text(str(os.getpid())),
    )
    server.wait_for("health/process/heartbeat")
    assert program.stdin is not None
    program.stdin.write(b"now\n")
    assert lean_forza.wait(program).status == 137
    (last,) = server.of("health/process/exit")
    assert last["meta"]["signal"] == "SIGKILL"
    assert last["meta"]["reason"] == "oom"
    ended = lean_forza.run(
        *("--", "sh", "-c", "kill -KILL $$"),
        preexec_fn=lambda: (small / "cgroup.procs").write_text(str(os.getpid())),
    )
    assert ended.events[-1]["meta"]["reason"] == "signal:KILL"


@as_root
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_oom_at_once(lean_forza: Forza, small: Path, tmp_path: Path) -> None:
    """An app that is killed as soon as it runs is told as any other."""
    greedy = tmp_path / "greedy"
    command = ["cc", "-O1", "-o", str(greedy), str(CHILDREN / "greedy.c")]
    subprocess.run(command, check=True)
    for _ in range(10):
        ended = lean_forza.run(
            *("--", greedy, 300),
            preexec_fn=lambda: (small / "cgroup.procs").write_text(str(os.getpid())),
        )
        assert ended.status == 137
        assert ended.events[-1]["meta"]["reason"] == "oom"


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no unshare")
@pytest.mark.parametrize("native", ["", "no"])
def test_as_pid_1(tmp_path: Path, native: str) -> None:
    """Signals are passed on, zombies from elsewhere are reaped, the status is told."""
    script = (
        "trap 'exit 6' TERM; echo $PPID; "
        "sh -c 'sleep 0.2 & exit' & wait; echo ready; while :; do sleep 0.05; done"
    )
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command += [sys.executable, "-m", "forza", "--to", f"file:{tmp_path}/events", "--"]
    program = subprocess.Popen(
        [*command, "sh", "-c", f"{script}"],
        cwd=ROOT,
        env={**os.environ, "FORZA_NATIVE": native},
    )
    try:
        inner = None
        while inner is None or "ready" not in (tmp_path / "events").read_text():
            assert program.poll() is None
            words = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
            inner = int(words) if words.strip() else None
            if not (tmp_path / "events").exists():
                inner = None
        # Somebody enters the container, and leaves an orphan there.
        enter = ["nsenter", "--target", str(inner), "--pid", "--mount"]
        subprocess.run(
            [*enter, "sh", "-c", "sleep 0.1 & :"], check=True, timeout=PATIENCE
        )
        look = "grep -l '^State:.Z' /proc/[0-9]*/status"
        while (
            subprocess.run(
                [*enter, "sh", "-c", look], check=False, stdout=-3, stderr=-3
            ).returncode
            == 0
        ):
            assert program.poll() is None
        assert inner is not None
        os.kill(inner, signal.SIGTERM)
        assert program.wait(PATIENCE) == 6
    finally:
        program.kill()
        program.wait()
