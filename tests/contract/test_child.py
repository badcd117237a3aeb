# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give the app what a program expects: its input, environment, descriptors, signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza import _native as native
from tests.conftest import CHILDREN, ROOT, MetricsServer

if TYPE_CHECKING:
    from tests.contract.conftest import Forza

TELLS = (sys.executable, "-S", CHILDREN / "tells.py")


def test_what_a_child_sees(forza: Forza) -> None:
    """Arguments, folder, environment and stdin are as given; forza is the parent of
    the parent: the guard is between them, where it was built."""
    program = forza.start(
        *("--", *TELLS, "--", "-h", "two words", "ü", ""),
        stdin=subprocess.PIPE,
        env={"GIVEN": "a=b c\nd", "ÜMLAUT": "é", "EMPTY": ""},
    )
    assert program.stdin is not None
    program.stdin.write(b"what it reads\n")
    ended = forza.wait(program)
    seen = orjson.loads(ended.text("logs/stdout"))
    assert seen["argv"] == ["--", "-h", "two words", "ü", ""]
    assert seen["cwd"] == str(ROOT)
    assert seen["stdin"] == "what it reads\n"
    parent = "grandparent" if native.path("guard") else "parent"
    assert seen[parent] == program.pid
    assert seen["leads_session"]
    (spawn,) = ended.of("health/process/spawn")
    assert spawn["meta"]["pid"] == seen["pid"]


@pytest.mark.parametrize("tunables", [None, "glibc.malloc.tcache_count=1"])
@pytest.mark.parametrize("late", [(), ("all", "forza.plugins.uptime:Uptime")])
def test_environment(forza: Forza, late: tuple[str, ...], tunables: str | None) -> None:
    """The environment is passed on as it is: nothing added (but for an ordinary user
    the bind hook, if it is not off), nothing lost. A foreign plugin makes it pass
    through the second stage, which has been told more by its own."""
    given = {"GIVEN": "a=b c\nd", "ÜMLAUT": "é", "EMPTY": "", "PYTHONPATH": "/mine"}
    if tunables is not None:
        given["GLIBC_TUNABLES"] = tunables
    plugins = [word for name in late for word in ("--plugin", name)]
    seen = tell(forza, *plugins, "--bind-hook", "off", env=given)["environ"]
    expected = {**os.environ, **given, "FORZA_TEST_RUN": forza.mark}
    expected.pop("FORZA_RUNTIME", None)
    seen.pop("FORZA_RUNTIME", None)
    # Python adds this to its own environment where the locale is C.
    seen.pop("LC_CTYPE", None)
    expected.pop("LC_CTYPE", None)
    assert seen == expected


def test_descriptors(forza: Forza) -> None:
    """The app has 0, 1, 2 and 3, and none of what forza has open."""
    read, write = os.pipe()
    try:
        # One that was left open by who started forza is not for the app either.
        seen = tell(forza, pass_fds=(write,))["descriptors"]
    finally:
        os.close(read)
        os.close(write)
    assert seen == {"0": "character device", "1": "pipe", "2": "pipe", "3": "pipe"}


def test_descriptors_with_ipc(forza: Forza) -> None:
    """With node's IPC descriptor 3 is a socket, and there is still no other."""
    seen = tell(forza, "--ipc", "yes")
    assert seen["descriptors"]["3"] == "socket"
    assert len(seen["descriptors"]) == 4
    assert seen["environ"]["NODE_CHANNEL_FD"] == "3"


def test_dev_stdout(forza: Forza) -> None:
    """The app may open /dev/stdout and /dev/stderr, as on any pipe."""
    ended = forza.run("--", "sh", "-c", "echo a >/dev/stdout; echo b >/dev/stderr")
    assert ended.text("logs/stdout") == "a\n"
    assert ended.text("logs/stderr") == "b\n"
    assert ended.status == 0


def test_signals(forza: Forza) -> None:
    """No signal is ignored or blocked in the app, whatever forza was given."""

    def ignore() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGCHLD})

    ended = forza.run(
        *("--", "grep", "-E", "^Sig(Ign|Blk):", "/proc/self/status"),
        preexec_fn=ignore,
        restore_signals=False,
    )
    lines = dict(line.split() for line in ended.text("logs/stdout").splitlines())
    assert set(lines) == {"SigIgn:", "SigBlk:"}
    # glibc ignores two of its own, 32 and 33, in all that it spawns.
    assert {int(mask, 16) & 0x7FFFFFFF for mask in lines.values()} == {0}


def test_sigpipe(forza: Forza) -> None:
    """`yes | head` ends, which it would not if SIGPIPE were ignored."""
    ended = forza.run("--", "bash", "-c", "yes | head -n 1; echo ${PIPESTATUS[0]}")
    assert ended.text("logs/stdout") == f"y\n{128 + signal.SIGPIPE}\n"


def test_stdin_is_inherited(forza: Forza, server: MetricsServer) -> None:
    """What forza is given on stdin the app reads, and forza does not."""
    program = forza.start(
        *("-h", server.address, "--", CHILDREN / "echoes.sh"), stdin=subprocess.PIPE
    )
    assert program.stdin is not None
    for word in "one", "two", "three":
        program.stdin.write(f"{word}\n".encode())
        program.stdin.flush()
        server.wait_for("logs/stdout", containing=word)
    assert forza.wait(program).status == 0


def test_closed_stdio(forza: Forza) -> None:
    """Started with stdin and stderr closed, forza still runs the app rightly."""

    def close() -> None:
        os.close(0)
        os.close(2)

    ended = forza.run(
        *("--", "sh", "-c", "echo out; echo err >&2; exit 5"),
        stdin=None,
        stderr=None,
        preexec_fn=close,
    )
    assert ended.status == 5
    assert ended.text("logs/stdout") == "out\n"
    assert ended.text("logs/stderr") == "err\n"


def tell(forza: Forza, *options: str, **settings: Any) -> dict[str, Any]:
    """Run the child that tells what it sees."""
    ended = forza.run(*options, "--", *TELLS, **settings)
    seen: dict[str, Any] = orjson.loads(ended.text("logs/stdout"))
    return seen
