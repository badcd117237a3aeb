# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The seven plugins one by one (cpu and mem have a file of their own)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forza
from forza import plugins
from forza._process import Exit
from forza.plugins.logs import Logs
from forza.plugins.process import Process
from forza.plugins.start import Start
from forza.testing import FakeMonitor, Sent, check_plugin
from tests.forza.conftest import run_on

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

LONGEST = 64 * 1024


def on_a_loop(test: Callable[[FakeMonitor], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine with a monitor whose time stands still."""

    async def main() -> None:
        await test(FakeMonitor())

    run_on(asyncio.new_event_loop)(main())


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel a plugin's coroutine, as the app's end does."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


# Names.


def test_all_seven() -> None:
    """There are seven, each found by its name."""
    names = "cpu mem logs heartbeat uptime start process"
    assert " ".join(plugins.ALL) == names
    for name in plugins.ALL:
        assert plugins.is_known(name)
        assert plugins.name_of(plugins.find(name)) == name


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ([], []),
        (["all"], list(plugins.ALL)),
        (["process", "logs"], ["logs", "process"]),
        (["logs", "logs", "a:b", "a:b"], ["logs", "a:b"]),
        (["all", "a:b"], [*plugins.ALL[:-1], "a:b", "process"]),
        (["process", Logs], [Logs, "process"]),
    ],
)
def test_order(wanted: list[Any], expected: list[Any]) -> None:
    """Each plugin is loaded once, and `process`, which has the last word, last."""
    assert plugins.in_order(wanted) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cpu", "cpu"),
        ("my.disk:Disk", "disk"),
        ("a:B.C", "c"),
        ("a:make_it", "make_it"),
    ],
)
def test_short_name(name: str, expected: str) -> None:
    """A plugin's options begin with the last part of its name."""
    assert plugins.short_name(name) == expected


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "", "1e999", "\u0661x"])
def test_bad_number(text: str) -> None:
    """An option that must be a number above 0 is not anything else."""
    with pytest.raises(forza.PluginError) as caught:
        plugins.number("cpu", {"interval": text}, "interval", 5.0)
    expected = f"--cpu-interval must be a number above 0, not '{text}'"
    assert str(caught.value) == expected


def test_number() -> None:
    """A number is taken in any way of writing it, or is the default."""
    for text, expected in ("5", 5.0), (".5", 0.5), ("1e2", 100.0), (None, 7.0):
        options = {} if text is None else {"n": text}
        assert plugins.number("p", options, "n", 7.0) == expected


@pytest.mark.parametrize("name", plugins.ALL)
def test_whole_life(name: str) -> None:
    """Each of the seven goes through a whole life, and its events are in order."""

    async def main() -> list[Sent]:
        return await check_plugin(name)

    sent = run_on(asyncio.new_event_loop)(main())
    assert sent


# Heartbeat and uptime.


def test_heartbeat() -> None:
    """At once, and then every 90 s."""

    async def test(monitor: FakeMonitor) -> None:
        task = asyncio.create_task(plugins.load("heartbeat", monitor, {}).run())
        await monitor.advance(0.0)
        assert monitor.sent == [Sent("health/process/heartbeat", 1.0, None, {})]
        await monitor.advance(89.9)
        assert len(monitor.sent) == 1
        await monitor.advance(0.2)
        assert len(monitor.sent) == 2
        await monitor.advance(900)
        assert len(monitor.sent) == 12
        task.cancel()

    on_a_loop(test)


def test_uptime() -> None:
    """The seconds since the spawn, in the rhythm asked for."""

    async def test(monitor: FakeMonitor) -> None:
        options = {"uptime": {"interval": "0.5"}}
        task = asyncio.create_task(plugins.load("uptime", monitor, options).run())
        await monitor.advance(1.6)
        assert [sent.service for sent in monitor.sent] == ["health/process/uptime"] * 4
        assert [sent.metric for sent in monitor.sent] == [0.0, 0.5, 1.0, 1.5]
        task.cancel()

    on_a_loop(test)


# Process.


@pytest.mark.parametrize(
    ("exit", "description", "meta"),
    [
        (Exit(0, 0), "0", {"code": 0, "reason": "exit"}),
        (Exit(127, 0), "127", {"code": 127, "reason": "exit"}),
        (Exit(0, 9), "137", {"signal": "SIGKILL", "reason": "signal:KILL"}),
        (Exit(0, 6), "134", {"signal": "SIGABRT", "reason": "signal:ABRT"}),
        (Exit(0, 17), "145", {"signal": "SIGCHLD", "reason": "signal:CHLD"}),
        (Exit(0, 29), "157", {"signal": "SIGIO", "reason": "signal:IO"}),
        (Exit(0, 34), "162", {"signal": "SIGRTMIN", "reason": "signal:RTMIN"}),
        (Exit(0, 40), "168", {"signal": "SIG40", "reason": "signal:40"}),
        (
            Exit(0, 11, core=True),
            "139",
            {"signal": "SIGSEGV", "reason": "signal:SEGV", "core": True},
        ),
    ],
    ids=repr,
)
def test_process(exit: Exit, description: str, meta: dict[str, object]) -> None:
    """The exit event says how it ended, as a shell would and in a word."""
    if meta.get("signal") == "SIGIO" and signal.Signals(29).name == "SIGPOLL":
        meta = {"signal": "SIGPOLL", "reason": "signal:POLL"}

    async def test(monitor: FakeMonitor) -> None:
        plugin = Process(monitor, {})
        plugin.process_spawned(cast("forza.Process", None))
        monitor.ended = exit
        plugin.process_exit(exit.exit_status, exit.term_signal)
        assert monitor.sent == [
            Sent("health/process/spawn", 1.0, None, {}),
            Sent("health/process/exit", 1.0, description, meta),
        ]

    on_a_loop(test)


@pytest.mark.parametrize(
    ("status", "reason"), [(127, "not found"), (126, "not executable")]
)
def test_process_that_never_was(status: int, reason: str) -> None:
    """Without a spawn the status is forza's own, and says why there was none."""

    async def test(monitor: FakeMonitor) -> None:
        monitor.ended = Exit(status, 0, reason=reason)
        Process(monitor, {}).process_exit(status, 0)
        (sent,) = monitor.sent
        assert sent.description == str(status)
        assert sent.meta == {"code": status, "reason": reason}

    on_a_loop(test)


# Start.


def test_start() -> None:
    """The first port is the start, once; others are listens; no time-out follows."""

    async def test(monitor: FakeMonitor) -> None:
        plugin = Start(monitor, {})
        task = asyncio.create_task(plugin.run())
        plugin.stdout_data(b"listening\n")
        plugin.ipc_data(b"port=80")
        plugin.ipc_data(b'"port=81"')
        await monitor.advance(100.0)
        plugin.process_exit(0, 0)
        await stop(task)
        assert monitor.sent == [
            Sent("health/process/start", 1.0, None, {"ready": "port", "port": 80}),
            Sent("health/process/listen", 1.0, None, {"port": 81}),
        ]

    on_a_loop(test)


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"port=", b"port=0", b"port=65536", b"port=-1", b"port= 1", b"PORT=1"),
        *(
            b"port=1x",
            b"xport=1",
            b"port",
            b"port=" + b"9" * 5000,
            b"\xff",
            b"port=\xb2",
        ),
        *("port=\u0663".encode(), b"port=1\0", b"port==1", b"support=80"),
    ],
    ids=lambda message: message[:12],
)
def test_no_port(message: bytes) -> None:
    """What is no port is no start, and no failure of the plugin's."""

    async def test(monitor: FakeMonitor) -> None:
        Start(monitor, {}).ipc_data(message)
        assert monitor.sent == []

    on_a_loop(test)


def test_start_timeout() -> None:
    """After 15 s without a start: start 0, the output so far; a late start is told."""

    async def test(monitor: FakeMonitor) -> None:
        plugin = Start(monitor, {})
        task = asyncio.create_task(plugin.run())
        plugin.stdout_data(b"one\n")
        plugin.stderr_data(b"t\xffwo\n")
        await monitor.advance(14.9)
        assert monitor.sent == []
        await monitor.advance(0.2)
        await stop(task)
        meta = {"reason": "timeout"}
        expected = Sent("health/process/start", 0.0, "one\nt\ufffdwo\n", meta)
        assert monitor.sent == [expected]
        plugin.stdout_data(b"more\n")
        plugin.ipc_data(b"port=80")
        plugin.process_exit(0, 0)
        assert monitor.sent[1:] == [
            Sent("health/process/late", 1.0, None, {"ready": "port", "port": 80})
        ]

    on_a_loop(test)


def test_death_before_start() -> None:
    """An app that dies before it has started is told with all it has said."""

    async def test(monitor: FakeMonitor) -> None:
        plugin = Start(monitor, {"timeout": "60"})
        plugin.stderr_data(b"no such module\n")
        plugin.process_exit(1, 0)
        assert monitor.sent == [
            Sent("health/process/start", 0.0, "no such module\n", {"reason": "exit"})
        ]

    on_a_loop(test)


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_output_so_far_is_bounded(sizes: list[int]) -> None:
    """Of the output so far, only the last 64 KiB are told, and little more is kept."""

    async def test(monitor: FakeMonitor) -> None:
        plugin = Start(monitor, {})
        said = b""
        for number, size in enumerate(sizes):
            data = b"%d" % (number % 10) * size
            said += data
            plugin.stdout_data(data)
            assert plugin._output is not None
            assert len(plugin._output) <= 2 * LONGEST
        plugin.process_exit(1, 0)
        (sent,) = monitor.sent
        assert sent.description == said[-LONGEST:].decode()
        assert plugin._output is None

    on_a_loop(test)


def test_start_log(tmp_path: Path) -> None:
    """The first start event, good or bad, is the one line of the start log."""
    path = tmp_path / "start.log"
    path.write_text("of an earlier life\n")

    async def test(monitor: FakeMonitor) -> None:
        monitor.start_log = str(path)
        plugin = Start(monitor, {"timeout": "1"})
        assert path.read_text() == ""
        await monitor.advance(0.0)
        task = asyncio.create_task(plugin.run())
        await monitor.advance(2.0)
        await stop(task)
        line = path.read_text()
        plugin.ipc_data(b"port=80")
        plugin.process_exit(0, 0)
        assert path.read_text() == line
        event = json.loads(line)
        assert line.endswith("}\n")
        assert event["service"] == "health/process/start"
        assert event["metric"] == 0
        assert path.stat().st_mode & 0o777 == 0o644 & ~umask()

    on_a_loop(test)


def umask() -> int:
    """Return the mask of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
