# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run coroutines on both kinds of loop, and check that they leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pytest
import uvloop
from hypothesis import settings

import forza
from forza._event import Encoder
from forza.testing import FakeMonitor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from forza.sinks import Sink
    from tests.conftest import Event

# A machine that is busy with something else is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

T = TypeVar("T")

# How long a coroutine under test may take before the test gives up on it.
PATIENCE = 20.0

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

# The first loop of libuv's opens a pipe that stays open for the process's life.
uvloop.new_event_loop().close()


class Run(Protocol):
    """Run a coroutine to its end, on a loop of its own."""

    def __call__(self, coroutine: Coroutine[Any, Any, T]) -> T: ...


def run_on(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> Run:
    """Return what runs coroutines on such loops.

    It fails if the coroutine hangs, if a callback of the loop raises, and if a task, a
    descriptor or a child process is left when all is over.
    """

    def run(coroutine: Coroutine[Any, Any, T]) -> T:
        trouble: list[dict[str, Any]] = []
        before, mine = descriptors(), children()
        loop = make_loop()
        loop.set_exception_handler(lambda _, context: trouble.append(context))
        try:
            result = _finish(loop, coroutine)
        finally:
            left = _close(loop)
            orphans = children() - mine
            _end_children(orphans)
        assert trouble == []
        assert left == []
        assert descriptors() - before == set()
        assert orphans == set()
        return result

    return run


def _finish(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]) -> T:
    task = loop.create_task(coroutine)
    loop.run_until_complete(asyncio.wait({task}, timeout=PATIENCE))
    if not task.done():
        frames = "\n".join(map(str, task.get_stack()))
        pytest.fail(f"the coroutine hangs in\n{frames}")
    return task.result()


def _close(loop: asyncio.AbstractEventLoop) -> list[str]:
    """End the loop; name the tasks of forza's own that were still there."""
    left = asyncio.all_tasks(loop)
    names = [
        str(task)
        for task in left
        if "/forza/" in str(task)
        and "/forza/testing.py" not in str(task)
        and "/tests/" not in str(task)
    ]
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=5.0))
    loop.run_until_complete(_breathe())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
    return names


async def _breathe() -> None:
    # Transports that were closed close their sockets in a later turn of the loop.
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine on asyncio's own loop, and again on uvloop's."""
    return run_on(LOOPS[request.param])


def descriptors() -> set[tuple[int, str]]:
    """Return this process's open descriptors, and what each is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the one that listed the folder
            continue
    return found


def children() -> set[int]:
    """Return the pids of this process's children, dead or alive."""
    found: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            found.update(map(int, task.read_text().split()))
    return found


def _end_children(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def read_events(path: Path) -> list[Event]:
    """Return the events in a file; each line must be one."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data
    return [json.loads(line) for line in data.split(b"\n")[:-1]]


def of(events: Sequence[Event], service: str) -> list[Event]:
    """Return the events of one service."""
    return [event for event in events if event["service"] == service]


def text(events: Sequence[Event], service: str) -> str:
    """Return the joined descriptions of one service."""
    return "".join(event["description"] for event in of(events, service))


class Watched:
    """Run apps in this process, their events written to a file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "events.ndjson"
        self.said: list[str] = []

    @property
    def url(self) -> str:
        """The sink."""
        return f"file:{self._path}"

    @property
    def events(self) -> list[Event]:
        """All events so far."""
        return read_events(self._path)

    def of(self, service: str) -> list[Event]:
        """Return the events of one service so far."""
        return of(self.events, service)

    def text(self, service: str) -> str:
        """Return the joined descriptions of one service so far."""
        return text(self.events, service)

    def monitor(self, args: Sequence[str], **settings: Any) -> forza.Monitor:
        """Make a monitor that sends here."""
        defaults: dict[str, Any] = {"to": [self.url], "say": self.said.append}
        return forza.Monitor(args, **{**defaults, **settings})

    async def run(self, args: Sequence[str], **settings: Any) -> forza.Exit:
        """Run an app to its end."""
        async with self.monitor(args, **settings) as monitor:
            return await monitor.wait()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """What runs apps in this process."""
    return Watched(tmp_path)


class Owner(FakeMonitor):
    """The monitor of one sink: what is sent goes there."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: Sink | None = None
        self.holds = 0
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
        event = self._encoder.event(service, metric, description, meta)
        assert self.sink is not None
        self.sink.write(event, lifecycle)
        return event

    def send_lines(self, service: str, data: bytes) -> None:
        assert self.sink is not None
        self.sink.write(self._encoder.lines(service, data))

    def hold(self, holder: object) -> None:
        self.holds += 1
        super().hold(holder)


class Handle:
    """A timer of a `StillLoop`."""

    def __init__(self, when: float, call: Callable[[], object]) -> None:
        self.when = when
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class StillLoop:
    """As much of a loop as sinks and plugins use; time stands still until `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.writers: dict[int, Callable[[], object]] = {}
        self._timers: list[Handle] = []

    def time(self) -> float:
        return self.now

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object
    ) -> Handle:
        handle = Handle(self.now + delay, lambda: callback(*args))
        self._timers.append(handle)
        return handle

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        self.writers[fd] = callback

    def remove_writer(self, fd: int) -> None:
        self.writers.pop(fd, None)

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now + seconds
        while due := [t for t in self._live() if t.when <= until]:
            handle = min(due, key=lambda timer: timer.when)
            self._timers.remove(handle)
            self.now = max(self.now, handle.when)
            handle.call()
        self.now = until

    def _live(self) -> list[Handle]:
        self._timers = [timer for timer in self._timers if not timer.cancelled]
        return self._timers


class Wire:
    """A monitor for `Logs` that keeps what would be on the wire."""

    def __init__(self) -> None:
        self.loop = StillLoop()
        self.held = False
        self.encoder = Encoder("host", "b", ("user", "name"))
        self.batches: list[bytes] = []

    def send_lines(self, service: str, data: bytes) -> None:
        self.batches.append(self.encoder.lines(service, data))

    def send(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
        *,
        lifecycle: bool = False,
    ) -> None:
        self.batches.append(self.encoder.event(service, metric, description, meta))
