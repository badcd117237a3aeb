# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Limits leave no trace on us, and a child that cannot have them does not stay."""

from __future__ import annotations

import os
import resource

import pytest

import forza
from forza._process import ProcessOptions
from forza._spawn import spawn


def ours() -> tuple[object, ...]:
    """Return our own limits."""
    return (
        resource.getrlimit(resource.RLIMIT_NOFILE),
        resource.getrlimit(resource.RLIMIT_CORE),
        os.sched_getaffinity(0),
        os.getpriority(os.PRIO_PROCESS, 0),
    )


@pytest.mark.parametrize("native", ["", "no"])
def test_the_child_s_alone(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    """Whether the spawn works or not, our own limits are what they were."""
    monkeypatch.setenv("FORZA_NATIVE", native)
    before = ours()
    cpus = (min(os.sched_getaffinity(0)),)
    limits = {"nofile": 64, "core": 0, "nice": 5, "cpus": cpus}
    process = spawn(ProcessOptions(["sleep", "1000"], limits=limits))
    assert ours() == before
    assert os.sched_getaffinity(process.pid) == set(cpus)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 5
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (64, 64)
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
    for fd in process.fds:
        os.close(fd)
    process.close()
    with pytest.raises(forza.SpawnError, match="command not found"):
        spawn(ProcessOptions(["no-such-command"], limits=limits))
    with pytest.raises(forza.SpawnError, match="cannot set --cpus 1023"):
        spawn(ProcessOptions(["true"], limits={"nofile": 64, "cpus": (1023,)}))
    assert ours() == before


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"nofiles": 64}, "unknown limit 'nofiles'; there are core, cpus, memory_hard"),
        ({"nofile": 15}, "--nofile must be from 16 to 1048576, not 15"),
        ({"nofile": "64"}, "--nofile must be a whole number, not '64'"),
        ({"nofile": True}, "--nofile must be a whole number, not True"),
        ({"nice": 20}, "--nice must be from -20 to 19, not 20"),
        ({"core": -2}, "--core must be bytes, or -1 for unlimited, not -2"),
        ({"core": 1 << 63}, "--core must be bytes, or -1 for unlimited"),
        ({"memory_soft": 1}, "--memory-soft must be at least 16M, not 1"),
        ({"memory_hard": 6.5e7}, "--memory-hard must be a whole number"),
        ({"cpus": "0-1"}, "--cpus must be a list of processors, not '0-1'"),
        ({"cpus": ()}, "--cpus must be a list of processors"),
        ({"cpus": [-1]}, "--cpus must be a list of processors"),
        (
            {"memory_soft": 1 << 27, "memory_hard": 1 << 26},
            "--memory-soft must be less than --memory-hard",
        ),
    ],
)
def test_what_cannot_be_meant(limits: dict[str, object], problem: str) -> None:
    """A program's limits are looked at as a command line's are."""
    with pytest.raises(forza.UsageError) as caught:
        forza.Monitor(["true"], limits=limits)
    assert str(caught.value).startswith(problem)


def test_what_is_left_out() -> None:
    """None stands for no limit."""
    forza.Monitor(["true"], limits={"nofile": None, "cpus": [0], "core": -1})


@pytest.mark.skipif(os.getuid() != 0, reason="must become another user")
@pytest.mark.parametrize("native", ["", "no"])
def test_limits_come_before_the_user(
    monkeypatch: pytest.MonkeyPatch, native: str
) -> None:
    """What only root may have is set before the app is somebody else."""
    monkeypatch.setenv("FORZA_NATIVE", native)
    options = ProcessOptions(
        ["sleep", "1000"], uid=65534, gid=65534, limits={"nice": -5, "nofile": 64}
    )
    process = spawn(options)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == -5
    with open(f"/proc/{process.pid}/limits", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("Max open files"))
    assert line.split()[3:5] == ["64", "64"]
    assert os.stat(f"/proc/{process.pid}").st_uid == 65534
    for fd in process.fds:
        os.close(fd)
    process.close()


@pytest.mark.skipif(os.getuid() != 0, reason="must become another user")
def test_no_child_without_its_limits() -> None:
    """A niceness that only root may give is refused, and the child is gone again."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
            try:
                spawn(ProcessOptions(["/bin/sleep", "1000"], limits={"nice": -5}))
            except forza.SpawnError as error:
                told = "cannot set --nice -5: " in str(error) and error.code == 125
                code = 0 if told else 2
            try:
                os.waitpid(-1, os.WNOHANG)
                code = 3
            except ChildProcessError:
                pass
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
