# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The plugins cpu and mem: which events they send, and of whom."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from time import monotonic

import psutil
import pytest

from forza._errors import PluginError
from forza._proc import Tree
from forza._process import Process
from forza.plugins.cpu import Cpu
from forza.plugins.mem import Mem
from forza.testing import FakeMonitor, Sent, check_plugin

MACHINE = {Cpu: "health/machine/cpu", Mem: "health/machine/memory"}
PROCESS = {Cpu: "health/process/cpu", Mem: "health/process/memory"}
both = pytest.mark.parametrize("kind", [Cpu, Mem])


@asynccontextmanager
async def running(
    kind: type[Cpu | Mem], pid: int | None, options: dict[str, str] | None = None
) -> AsyncIterator[FakeMonitor]:
    """Run the plugin on a monitor whose time stands still, with that child."""
    monitor = FakeMonitor()
    if pid is not None:
        monitor.process = Process(pid, (), ipc=False)
    task = asyncio.create_task(kind(monitor, options or {}).run())
    await monitor.advance(0.0)
    try:
        yield monitor
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@contextmanager
def child(program: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python; each line of input gives one of output."""
    pipe = subprocess.PIPE
    made = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import os, signal, time\n" + program],
        stdin=pipe,
        stdout=pipe,
        bufsize=0,
        start_new_session=True,
    )
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(made.pid, 9)
        made.communicate()


def step(made: subprocess.Popen[bytes]) -> None:
    assert made.stdin is not None
    assert made.stdout is not None
    made.stdin.write(b"\n")
    assert made.stdout.readline()


def end(made: subprocess.Popen[bytes]) -> None:
    """Let it end, and leave it unreaped."""
    assert made.stdin is not None
    made.stdin.write(b"\n")
    os.waitid(os.P_PID, made.pid, os.WEXITED | os.WNOWAIT)


def last(monitor: FakeMonitor, service: str) -> Sent:
    return [sent for sent in monitor.sent if sent.service == service][-1]


@both
@pytest.mark.parametrize("options", [{}, {"interval": "0.25"}])
def test_at_once_and_then_every_interval(
    kind: type[Cpu | Mem], options: dict[str, str]
) -> None:
    """Five seconds is the interval unless another is asked for."""

    async def main() -> None:
        interval = float(options.get("interval", 5))
        async with running(kind, os.getpid(), options) as monitor:
            counts = []
            for _ in range(3):
                services = [sent.service for sent in monitor.sent]
                counts.append(services.count(MACHINE[kind]))
                await monitor.advance(interval * 0.6)
                assert len(monitor.sent) == len(services)
                await monitor.advance(interval * 0.4)
            assert counts == [1, 2, 3]

    asyncio.run(main())


@both
@pytest.mark.parametrize("value", ["x", "0", "-1", "nan", "inf", ""])
def test_bad_intervals(kind: type[Cpu | Mem], value: str) -> None:
    """A plugin that cannot keep time says so before anything runs."""

    async def main() -> None:
        name = kind.__name__.lower()
        text = f"--{name}-interval must be a number above 0, not '{value}'"
        with pytest.raises(PluginError) as caught:
            kind(FakeMonitor(), {"interval": value})
        assert str(caught.value) == text

    asyncio.run(main())


def test_cpu_of_the_machine() -> None:
    """The 1-minute load, and how many cores there are for it."""

    async def main() -> None:
        async with running(Cpu, None) as monitor:
            (sent,) = monitor.sent
            assert sent.service == "health/machine/cpu"
            assert sent.meta["kind"] == "machine"
            assert sent.meta["cores"] == psutil.cpu_count()
            assert sent.metric == pytest.approx(os.getloadavg()[0], abs=0.5)

    asyncio.run(main())


def test_memory_of_the_machine() -> None:
    """The used fraction, and of how many bytes."""

    async def main() -> None:
        async with running(Mem, None) as monitor:
            (sent,) = monitor.sent
            assert sent.service == "health/machine/memory"
            if sent.meta["kind"] == "cgroup":
                pytest.skip("these tests run under a memory limit")
            expected = psutil.virtual_memory()
            assert sent.meta == {"total": expected.total, "kind": "machine"}
            assert sent.metric == pytest.approx(expected.percent / 100, abs=0.02)

    asyncio.run(main())


BUSY = """
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
r, w = os.pipe()
r2, w2 = os.pipe()
if not os.fork():
    while os.read(r, 1):
        burn(0.3)
        os.write(w2, b"x")
while input() == "":
    os.write(w, b"x")
    burn(0.3)
    os.read(r2, 1)
    print("done", flush=True)
"""


def test_cpu_of_a_busy_app() -> None:
    """The cores that psutil sees its processes use in the same time."""

    def used(pid: int) -> float:
        root = psutil.Process(pid)
        times = [p.cpu_times() for p in (root, *root.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    async def main() -> None:
        with child(BUSY) as app:
            step(app)  # the fork and the imports are over
            async with running(Cpu, app.pid) as monitor:
                assert [sent.service for sent in monitor.sent] == [MACHINE[Cpu]]
                for _ in range(2):
                    at, before = monotonic(), used(app.pid)
                    step(app)
                    await monitor.advance(5.0)
                    cores = (used(app.pid) - before) / (monotonic() - at)
                    assert cores > 0.1
                    sent = last(monitor, PROCESS[Cpu])
                    assert sent.metric == pytest.approx(cores, rel=0.15)
                assert len(monitor.sent) == 5

    asyncio.run(main())


WORKERS = """
data = bytearray(b"x" * (32 << 20))
r, w = os.pipe()
input()
for _ in range(2):
    if not os.fork():
        os.write(w, b"x")
        signal.pause()
for _ in range(2): os.read(r, 1)
print("forked", flush=True)
input()
"""


def test_memory_of_an_app_that_forks() -> None:
    """One process by its resident set; several with shared pages counted once."""

    async def main() -> None:
        with child(WORKERS) as app:
            rss = 0
            while rss < 32 << 20:
                rss = psutil.Process(app.pid).memory_info().rss
            async with running(Mem, app.pid) as monitor:
                alone = last(monitor, PROCESS[Mem])
                assert alone.meta == {"kind": "rss"}
                assert alone.metric >= 32 << 20
                step(app)
                await monitor.advance(5.0)
                forked = last(monitor, PROCESS[Mem])
                assert forked.meta == {"kind": "pss"}
                root = psutil.Process(app.pid)
                tree = [root, *root.children()]
                assert len(tree) == 3
                expected = sum(p.memory_full_info().pss for p in tree)
                assert forked.metric == pytest.approx(expected, rel=0.02)
                assert forked.metric < 1.3 * alone.metric

    asyncio.run(main())


@both
def test_an_app_that_ends(kind: type[Cpu | Mem]) -> None:
    """Nothing more of the app, and the machine goes on."""

    async def main() -> None:
        with child("input()") as app:
            async with running(kind, app.pid) as monitor:
                await monitor.advance(5.0)
                assert PROCESS[kind] in [sent.service for sent in monitor.sent]
                end(app)
                for reap in (False, True):
                    if reap:
                        app.wait()
                    monitor.sent.clear()
                    await monitor.advance(5.0)
                    assert [sent.service for sent in monitor.sent] == [MACHINE[kind]]

    asyncio.run(main())


@both
def test_nothing_is_left_open(kind: type[Cpu | Mem]) -> None:
    """A plugin that is cancelled closes what it reads from."""

    def kernel_files() -> list[str]:
        names = []
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                names.append(os.readlink(f"/proc/self/fd/{fd}"))
        ours = f"/proc/{os.getpid()}/fd"
        return [n for n in names if n.startswith(("/proc/", "/sys/")) and n != ours]

    async def main() -> None:
        before = kernel_files()
        async with running(kind, os.getpid()) as monitor:
            await monitor.advance(10.0)
            assert kernel_files() != before
        assert kernel_files() == before

    asyncio.run(main())


def test_both_look_at_one_tree() -> None:
    """Processes are looked for once for each monitor, not once for each plugin."""

    async def main() -> None:
        first, second = FakeMonitor(), FakeMonitor()
        assert Tree.of(first) is None
        first.process = second.process = Process(os.getpid(), (), ipc=False)
        tree = Tree.of(first)
        assert tree is not None
        assert Tree.of(first) is tree
        assert Tree.of(second) is not tree

    asyncio.run(main())


@both
def test_a_whole_life(kind: type[Cpu | Mem]) -> None:
    """The contract that every plugin is held to; there the child has no pid."""
    sent = asyncio.run(check_plugin(kind))
    assert {event.service for event in sent} == {MACHINE[kind]}
    assert len(sent) > 60
