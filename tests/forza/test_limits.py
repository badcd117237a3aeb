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


def test_ours_are_back() -> None:
    """Whether the spawn works or not, our own limits are afterwards what they were."""
    before = ours()
    cpus = (min(os.sched_getaffinity(0)),)
    limits = {"nofile": 64, "core": 0, "nice": 5, "cpus": cpus}
    process = spawn(ProcessOptions(["sleep", "1000"], limits=limits))
    assert ours() == before
    assert os.sched_getaffinity(process.pid) == set(cpus)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 5
    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (64, 64)
    for fd in process.fds:
        os.close(fd)
    process.close()
    with pytest.raises(forza.SpawnError, match="command not found"):
        spawn(ProcessOptions(["no-such-command"], limits=limits))
    with pytest.raises(forza.SpawnError, match="cannot set --cpus 1023"):
        spawn(ProcessOptions(["true"], limits={"nofile": 64, "cpus": (1023,)}))
    assert ours() == before


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
