# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Test plugins, and whatever else sends or receives forza's events."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from forza import plugins
from forza._event import Encoder, split_lines
from forza._monitor import Monitor
from forza._process import Exit, Process

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType

    from forza.typing import Plugin

__all__ = ("FakeMonitor", "MetricsServer", "Sent", "check_plugin")

_PATIENCE = 20.0


class MetricsServer:
    """A metrics server on loopback that remembers what it gets.

        async with MetricsServer() as server:
            await forza.run(["true"], to=[server.url])
            exit = await server.wait_for("health/process/exit")

    It takes any number of connections; `events` has all events in order of arrival,
    as dictionaries. `port` chooses a port, 0 is any free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.events: list[dict[str, Any]] = []
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """Where to send events, for `to=`."""
        return f"tcp:127.0.0.1:{self.port}"

    async def __aenter__(self) -> MetricsServer:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, limit=2**24
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.disconnect()

    def disconnect(self) -> None:
        """Close all connections, in the middle of whatever they carry."""
        for writer in tuple(self._writers):
            writer.close()

    def of(self, service: str) -> list[dict[str, Any]]:
        """Return the events of one service."""
        return [event for event in self.events if event["service"] == service]

    async def wait_for(self, service: str, count: int = 1) -> dict[str, Any]:
        """Wait for the first, or the `count`th, event of a service.

        Raises TimeoutError after twenty seconds, and names what came instead.
        """
        try:
            async with asyncio.timeout(_PATIENCE), self._changed:
                await self._changed.wait_for(lambda: len(self.of(service)) >= count)
        except TimeoutError:
            came = sorted({str(event["service"]) for event in self.events})
            raise TimeoutError(f"no {service} among {came}") from None
        return self.of(service)[count - 1]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._writers.add(writer)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self.events.append(json.loads(line))
                async with self._changed:
                    self._changed.notify_all()
        finally:
            self._writers.discard(writer)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class Sent(NamedTuple):
    """One event that a plugin has sent."""

    service: str
    metric: float
    description: str | None
    meta: dict[str, Any]


class FakeMonitor(Monitor):
    """A monitor without a child, whose time stands still until `advance`.

    `sent` has what the plugin has sent, `said` what it told the operator.
    """

    def __init__(self) -> None:
        super().__init__(["true"], loop=asyncio.get_running_loop())
        self.sent: list[Sent] = []
        self.said: list[str] = []
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._encoder = Encoder("host", "boot", None)

    def send(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
        *,
        lifecycle: bool = False,
    ) -> bytes:
        """Remember the event, as JSON would carry it."""
        line = self._encoder.event(service, metric, description, meta)
        event = json.loads(line)
        kept = {name: event["meta"][name] for name in meta or ()}
        self.sent.append(Sent(service, metric, description, kept))
        return line

    def send_lines(self, service: str, data: bytes) -> None:
        """Remember one event for each line."""
        for line in split_lines(data):
            self.send(service, 1.0, line.decode(errors="replace"))

    def clock(self) -> float:
        """Return the seconds that `advance` has let pass."""
        return self._now

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        """Return a future that `advance` settles."""
        future: asyncio.Future[None] = self.loop.create_future()
        self._sleepers.append((self._now + seconds, future))
        return future

    async def every(self, seconds: float) -> AsyncIterator[None]:
        """Yield at once, then whenever `advance` has passed another `seconds`."""
        tick = 0
        while True:
            yield
            tick += 1
            await self.sleep(tick * seconds - self._now)

    def say(self, text: str, *, problem: bool = True) -> None:
        """Remember what the operator is told."""
        self.said.append(text)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that is due meanwhile."""
        until = self._now + seconds
        while True:
            for _ in range(5):  # let the plugin get to its next sleep
                await asyncio.sleep(0)
            due = [entry for entry in self._sleepers if entry[0] <= until]
            if not due:
                break
            entry = min(due, key=lambda entry: entry[0])
            self._sleepers.remove(entry)
            self._now = max(self._now, entry[0])
            if not entry[1].done():
                entry[1].set_result(None)
        self._now = until


async def check_plugin(
    factory: str | Callable[..., Plugin],
    options: Mapping[str, str] | None = None,
) -> list[Sent]:
    """Take a plugin through a whole life, and return what it has sent.

    It is set up, sees a child start, print, talk on descriptor 3 and run for five
    minutes, is cancelled and sees the child end. Whatever it raises is raised; an
    AssertionError says what else a plugin must not do.
    """
    monitor = FakeMonitor()
    name = factory if isinstance(factory, str) else plugins.name_of(factory)
    plugin = plugins.load(
        factory, monitor, {plugins.short_name(name): dict(options or {})}
    )
    here = Process(0, (), ipc=False)
    _call(plugin, "process_options", monitor.options)
    monitor.process = here
    _call(plugin, "process_spawned", here)
    task = asyncio.create_task(plugin.run())
    for data in (b"one line\n", b"two\nlines", b" and\xff more\n", b"\0" * 70_000):
        _call(plugin, "stdout_data", data)
        _call(plugin, "stderr_data", data)
        await monitor.advance(1.0)
    for message in (b"port=8080", b'{"cmd":"hello"}', b"", b"\xff"):
        _call(plugin, "ipc_data", message)
    await monitor.advance(300.0)
    if task.done():
        task.result()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(task, _PATIENCE)
    monitor.ended = Exit(0, 0)
    _call(plugin, "process_exit", 0, 0)
    for sent in monitor.sent:
        assert sent.service.strip("/") == sent.service, f"odd service {sent.service!r}"
        assert sent.service, "an event needs a service"
        assert isinstance(sent.metric, int | float), f"{sent.metric!r} is no number"
    return monitor.sent


def _call(plugin: Plugin, name: str, *args: object) -> None:
    callback = getattr(plugin, name, None)
    if callback is not None:
        result = callback(*args)
        assert not asyncio.iscoroutine(result), f"{name} must be a plain function"
