# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The monitor as a library: on any loop, several at once, and plugins of all kinds."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import select
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import forza
from forza import _native as native
from forza.testing import MetricsServer
from tests.conftest import CHILDREN, ROOT
from tests.forza.conftest import PATIENCE, Run, Watched, children, descriptors, of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Says that it is ready, and that it has been asked to end.
POLITE = "trap 'echo stopped; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
# Says that it is ready, and does not care.
DEAF = "trap 'echo deaf' TERM; echo ready; while :; do sleep 0.01; done"


class Base:
    """What most plugins here have in common."""

    def __init__(self, monitor: forza.Monitor, options: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.options = options

    async def run(self) -> None:
        pass


class Ready(Base):
    """Lets a test wait for the app's first word."""

    events: dict[forza.Monitor, asyncio.Event] = {}  # noqa: RUF012

    def __init__(self, monitor: forza.Monitor, options: Mapping[str, str]) -> None:
        super().__init__(monitor, options)
        self.events[monitor] = asyncio.Event()

    def stdout_data(self, data: bytes) -> None:
        if b"ready" in data:
            self.events[self.monitor].set()


ALL = ("all", Ready)


async def ready(monitor: forza.Monitor) -> None:
    """Wait until the app has said that it is ready."""
    async with asyncio.timeout(PATIENCE):
        await Ready.events[monitor].wait()


def wait_until_dead(pid: int) -> None:
    """Wait until somebody else's child is gone, or only waits to be reaped."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([pidfd], [], [], PATIENCE)
    os.close(pidfd)
    assert ready


# Running.


def test_run(run: Run, watched: Watched) -> None:
    """`run` returns how the app ended, once all its events are written."""

    async def main() -> None:
        ended = await watched.run(["sh", "-c", "echo one; echo two >&2; exit 5"])
        assert (ended.exit_status, ended.term_signal, ended.code) == (5, 0, 5)
        assert watched.said == []
        assert watched.text("logs/stdout") == "one\n"
        assert watched.text("logs/stderr") == "two\n"
        last = watched.events[-1]
        assert last["service"] == "health/process/exit"
        assert last["description"] == "5"
        numbers = [event["meta"]["seq"] for event in watched.events]
        assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))

    run(main())


def test_run_takes_what_a_monitor_takes(run: Run, watched: Watched) -> None:
    """`forza.run` itself, with its settings."""

    async def main() -> None:
        ended = await forza.run(
            ["sh", "-c", "echo $WHO $PWD"],
            to=[watched.url],
            plugins=["logs"],
            hostname="here",
            app_user="u",
            app_name="n",
            env={"WHO": "me", "PATH": os.environ["PATH"]},
            cwd="/usr",
        )
        assert ended.code == 0

    run(main())
    (event,) = watched.events
    assert event["description"] == "me /usr\n"
    assert event["host"] == "here"
    assert event["meta"]["app"] == {"user": "u", "name": "n"}


def test_block(run: Run, watched: Watched) -> None:
    """Within the block the app runs, and the monitor knows its process."""

    async def main() -> None:
        async with watched.monitor(["sh", "-c", POLITE], plugins=ALL) as monitor:
            assert monitor.process is not None
            await ready(monitor)
            (spawn,) = watched.of("health/process/spawn")
            assert spawn["meta"]["pid"] == monitor.process.pid
            assert monitor.ended is None
            monitor.stop()
            ended = await monitor.wait()
        assert ended.code == 3
        assert monitor.ended is ended
        assert watched.text("logs/stdout") == "ready\nstopped\n"

    run(main())


def test_block_left_early(run: Run, watched: Watched) -> None:
    """Leaving the block stops the app, and its last words are not lost."""

    async def main() -> None:
        async with watched.monitor(["sh", "-c", POLITE], plugins=ALL) as monitor:
            await ready(monitor)
        assert monitor.ended is not None
        assert monitor.ended.code == 3
        assert watched.text("logs/stdout") == "ready\nstopped\n"
        assert watched.events[-1]["service"] == "health/process/exit"

    run(main())


def test_block_left_by_an_error(run: Run, watched: Watched) -> None:
    """An error in the block stops the app, and is passed on."""

    async def main() -> None:
        monitor = watched.monitor(["sh", "-c", POLITE], plugins=ALL)

        async def block() -> None:
            async with monitor:
                await ready(monitor)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await block()
        assert monitor.ended is not None
        assert watched.text("logs/stdout") == "ready\nstopped\n"

    run(main())


def test_cancelled_run(run: Run, watched: Watched) -> None:
    """Who cancels `run` stops the app first; the cancellation goes through."""

    async def main() -> None:
        monitor = watched.monitor(["sh", "-c", POLITE], plugins=ALL)

        async def whole() -> forza.Exit:
            async with monitor:
                return await monitor.wait()

        task = asyncio.create_task(whole())
        await asyncio.sleep(0)
        while monitor not in Ready.events:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await ready(monitor)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watched.text("logs/stdout") == "ready\nstopped\n"
        assert watched.events[-1]["service"] == "health/process/exit"

    run(main())


def test_time_out(run: Run, watched: Watched) -> None:
    """A time-out around `run` is one to the caller, and the app is gone."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await watched.run(["sleep", "1000"])
        assert watched.events[-1]["meta"]["signal"] == "SIGTERM"

    run(main())


def test_waiters(run: Run, watched: Watched) -> None:
    """Many may wait; one that is cancelled takes nothing from the others."""

    async def main() -> None:
        async with watched.monitor(["sh", "-c", "read x; exit 2"]) as monitor:
            waiters = [asyncio.create_task(monitor.wait()) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[0].cancel()
            ended = await monitor.wait()
            assert ended.code in (0, 2)
            with pytest.raises(asyncio.CancelledError):
                await waiters[0]
            assert [await waiter for waiter in waiters[1:]] == [ended, ended]
        assert await monitor.wait() is ended

    run(main())


def test_stop_and_stop_again(run: Run, watched: Watched) -> None:
    """A second `stop` does not wait for a grace of an hour."""

    async def main() -> None:
        async with watched.monitor(
            ["sh", "-c", DEAF], plugins=ALL, grace=3600.0
        ) as monitor:
            await ready(monitor)
            monitor.stop()
            while "deaf" not in watched.text("logs/stdout"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert monitor.ended is None
            monitor.stop()
            ended = await monitor.wait()
            assert ended.term_signal == signal.SIGKILL
            monitor.stop()
            monitor.kill(signal.SIGKILL)

    run(main())


def test_grace(run: Run, watched: Watched) -> None:
    """An app that does not care is killed when its grace is over."""

    async def main() -> None:
        async with watched.monitor(
            ["sh", "-c", DEAF], plugins=ALL, grace=0.1
        ) as monitor:
            await ready(monitor)
        assert monitor.ended is not None
        assert monitor.ended.term_signal == signal.SIGKILL

    run(main())


def test_stop_with_another_signal(run: Run, watched: Watched) -> None:
    """`stop` and `kill` pass the signal that they are given."""

    async def main() -> None:
        script = "trap 'echo usr' USR1; trap 'echo int; exit 0' INT; echo ready; " + (
            "while :; do sleep 0.01; done"
        )
        async with watched.monitor(["sh", "-c", script], plugins=ALL) as monitor:
            await ready(monitor)
            monitor.kill(signal.SIGUSR1)
            while "usr" not in watched.text("logs/stdout"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            monitor.stop(signal.SIGINT)
            assert (await monitor.wait()).code == 0
        assert watched.text("logs/stdout") == "ready\nusr\nint\n"

    run(main())


def test_stop_after_the_end_does_not_wait_for_a_server(run: Run) -> None:
    """Once the app has ended, `stop` gives up what could not be delivered."""

    async def main() -> None:
        said: list[str] = []
        with __import__("socket").socket() as dead:
            dead.bind(("127.0.0.1", 0))
            async with forza.Monitor(
                ["true"],
                to=[f"tcp:127.0.0.1:{dead.getsockname()[1]}"],
                flush_timeout=3600.0,
                say=said.append,
            ) as monitor:
                while monitor.ended is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                waiting = asyncio.create_task(monitor.wait())
                while not waiting.done():
                    monitor.stop()
                    await asyncio.sleep(0.005)
        assert "events were not delivered" in said[-1]

    run(main())


def test_two_monitors(run: Run, tmp_path: Path) -> None:
    """Two at once have nothing in common: not their events, their boot, their end."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = Watched(tmp_path / "a"), Watched(tmp_path / "b")

    async def main() -> None:
        async with a.monitor(["sh", "-c", POLITE], plugins=ALL) as first:
            await ready(first)
            ended = await b.run(["sh", "-c", "echo other; exit 1"], plugins=["all"])
            assert ended.code == 1
            assert first.ended is None
        assert first.ended is not None

    run(main())
    assert a.text("logs/stdout") == "ready\nstopped\n"
    assert b.text("logs/stdout") == "other\n"
    boots = [{e["meta"]["boot"] for e in w.events} for w in (a, b)]
    assert [len(boot) for boot in boots] == [1, 1]
    assert boots[0] != boots[1]
    pids = [{e["meta"].get("pid") for e in w.events} for w in (a, b)]
    assert not pids[0] & pids[1]


def test_many_monitors(run: Run, watched: Watched) -> None:
    """Thirty at once, to one file, each with its own output and status."""

    async def main() -> None:
        ended = await asyncio.gather(
            *(watched.run(["sh", "-c", f"echo {n}; exit {n}"]) for n in range(30))
        )
        assert [exit.code for exit in ended] == list(range(30))
        said = sorted(int(e["description"]) for e in watched.of("logs/stdout"))
        assert said == list(range(30))
        assert len({e["meta"]["boot"] for e in watched.events}) == 30

    run(main())


def test_one_after_the_other(run: Run, watched: Watched) -> None:
    """A hundred monitors later, no descriptor, child or task is left."""

    async def main() -> None:
        before = descriptors(), children(), asyncio.all_tasks()
        for _ in range(100):
            await watched.run(["true"])
        assert (descriptors(), children(), asyncio.all_tasks()) == before

    run(main())


def test_no_sink(run: Run) -> None:
    """Events may go nowhere at all."""

    async def main() -> None:
        assert (await forza.run(["echo", "hi"], to=[])).code == 0

    run(main())


def test_no_plugins(run: Run, watched: Watched) -> None:
    """Without plugins the app still runs, and nothing is said about it."""

    async def main() -> None:
        assert (await watched.run(["echo", "hi"], plugins=[])).code == 0
        assert watched.events == []

    run(main())


def test_words_go_to_the_log(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A library's words go to the logger `forza`: problems as warnings."""

    async def main() -> None:
        async with MetricsServer() as server:
            await forza.run(["true"], to=[server.url])
        await forza.run(["true"], to=["file:/dev/full"], flush_timeout=0.0)

    with caplog.at_level(logging.INFO, "forza"):
        run(main())
    connected, *problems = caplog.records
    assert {record.name for record in caplog.records} == {"forza"}
    assert connected.levelno == logging.INFO
    assert connected.getMessage().startswith("connected to 127.0.0.1:")
    assert {record.levelno for record in problems} == {logging.WARNING}
    assert "not delivered" in problems[-1].getMessage()


def test_beside_asyncio_subprocesses(run: Run, watched: Watched) -> None:
    """A program's own subprocesses and forza's do not take each other's children."""

    async def main() -> None:
        async def own(status: int) -> int:
            program = await asyncio.create_subprocess_exec(
                "sh", "-c", f"exit {status}", stdin=subprocess.DEVNULL
            )
            return await program.wait()

        pairs = [(own(n), watched.run(["sh", "-c", f"exit {n}"])) for n in range(8)]
        for n, (mine, its) in enumerate(pairs):
            status, ended = await asyncio.gather(mine, its)
            assert status == ended.code == n

    run(main())


# The app's output and what is left of it.


@pytest.mark.parametrize("escape", ["", "setsid "], ids=["same group", "own session"])
def test_grandchild_holds_the_output_open(
    run: Run, watched: Watched, escape: str
) -> None:
    """The end waits for it no longer than a moment, wherever it hides."""

    async def main() -> None:
        script = f"{escape}sleep 1000 & echo $!; exit 4"
        async with asyncio.timeout(10.0):
            ended = await watched.run(["sh", "-c", script])
        assert ended.code == 4

    run(main())
    pid = int(watched.text("logs/stdout"))
    if escape and native.path("guard") is None:
        os.kill(pid, signal.SIGKILL)  # the group is all that goes with the app
    wait_until_dead(pid)
    assert watched.events[-1]["service"] == "health/process/exit"


def test_grandchild_floods(run: Run, watched: Watched) -> None:
    """A grandchild that never stops writing does not keep the monitor either."""

    async def main() -> None:
        script = "yes flood & echo ready; exit 4"
        async with asyncio.timeout(15.0):
            ended = await watched.run(
                ["sh", "-c", script], plugins=["start", "process"]
            )
        assert ended.code == 4

    run(main())
    assert watched.events[-1]["service"] == "health/process/exit"


def test_all_output_comes_before_the_end(run: Run, watched: Watched) -> None:
    """However much is in the pipes at the exit, the exit event is last."""

    async def main() -> None:
        ended = await watched.run(
            [sys.executable, "-S", str(CHILDREN / "flood.py"), "20000"]
        )
        assert ended.code == 0

    run(main())
    lines = [event["description"] for event in watched.of("logs/stdout")]
    assert lines == [f"line {n} of the flood\n" for n in range(20_000)]
    assert watched.events[-1]["service"] == "health/process/exit"


def test_metrics_of_the_app(run: Run, watched: Watched) -> None:
    """What the app sends on descriptor 3 is an event; it can't pass for a monitor."""
    record = {"service": "a", "metric": 1, "meta": {"seq": 0, "boot": "x", "k": 1}}

    async def main() -> None:
        await watched.run(["sh", "-c", f"echo '{json.dumps(record)}' >&3"])

    run(main())
    (event,) = watched.of("a")
    assert event["meta"]["k"] == 1
    assert event["meta"]["seq"] > 0
    assert event["meta"]["boot"] == watched.events[0]["meta"]["boot"]


@pytest.mark.parametrize("depth", [300, 1000])
def test_deep_metrics_of_the_app(run: Run, watched: Watched, depth: int) -> None:
    """However deep a message's meta is, it harms nobody and what follows is heard."""
    message = '{"service":"deep","metric":1,"meta":' + '{"a":' * depth + "1"
    message += "}" * depth + '}\n{"service":"after","metric":1}\n'

    async def main() -> None:
        ended = await watched.run(["sh", "-c", 'printf "$0" >&3', message])
        assert ended.code == 0

    run(main())
    assert len(watched.of("after")) == 1


# Plugins.


class Told(Base):
    """Writes down what it is told."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012

    def __init__(self, monitor: forza.Monitor, options: Mapping[str, str]) -> None:
        super().__init__(monitor, options)
        self.calls.clear()
        self.calls.append(("init", dict(options)))

    async def run(self) -> None:
        self.calls.append(("run",))
        try:
            await self.monitor.sleep(3600)
        finally:
            self.calls.append(("cancelled",))

    def process_options(self, options: forza.ProcessOptions) -> None:
        self.calls.append(("options", options.args))

    def process_spawned(self, process: forza.Process) -> None:
        self.calls.append(("spawned", process is self.monitor.process))

    def stdout_data(self, data: bytes) -> None:
        self.calls.append(("stdout", data))

    def stderr_data(self, data: bytes) -> None:
        self.calls.append(("stderr", data))

    def ipc_data(self, data: bytes) -> None:
        self.calls.append(("ipc", data))

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        self.calls.append(("exit", exit_status, term_signal))


def test_callbacks(run: Run, watched: Watched) -> None:
    """A plugin is told everything, in order, each once."""

    async def main() -> None:
        script = "echo out; sleep 0.05; echo err >&2; sleep 0.05; echo msg >&3; exit 3"
        await watched.run(
            ["sh", "-c", script],
            plugins=[Told],
            plugin_options={"told": {"a": "b"}, "other": {"c": "d"}},
        )
        # When `run` has its first turn is the loop's affair.
        Told.calls.remove(("run",))
        assert Told.calls == [
            ("init", {"a": "b"}),
            ("options", ("sh", "-c", script)),
            ("spawned", True),
            ("stdout", b"out\n"),
            ("stderr", b"err\n"),
            ("ipc", b"msg"),
            ("cancelled",),
            ("exit", 3, 0),
        ]

    run(main())


def test_options_can_be_changed(run: Run, watched: Watched, tmp_path: Path) -> None:
    """A plugin may change environment, arguments and folder before the spawn."""

    class Changes(Base):
        def process_options(self, options: forza.ProcessOptions) -> None:
            assert options.env is None
            options.env = {**os.environ, "ADDED": "by a plugin"}
            options.args = (*options.args, "one more")
            options.cwd = str(tmp_path)

    async def main() -> None:
        script = 'echo "$ADDED, $0, $PWD"'
        await watched.run(["sh", "-c", script], plugins=[Changes, "logs"])

    run(main())
    assert watched.text("logs/stdout") == f"by a plugin, one more, {tmp_path}\n"


def test_options_that_cannot_be(run: Run, watched: Watched) -> None:
    """Options that no exec takes are an error, which leaves nothing open."""

    class Spoils(Base):
        def process_options(self, options: forza.ProcessOptions) -> None:
            options.env = {"A": 1}  # type: ignore[dict-item]

    async def main() -> None:
        before = descriptors()
        with pytest.raises((TypeError, forza.ForzaError)):
            await watched.run(["true"], plugins=[Spoils])
        assert descriptors() == before

    run(main())


CALLBACKS = (
    "process_options",
    "process_spawned",
    "stdout_data",
    "stderr_data",
    "ipc_data",
    "process_exit",
    "run",
)


@pytest.mark.parametrize("callback", CALLBACKS)
def test_plugin_that_raises(run: Run, watched: Watched, callback: str) -> None:
    """It is switched off and reported; the app and the others do not notice."""
    calls: list[str] = []

    def fail(self: object, *args: object) -> None:
        calls.append(callback)
        raise ZeroDivisionError("of its own")

    async def fail_in_run(self: object) -> None:
        fail(self)

    body: dict[str, Any] = {callback: fail_in_run if callback == "run" else fail}
    fails = type("Fails", (Base,), body)

    async def main() -> None:
        script = "echo out; echo err >&2; echo msg >&3; sleep 0.05; echo out; exit 3"
        ended = await watched.run(["sh", "-c", script], plugins=[fails, "all", Told])
        assert ended.code == 3

    run(main())
    assert calls == [callback]
    (report,) = watched.of("telemetry/plugin")
    assert report["metric"] == 0
    assert report["description"] == "ZeroDivisionError: of its own"
    assert report["meta"]["plugin"] == "fails"
    assert watched.text("logs/stdout") == "out\nout\n"
    assert watched.text("logs/stderr") == "err\n"
    assert watched.events[-1]["service"] == "health/process/exit"
    assert Told.calls[-1] == ("exit", 3, 0)
    (said,) = watched.said
    assert "plugin fails failed and is switched off" in said


def test_plugin_that_raises_is_told_nothing_more(run: Run, watched: Watched) -> None:
    """Once one part of a plugin has failed the rest of it is left alone."""
    calls: list[str] = []

    class Fails(Base):
        async def run(self) -> None:
            try:
                await self.monitor.sleep(3600)
            finally:
                calls.append("cancelled")

        def stdout_data(self, data: bytes) -> None:
            calls.append("stdout")
            raise ValueError(data)

        def process_exit(self, exit_status: int, term_signal: int) -> None:
            calls.append("exit")

    async def main() -> None:
        script = "sleep 0.05; echo 1; sleep 0.05; echo 2"
        await watched.run(["sh", "-c", script], plugins=[Fails])

    run(main())
    assert calls == ["stdout", "cancelled"]


@pytest.mark.parametrize("error", [ValueError("no"), OSError(5, "x"), KeyError("k")])
def test_plugin_that_cannot_be_made(
    run: Run, watched: Watched, error: Exception
) -> None:
    """One that fails before anything runs is a PluginError, and nothing has run."""

    def fails(monitor: forza.Monitor, options: Mapping[str, str]) -> Base:
        raise error

    async def main() -> None:
        before = descriptors()
        with pytest.raises(forza.PluginError) as caught:
            await watched.run(["true"], plugins=["all", fails])
        assert "cannot set up plugin fails" in str(caught.value)
        assert caught.value.__cause__ is error
        assert descriptors() == before

    run(main())


@pytest.mark.parametrize("made", [None, object(), "text"])
def test_plugin_without_run(run: Run, watched: Watched, made: object) -> None:
    """What has no coroutine `run` is no plugin."""

    async def main() -> None:
        with pytest.raises(forza.PluginError, match="it has no coroutine 'run'"):
            await watched.run(["true"], plugins=[lambda *_: made])

    run(main())


@dataclass
class Equal:
    """Two of them are equal, and neither can be hashed: as any data class."""

    monitor: Any
    options: Any

    async def run(self) -> None:
        self.monitor.send("equal", 1.0)
        await self.monitor.sleep(3600)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        raise ValueError("at the end")


def test_plugin_that_is_a_data_class(run: Run, watched: Watched) -> None:
    """A plugin need not be hashable, nor differ from others."""

    async def main() -> None:
        def other(monitor: forza.Monitor, options: Mapping[str, str]) -> Equal:
            return Equal(monitor, options)

        await watched.run(["true"], plugins=[Equal, other, "process"])

    run(main())
    assert len(watched.of("equal")) == 2
    assert len(watched.of("telemetry/plugin")) == 2


def test_plugin_with_a_plain_run(run: Run, watched: Watched) -> None:
    """A `run` that is no coroutine after all is a failure like others."""

    class Plain(Base):
        def run(self) -> None:  # type: ignore[override]
            pass

    async def main() -> None:
        ended = await watched.run(["sleep", "0.05"], plugins=[Plain, "process"])
        assert ended.code == 0
        (report,) = watched.of("telemetry/plugin")
        assert report["meta"]["plugin"] == "plain"

    run(main())


def test_plugin_that_swallows_its_cancellation(run: Run, watched: Watched) -> None:
    """It is given a second; then the monitor ends without it."""
    tasks: list[asyncio.Task[Any] | None] = []

    class Clings(Base):
        async def run(self) -> None:
            tasks.append(asyncio.current_task())
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.monitor.send("clings", 1.0)
            await asyncio.sleep(3600)

    async def main() -> None:
        async with asyncio.timeout(10.0):
            ended = await watched.run(["sh", "-c", "exit 6"], plugins=[Clings, "all"])
        assert ended.code == 6
        assert len(watched.of("clings")) == 1
        assert watched.events[-1]["service"] == "health/process/exit"
        (task,) = tasks
        assert task is not None
        task.cancel()
        await asyncio.wait({task})

    run(main())


def test_plugin_that_talks_after_the_end(run: Run, watched: Watched) -> None:
    """Nothing comes after the exit event, whoever still has something to say."""
    tasks: list[asyncio.Task[None]] = []

    class Talks(Base):
        async def run(self) -> None:
            tasks.append(asyncio.create_task(self.talk()))

        async def talk(self) -> None:
            while True:
                self.monitor.send("talk", 1.0)
                await asyncio.sleep(0)

    async def main() -> None:
        async with MetricsServer() as server:
            await watched.run(
                ["sleep", "0.05"], plugins=[Talks, "all"], to=[watched.url, server.url]
            )
            (task,) = tasks
            task.cancel()
            await asyncio.wait({task})

    run(main())
    assert len(watched.of("talk")) > 1
    assert watched.events[-1]["service"] == "health/process/exit"


def test_plugin_on_the_grid(run: Run, watched: Watched) -> None:
    """`every`, `sleep`, `clock` and `loop` do what they say."""

    class Ticks(Base):
        async def run(self) -> None:
            assert self.monitor.loop is asyncio.get_running_loop()
            ticks = 0
            async for _ in self.monitor.every(0.02):
                self.monitor.send("tick", self.monitor.clock())
                ticks += 1
                if ticks == 4:
                    break
            before = self.monitor.clock()
            await self.monitor.sleep(0.02)
            self.monitor.send("slept", self.monitor.clock() - before)
            self.monitor.stop()

    async def main() -> None:
        await watched.run(["sleep", "1000"], plugins=[Ticks])

    run(main())
    times = [event["metric"] for event in watched.of("tick")]
    assert len(times) == 4
    assert times == sorted(times)
    (slept,) = watched.of("slept")
    assert slept["metric"] >= 0.015


def test_plugin_that_is_too_slow_for_its_interval(run: Run, watched: Watched) -> None:
    """It does not keep the app's end from being noticed."""

    class Greedy(Base):
        async def run(self) -> None:
            turns = 0
            async for _ in self.monitor.every(1e-6):
                self.monitor.send("greedy", 1.0)
                turns += 1
                if turns > 20_000:
                    break

    async def main() -> None:
        await watched.run(["sleep", "0.05"], plugins=[Greedy, "process"])

    run(main())
    # It stopped because it was cancelled, not because it had had enough.
    assert len(watched.of("greedy")) < 20_000


@pytest.mark.parametrize("then", ["sleep 0.3", "exit"])
def test_hold_and_release(
    run: Run, watched: Watched, tmp_path: Path, then: str
) -> None:
    """While anybody holds the app's output it stays in the pipes, and is not lost."""
    gate = tmp_path / "gate"

    class Holds(Base):
        async def run(self) -> None:
            for holder in "ab":
                self.monitor.hold(holder)
            self.monitor.send("held", 1.0)
            gate.touch()  # only now does the app say anything
            await self.monitor.sleep(0.05)
            self.monitor.release("a")
            await self.monitor.sleep(0.05)
            self.monitor.send("released", 1.0)
            self.monitor.release("b")
            self.monitor.release("b")

    async def main() -> None:
        script = f"while [ ! -e $0 ]; do sleep 0.01; done; echo 1; echo 2 >&2; {then}"
        await watched.run(["sh", "-c", script, str(gate)], plugins=[Holds, "logs"])

    run(main())
    services = [event["service"] for event in watched.events]
    assert services[0] == "held"
    assert sorted(services[-2:]) == ["logs/stderr", "logs/stdout"]
    if then != "exit":  # which cancels the plugin
        assert services[1] == "released"


# Finding plugins.

PLUGIN = """
class Disk:
    def __init__(self, monitor, options):
        self.monitor, self.options = monitor, options
    async def run(self):
        self.monitor.send("disk", 1.0, self.options.get("path"))

class Outer:
    Inner = Disk

def make(monitor, options):
    return Disk(monitor, options)

number = 7
"""
METADATA = "Metadata-Version: 2.1\nName: my-disk\nVersion: 1\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a plugin, installed as by pip."""
    (tmp_path / "my_disk.py").write_text(PLUGIN)
    (tmp_path / "my_broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "my_syntax.py").write_text("def :\n")
    (tmp_path / "my_error.py").write_text("raise RuntimeError('at import')\n")
    info = tmp_path / "my_disk-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text(
        "[forza.plugins]\ndisk = my_disk:Disk\nbad = my_disk:Missing\n"
        "worse = my_missing:Disk\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("my_disk:Disk", "disk"),
        ("my_disk:Outer.Inner", "inner"),
        ("my_disk:make", "make"),
        ("disk", "disk"),
    ],
)
def test_plugin_by_name(run: Run, watched: Watched, name: str, options: str) -> None:
    """A plugin is found by module and attribute, and by its entry point."""

    async def main() -> None:
        await watched.run(
            ["sleep", "0.05"],
            plugins=[name],
            plugin_options={options: {"path": "/data"}},
        )
        (event,) = watched.of("disk")
        assert event["description"] == "/data"

    run(main())


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dsik", "unknown plugin 'dsik'; there are cpu, mem, logs, heartbeat, uptime"),
        ("dsik", "bad, disk, worse"),
        ("", "unknown plugin ''"),
        ("my_missing:Disk", "No module named 'my_missing'"),
        ("my_broken:Disk", "No module named 'nothing_of_that_name'"),
        ("my_disk:Missing", "has no attribute 'Missing'"),
        ("my_disk:Outer.Missing", "has no attribute 'Missing'"),
        ("my_disk:number", "it is not callable"),
        ("my_disk:", "cannot load plugin 'my_disk:'"),
        (":Disk", "cannot load plugin ':Disk'"),
        ("bad", "cannot load plugin 'bad'"),
        ("worse", "cannot load plugin 'worse'"),
        ("my_syntax:Disk", "cannot load plugin 'my_syntax:Disk'"),
        ("my_error:Disk", "cannot load plugin 'my_error:Disk'"),
        ("..:x", "cannot load plugin"),
    ],
)
def test_plugin_that_cannot_be_found(
    run: Run, watched: Watched, name: str, says: str
) -> None:
    """Whatever is wrong with it, a plugin that can't be loaded is a PluginError."""

    async def main() -> None:
        with pytest.raises(forza.PluginError) as caught:
            await watched.run(["true"], plugins=["all", name])
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)

    run(main())


# What goes wrong at the start.


def test_spawn_error(run: Run, watched: Watched) -> None:
    """It is raised once the events that tell of it are delivered."""

    async def main() -> None:
        before = descriptors()
        with pytest.raises(forza.SpawnError) as caught:
            await watched.run(["no-such-program", "-x"], plugins=["all", Told])
        assert caught.value.errno == errno.ENOENT
        assert descriptors() == before

    run(main())
    services = [event["service"] for event in watched.events]
    assert "health/process/spawn" not in services
    assert "cannot run no-such-program: command not found" in watched.text(
        "logs/stderr"
    )
    (start,) = watched.of("health/process/start")
    assert start["metric"] == 0
    assert "command not found" in start["description"]
    last = watched.events[-1]
    assert last["service"] == "health/process/exit"
    assert last["description"] == "127"
    assert last["meta"]["reason"] == "not found"
    assert "pid" not in last["meta"]
    assert Told.calls[-1] == ("exit", 127, 0)
    assert ("run",) not in Told.calls


def test_spawn_errors_leave_nothing(run: Run, watched: Watched) -> None:
    """Nor do twenty of them; another try may work."""

    async def main() -> None:
        before = descriptors()
        for _ in range(20):
            with pytest.raises(forza.SpawnError):
                await watched.run(["/"])
        assert descriptors() == before
        assert (await watched.run(["true"])).code == 0

    run(main())


@pytest.mark.parametrize("plugins", [["cpu", "mem", "start"], ["start"]], ids=str)
def test_start_log_that_cannot_be(
    run: Run, watched: Watched, tmp_path: Path, plugins: list[str]
) -> None:
    """A start log that can't be written is a SinkError before anything runs."""

    async def main() -> None:
        before = descriptors()
        with pytest.raises(forza.SinkError, match="cannot write the start log"):
            await watched.run(
                ["touch", str(tmp_path / "ran")],
                start_log=str(tmp_path / "missing" / "log"),
                plugins=plugins,
            )
        assert not (tmp_path / "ran").exists()
        assert descriptors() == before

    run(main())


def test_plugin_error_after_plugins_that_hold_files(run: Run, watched: Watched) -> None:
    """Plugins that were made before one that can't be are unmade."""

    async def main() -> None:
        before = descriptors()
        for _ in range(3):
            with pytest.raises(forza.PluginError):
                await watched.run(
                    ["true"],
                    plugins=["cpu", "mem", "heartbeat"],
                    plugin_options={"heartbeat": {"interval": "x"}},
                )
        assert descriptors() == before

    run(main())


def test_outside_of_a_loop() -> None:
    """A monitor may be made before there is a loop."""
    monitor = forza.Monitor(["true"], to=[])

    async def main() -> int:
        async with monitor:
            return (await monitor.wait()).code

    assert asyncio.run(main()) == 0


SCRIPT = """
import asyncio, sys
sys.path.insert(0, {root!r})
import forza
from forza import _native as native
async def main():
    async with forza.Monitor(["sh", "-c", "echo $$; exec sleep 1000"]) as monitor:
        await monitor.wait()
asyncio.run(main())
"""


def test_keyboard_interrupt() -> None:
    """Ctrl-C in a program that uses forza ends the app, and then the program."""
    program = subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(root=str(ROOT))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdout is not None
    pid = None
    for line in program.stdout:
        event = json.loads(line)
        if event["service"] == "logs/stdout":
            pid = int(event["description"])
            break
    assert pid is not None
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=PATIENCE)
    assert b"KeyboardInterrupt" in err
    events = [json.loads(line) for line in out.splitlines()]
    assert of(events, "health/process/exit")[0]["meta"]["signal"] == "SIGTERM"
    wait_until_dead(pid)
