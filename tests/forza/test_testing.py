# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What plugin authors test with: a server, a monitor whose time stands still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import forza
from forza import testing
from forza.testing import FakeMonitor, MetricsServer, Sent, check_plugin
from tests.forza.conftest import Run

if TYPE_CHECKING:
    from collections.abc import Mapping


class Base:
    """A plugin that does nothing."""

    def __init__(self, monitor: forza.Monitor, options: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.options = options

    async def run(self) -> None:
        pass


# The server.


def test_server(run: Run) -> None:
    """It has all events of a run, and waits for those that are still to come."""

    async def main() -> None:
        async with MetricsServer() as server:
            assert server.url == f"tcp:127.0.0.1:{server.port}"
            waiting = asyncio.create_task(server.wait_for("logs/stdout", 2))
            script = "echo one; echo two"
            await forza.run(["sh", "-c", script], to=[server.url], say=ignore)
            assert (await waiting)["description"] == "two\n"
            last = await server.wait_for("health/process/exit")
            assert server.events[-1] == last
            assert [e["description"] for e in server.of("logs/stdout")] == [
                *("one\n", "two\n")
            ]
            assert server.of("none") == []

    run(main())


def test_server_that_hangs_up(run: Run) -> None:
    """`disconnect` breaks all connections; clients may come back."""

    async def main() -> None:
        async with MetricsServer() as server:
            port = server.port
            for word in b"one", b"two":
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b'{"service":"%s"}\n{"service":"cut off' % word)
                await server.wait_for(word.decode())
                server.disconnect()
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
            assert len(server.events) == 2
        async with MetricsServer(port) as again:
            assert again.port == port

    run(main())


def test_server_that_waits_in_vain(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up after its patience, and names what came instead."""
    monkeypatch.setattr(testing, "_PATIENCE", 0.1)

    async def main() -> None:
        async with MetricsServer() as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b'{"service":"a"}\n{"service":"b"}\n{"service":"a"}\n')
            await server.wait_for("a", 2)
            with pytest.raises(TimeoutError, match=r"no c among \['a', 'b'\]"):
                await server.wait_for("c")
            writer.close()
            await writer.wait_closed()

    run(main())


def test_server_that_is_reset(run: Run) -> None:
    """A client that breaks off is no failure of the server's."""

    async def main() -> None:
        async with MetricsServer() as server:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b'{"service":"a"}\n')
            await server.wait_for("a")
            writer.transport.abort()
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b'{"service":"b"}\n')
            await server.wait_for("b")
            writer.close()
            await writer.wait_closed()

    run(main())


# The fake monitor.


def test_sent(run: Run) -> None:
    """What is sent is remembered as JSON would carry it."""

    async def main() -> None:
        monitor = FakeMonitor()
        line = monitor.send("a/b", 0.5, "text", {"set": {1}, "n": None}, lifecycle=True)
        assert monitor.sent == [Sent("a/b", 0.5, "text", {"set": "{1}", "n": None})]
        assert line.startswith(b'{"metric":0.5,"time":')
        assert line.endswith(b"}\n")
        monitor.send("c", 1)
        assert monitor.sent[1] == Sent("c", 1, None, {})
        monitor.say("words", problem=False)
        assert monitor.said == ["words"]

    run(main())


def test_sent_lines(run: Run) -> None:
    """Lines end where the real monitor ends them: after a newline, and only there."""

    async def main() -> None:
        monitor = FakeMonitor()
        monitor.send_lines("logs/stdout", b"one\r\n50%\r60%\x0b\x0c\x85\ntail")
        assert [sent.description for sent in monitor.sent] == [
            *("one\r\n", "50%\r60%\x0b\x0c\ufffd\n", "tail")
        ]

    run(main())


def test_time(run: Run) -> None:
    """Time passes only in `advance`, and then everything happens that is due."""

    async def main() -> None:
        monitor = FakeMonitor()
        seen: list[tuple[str, float]] = []

        async def ticks(name: str, seconds: float) -> None:
            async for _ in monitor.every(seconds):
                seen.append((name, monitor.clock()))  # noqa: PERF401

        async def sleeps() -> None:
            await monitor.sleep(2.5)
            seen.append(("slept", monitor.clock()))

        tasks = [
            asyncio.create_task(coroutine)
            for coroutine in (ticks("a", 1.0), ticks("b", 2.0), sleeps())
        ]
        await asyncio.sleep(0.01)
        assert seen == [("a", 0.0), ("b", 0.0)]
        await monitor.advance(0.5)
        assert monitor.clock() == 0.5
        seen.clear()
        await monitor.advance(3.0)
        assert sorted(seen, key=lambda entry: entry[1]) == seen
        assert sorted(seen) == [
            *(("a", 1.0), ("a", 2.0), ("a", 3.0)),
            *(("b", 2.0), ("slept", 2.5)),
        ]
        assert monitor.clock() == 3.5
        for task in tasks:
            task.cancel()
        await monitor.advance(100.0)

    run(main())


def test_fake_is_a_monitor(run: Run) -> None:
    """All that a plugin may ask of a monitor is there."""

    async def main() -> None:
        monitor = FakeMonitor()
        assert isinstance(monitor, forza.Monitor)
        assert monitor.loop is asyncio.get_running_loop()
        assert monitor.process is None
        assert monitor.ended is None
        assert monitor.start_log is None
        assert monitor.options.args == ("true",)
        monitor.kill(15)
        monitor.hold(1)
        monitor.release(1)

    run(main())


# A whole life.


def test_check_plugin(run: Run) -> None:
    """A plugin sees everything once, and five minutes of time."""
    calls: list[str] = []

    class Good(Base):
        async def run(self) -> None:
            calls.append("run")
            async for _ in self.monitor.every(60.0):
                self.monitor.send("good", 1.0, self.options["word"])

        def process_options(self, options: forza.ProcessOptions) -> None:
            calls.append("options")

        def process_spawned(self, process: forza.Process) -> None:
            assert self.monitor.process is process
            calls.append("spawned")

        def stdout_data(self, data: bytes) -> None:
            calls.append("stdout")

        def stderr_data(self, data: bytes) -> None:
            calls.append("stderr")

        def ipc_data(self, data: bytes) -> None:
            calls.append("ipc")

        def process_exit(self, exit_status: int, term_signal: int) -> None:
            assert self.monitor.ended is not None
            calls.append("exit")

    async def main() -> None:
        sent = await check_plugin(Good, {"word": "hi"})
        assert sent == [Sent("good", 1.0, "hi", {})] * 6
        assert sorted(set(calls)) == sorted(
            ["run", "options", "spawned", "stdout", "stderr", "ipc", "exit"]
        )
        assert (calls[0], calls[-1]) == ("options", "exit")
        assert calls.count("stdout") == calls.count("stderr") == 4

    run(main())


@pytest.mark.parametrize(
    "callback",
    ["process_options", "process_spawned", "stdout_data", "ipc_data", "process_exit"],
)
def test_check_plugin_that_raises(run: Run, callback: str) -> None:
    """What a plugin raises, its author gets to see."""

    def fail(self: object, *args: object) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await check_plugin(type("Fails", (Base,), {callback: fail}))

    run(main())


def test_check_plugin_whose_run_raises(run: Run) -> None:
    """Early or late, and on its way out."""

    class Early(Base):
        async def run(self) -> None:
            raise ZeroDivisionError

    class Late(Base):
        async def run(self) -> None:
            await self.monitor.sleep(200.0)
            raise ZeroDivisionError

    class Leaving(Base):
        async def run(self) -> None:
            try:
                await self.monitor.sleep(3600.0)
            finally:
                raise ZeroDivisionError

    async def main() -> None:
        for plugin in Early, Late, Leaving:
            with pytest.raises(ZeroDivisionError):
                await check_plugin(plugin)

    run(main())


@pytest.mark.parametrize(
    ("service", "metric", "says"),
    [
        ("/a", 1.0, "odd service '/a'"),
        ("a/", 1.0, "odd service"),
        ("", 1.0, "an event needs a service"),
        ("a", "1", "'1' is no number"),
        ("a", None, "None is no number"),
    ],
)
def test_check_plugin_that_sends_nonsense(
    run: Run, service: str, metric: Any, says: str
) -> None:
    """An event without a service or a number is not let pass."""

    class Sends(Base):
        async def run(self) -> None:
            self.monitor.send(service, metric)

    async def main() -> None:
        with pytest.raises(AssertionError, match=says):
            await check_plugin(Sends)

    run(main())


@pytest.mark.filterwarnings("ignore:coroutine")
def test_check_plugin_with_a_coroutine_for_a_callback(run: Run) -> None:
    """A callback that is a coroutine would never run: that is said."""

    class Waits(Base):
        async def stdout_data(self, data: bytes) -> None:
            pass

    async def main() -> None:
        with pytest.raises(AssertionError, match="must be a plain function"):
            await check_plugin(Waits)

    run(main())


def test_check_plugin_without_run(run: Run) -> None:
    """What can't be loaded is told as the monitor would."""

    async def main() -> None:
        with pytest.raises(forza.PluginError, match="no coroutine 'run'"):
            await check_plugin(lambda *_: object())  # type: ignore[arg-type]
        with pytest.raises(forza.PluginError, match="unknown plugin"):
            await check_plugin("no-such-plugin")

    run(main())


def ignore(text: str) -> None:
    """Be told something."""
