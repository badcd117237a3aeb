# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Watch one child: plugins in, events out, and an orderly end."""

from __future__ import annotations

import os
from time import monotonic

from forza import plugins as _plugins
from forza._errors import SpawnError, UsageError
from forza._event import Encoder
from forza._health import Health
from forza._hooks import Hooks
from forza._host import host_name
from forza._ipc import Channel
from forza._pipe import Pipe
from forza._process import Exit, Process, ProcessOptions
from forza._wait import Timers, end, settle, wait
from forza.sinks import is_spooled, open_sink
from forza.sinks._buffer import Buffer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task, TimerHandle
    from collections.abc import (
        AsyncIterator,
        Callable,
        Iterable,
        Mapping,
        Sequence,
    )
    from types import TracebackType
    from typing import Any

    from forza._proc import Tree
    from forza.sinks import Sink
    from forza.sinks._buffer import Queue
    from forza.spool._depot import Depot
    from forza.typing import Plugin

GRACE = 10.0
FLUSH_TIMEOUT = 5.0
BUFFER = 1024 * 1024
SPOOL_MAX = 64 * 1024 * 1024
# After the child's end, a grandchild may still hold its output open: wait this long.
_DRAIN = 1.0
# What was killed is gone by then, unless the kernel itself holds it.
_KILLED = 2.0
_TERM, _KILL, _CONT = 15, 9, 18


class Monitor:
    """Run one app, and ship its metrics and logs until it has ended.

    `async with Monitor([...]) as monitor: await monitor.wait()` does it all; leaving
    the block early stops the app: SIGTERM, `grace` seconds, SIGKILL.

    `to` are sink URLs (default: events to standard output), `plugins` names or
    `module:attr` (default: all seven), `plugin_options` a mapping from a plugin's
    name to its options. `flush_timeout` bounds how long the last events may take to
    leave, `buffer` the bytes held back for each sink that is away. With `spool`, a
    folder, those wait on disk instead: at most `spool_max` bytes, for the next monitor
    if this one cannot deliver them. `stop_signal` is what asks the app to end, if not
    SIGTERM. `limits` may have `memory_soft`, `memory_hard`, `nofile`, `core` (-1:
    unlimited), `nice` and `cpus`, a sequence.
    """

    def __init__(
        self,
        args: Sequence[str],
        *,
        to: Iterable[str] = ("stdout:",),
        plugins: Iterable[str | Callable[..., Plugin]] = _plugins.ALL,
        plugin_options: Mapping[str, Mapping[str, str]] | None = None,
        hostname: str | None = None,
        app_user: str | None = None,
        app_name: str | None = None,
        start_log: str | None = None,
        ready_fd: int | None = None,
        notify_socket: str | None = None,
        grace: float = GRACE,
        stop_signal: int = _TERM,
        flush_timeout: float = FLUSH_TIMEOUT,
        buffer: int = BUFFER,
        spool: str | None = None,
        spool_max: int = SPOOL_MAX,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        ipc: bool | None = None,
        limits: Mapping[str, Any] | None = None,
        say: Callable[[str], object] | None = None,
        loop: AbstractEventLoop | None = None,
        process: Process | None = None,
    ) -> None:
        for name, value in (("args", args), ("to", to), ("plugins", plugins)):
            if isinstance(value, str):
                raise UsageError(f"{name} must be a list, not '{value}'")
        if not args:
            raise UsageError("no command given")
        if limits and process is None:  # else it runs within them
            from forza._limits import check

            check(limits)
        self.options = ProcessOptions(
            args, env=env, cwd=cwd, uid=uid, gid=gid, ipc=ipc, limits=limits
        )
        self.process = process
        self.ended: Exit | None = None
        self.silent = False
        # How many times a sink has worked off a backlog, and freed what it took.
        self.backlogs = 0
        self._tree: Tree | None = None
        self.start_log = start_log
        self.ready_fd = ready_fd
        self.notify_socket = notify_socket
        self._to = tuple(to)
        self._plugin_names = tuple(plugins)
        self._plugin_options = plugin_options or {}
        self._host = hostname or host_name()
        self._app = (app_user, app_name) if app_user and app_name else None
        self._grace = grace
        self._stop_signal = stop_signal
        self._why: str | None = None
        self._killed = ""
        self._flush_timeout = flush_timeout
        self._buffer = buffer
        self._spool = spool
        self._spool_max = spool_max
        self._depot: Depot | None = None
        self._say = say
        self._loop = loop
        self._sinks: tuple[Sink, ...] = ()
        self._pipes: tuple[Pipe, ...] = ()
        self._holders: set[object] = set()
        self._health: Task[None] | None = None
        self._kill_timer: TimerHandle | None = None
        self._drain_timer: TimerHandle | None = None
        self._started_at = 0.0
        self._flush_by = 0.0
        self._own_bytes = 0

    # What plugins use.

    @property
    def loop(self) -> AbstractEventLoop:
        """The loop that the monitor runs on."""
        if self._loop is None:
            from asyncio import get_running_loop

            self._loop = get_running_loop()
        return self._loop

    def send(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
        *,
        lifecycle: bool = False,
    ) -> bytes:
        """Send one event to all sinks, and return it as it went out.

        A `lifecycle` event is one that an operator must not miss: it is dropped last.
        """
        event = self._encoder.event(service, metric, description, meta)
        if self.silent:  # the exit event was the last
            return event
        for sink in self._sinks:
            sink.write(event, lifecycle)
        return event

    def send_lines(self, service: str, data: bytes) -> None:
        """Send one event for each line of `data`, newlines kept, as one batch."""
        if self.silent:
            return
        batch = self._encoder.lines(service, data)
        for sink in self._sinks:
            sink.write(batch)

    def clock(self) -> float:
        """Return the seconds since the child was spawned."""
        return monotonic() - self._started_at

    def sleep(self, seconds: float) -> Future[None]:
        """Return a future that is settled after `seconds`."""
        return self._timers.at(self.loop.time() + seconds)

    def every(self, seconds: float) -> AsyncIterator[None]:
        """Iterate: at once, then at every multiple of `seconds` since the start.

        Prefer this to a loop of `sleep`: all plugins on one grid wake the monitor
        once, and an idle monitor costs nothing else.
        """
        return self._timers.every(seconds)

    @property
    def held(self) -> bool:
        """Whether the app's output is left in its pipes for now."""
        return bool(self._holders)

    @property
    def has_app(self) -> bool:
        """Say whether a platform runs the app: it has named its user and the app."""
        return self._app is not None

    @property
    def bytes_read(self) -> int:
        """How much the app has written so far."""
        return sum(pipe.bytes_read for pipe in self._pipes)

    def say(self, text: str, *, problem: bool = True) -> None:
        """Tell the operator something about forza itself; not an event."""
        if self._say is not None:
            self._say(text)
            return
        from logging import getLogger

        getLogger("forza").log(30 if problem else 20, text)  # WARNING, INFO

    def fail(self, reason: str, signum: int) -> None:
        """End an app that has failed, as `stop` does, unless it is ending already."""
        if self.ended is None and self._kill_timer is None:
            self.stop(signum, reason)

    def extend(self, seconds: float) -> None:
        """Give an app that is ending so much time from now, if it has less."""
        timer, by = self._kill_timer, self.loop.time() + seconds
        if timer is not None and self.ended is None and timer.when() < by:
            timer.cancel()
            self._kill_timer = self.loop.call_at(by, self._kill_all)

    # What its owner uses.

    async def __aenter__(self) -> Monitor:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._done.done():
            self.stop()
        await self.wait()

    async def start(self) -> None:
        """Load the plugins, open the sinks and spawn the child.

        Raises PluginError or SinkError before anything runs. Raises SpawnError after
        the events that tell of it are delivered.
        """
        self._prepare()
        loaded = [
            _plugins.load(plugin, self, self._plugin_options)
            for plugin in _plugins.in_order(self._plugin_names)
        ]
        limits = self.options.limits
        if "memory_soft" in limits or "memory_hard" in limits:
            from forza._memory import MemoryGuard

            loaded.insert(0, MemoryGuard(self, limits))
        self._hooks = Hooks(self, loaded)
        await self._open_sinks()
        self._hooks.call("process_options", self.options)
        try:
            if self.process is None:
                from forza._spawn import spawn

                self.process = spawn(self.options)
        except SpawnError as error:
            await self._spawn_failed(error)
            raise
        try:
            self._spawned(self.process)
        except BaseException:  # nobody would watch it
            self.process.close()
            raise

    def _prepare(self) -> None:
        self._done: Future[Exit] = self.loop.create_future()
        self._timers = Timers(self.loop)
        boot = os.urandom(8).hex()
        self._encoder = Encoder(self._host, boot, self._app)

    async def wait(self) -> Exit:
        """Wait until the child has ended and all is sent; return how it ended."""
        # Not the future itself: whoever is cancelled here must not cancel it too.
        done: Future[None] = self.loop.create_future()
        self._done.add_done_callback(lambda _: settle(done))
        await done
        return self._done.result()

    def stop(self, signum: int | None = None, reason: str | None = None) -> None:
        """Ask the app to end: a signal, the grace period, SIGKILL for all of its tree.

        A second call does not wait for the rest of the grace period; one after the
        app's end does not wait for the last events to leave. `reason` is for the exit
        event, if it is not the obvious one.
        """
        if self.ended is not None:
            if self._drain_timer is not None:
                self._flush_by = self.loop.time()
                self._drain_timer.cancel()
                self._drained()
            for sink in self._sinks:
                sink.abandon()
            return
        self._why = self._why or reason
        if self._kill_timer is None:
            self._kill_timer = self.loop.call_later(self._grace, self._kill_all)
            self.kill(self._stop_signal if signum is None else signum)
            self.kill(_CONT)  # whoever is stopped cannot heed it
        else:
            self._kill_all()

    def _kill_all(self) -> None:
        self._killed = "grace"
        if self.process is not None:
            self.process.kill_all()

    def kill(self, signum: int) -> None:
        """Send a signal to the app: to its whole process group."""
        if self.process is None or self.ended is not None:
            return
        try:
            self.process.kill(signum)
        except ProcessLookupError:
            pass
        except PermissionError:
            self.say(f"not allowed to send signal {signum} to the app")

    # What sinks use.

    def hold(self, holder: object) -> None:
        """Leave the app's output in its pipes until `release`."""
        self._holders.add(holder)
        for pipe in self._pipes[:2]:
            pipe.read_stop()

    def release(self, holder: object) -> None:
        """Undo `hold`; reading goes on when the last holder has let go."""
        self._holders.discard(holder)
        if not self._holders:
            for pipe in self._pipes[:2]:
                pipe.read_start()

    # The course of things.

    async def _open_sinks(self) -> None:
        sinks: list[Sink] = []
        try:
            for url in self._to:
                sink = open_sink(url, self, self._queue(url))
                sinks.append(sink)
        except BaseException:
            for sink in sinks:
                await sink.close(0.0)
            self._close_depot()
            raise
        self._sinks = tuple(sinks)

    def _queue(self, url: str) -> Queue:
        """Return what holds a sink's events until they are delivered.

        Raises SinkError if the spool cannot be used.
        """
        if self._spool is None or not is_spooled(url):
            return Buffer(self._buffer)
        from forza.spool._depot import Depot, check_folder
        from forza.spool._queue import Spool

        if self._depot is None:
            check_folder(self._spool)
            spooled = [url for url in self._to if is_spooled(url)]
            self._depot = Depot(self._spool, self._spool_max, spooled)
        return Spool(self, self._depot, url, self._buffer)

    def _close_depot(self) -> None:
        if self._depot is not None:
            self._depot.close()

    def _spawned(self, process: Process) -> None:
        self._started_at = monotonic()
        self._encoder.set_pid(process.pid)
        self._hooks.call("process_spawned", process)
        channel = Channel(self.send, self._hooks.message)
        readers: tuple[tuple[Callable[[bytes], object], Callable[[], object]], ...] = (
            (self._hooks.stdout, self._pipe_closed),
            (self._hooks.stderr, self._pipe_closed),
            (channel.data, channel.close),
        )
        self._pipes = tuple(
            Pipe(self.loop, fd, read_cb, close_cb)
            for fd, (read_cb, close_cb) in zip(process.fds, readers, strict=True)
        )
        for pipe in self._pipes[2:] if self._holders else self._pipes:
            pipe.read_start()
        process.watch(self.loop, self._exited)
        self._hooks.start()
        self._health = self.loop.create_task(Health(self, self._sinks).run())

    def _exited(self, exit: Exit) -> None:
        """The child has ended; its last output may still be in the pipes."""
        self.ended = exit
        exit.reason = self._reason(exit)
        self._flush_by = self.loop.time() + self._flush_timeout
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        self._pipes[2].drain()
        self._pipes[2].close()
        # More than this can only be somebody else's words, a grandchild's.
        self._own_bytes = self.bytes_read + sum(p.unread() for p in self._pipes[:2])
        if self._all_closed():
            self._end()
        else:
            self._drain_timer = self.loop.call_later(_DRAIN, self._drained)

    def _reason(self, exit: Exit) -> str:
        if self._why is not None:
            return self._why
        if exit.term_signal == _KILL:
            if self._killed:
                return self._killed
            if self.process is not None and self.process.oom_kills >= 0:
                from forza._oom import oom_kills

                if oom_kills() > self.process.oom_kills:
                    return "oom"
        return exit.reason

    def _pipe_closed(self) -> None:
        if self.ended is not None and self._all_closed():
            self._end()

    def _all_closed(self) -> bool:
        return all(pipe.closed for pipe in self._pipes[:2])

    def _drained(self) -> None:
        """Somebody holds the output open, or a sink takes its time."""
        if self.process is not None:
            self.process.kill_all()
        busy = self._holders or self.bytes_read < self._own_bytes
        # One sink may hold up the last words for half of their time: the other half
        # is for those that were waiting for them.
        if busy and self.loop.time() < self._flush_by - self._flush_timeout / 2:
            self._drain_timer = self.loop.call_later(_DRAIN, self._drained)
            return
        for pipe in self._pipes[:2]:
            pipe.drain()
        for pipe in self._pipes[:2]:
            pipe.close()

    def _end(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None
        self._ending = self.loop.create_task(self._finish())

    async def _finish(self) -> None:
        """Send the last words, flush, and let whoever waits go on."""
        assert self.ended is not None
        await self._hooks.stop()
        if self._health is not None:
            await end(self.loop, self._health)
        for sink in self._sinks:
            sink.announce()
        # Before the last word: who reads it may count on the app's being gone.
        await self._end_tree()
        self._hooks.call("process_exit", self.ended.exit_status, self.ended.term_signal)
        self.silent = True
        self._timers.close()
        await self._close_sinks(max(0.0, self._flush_by - self.loop.time()))
        settle(self._done, self.ended)

    async def _close_sinks(self, patience: float) -> None:
        closing = [
            (sink, self.loop.create_task(sink.close(patience))) for sink in self._sinks
        ]
        for sink, flush in closing:
            try:
                lost = await flush
            except Exception as error:  # one sink's trouble is not the others'
                self.say(f"cannot close {sink.name}: {type(error).__name__}: {error}")
                continue
            if lost:
                self.say(f"{lost} events were not delivered to {sink.name}")
        self._close_depot()

    async def _end_tree(self) -> None:
        """Kill what the app has left behind, and reap."""
        if self.process is None:
            return
        gone: Future[None] = self.loop.create_future()
        self.process.end(lambda: settle(gone))
        in_time = await wait(self.loop, gone, _KILLED)
        self.process.close(wait=in_time)
        if self.process.lost and self.process.adopts:
            from forza._orphans import end

            await end(self.loop)
        if self.process.group is not None and not self.process.group.remove():
            from forza._orphans import end_group

            await end_group(self.loop, self.process.group)

    async def _spawn_failed(self, error: SpawnError) -> None:
        self.ended = Exit(error.code, 0, reason=error.reason)
        self._started_at = monotonic()
        self._flush_by = self.loop.time() + self._flush_timeout
        self._hooks.stderr(f"forza: {error.strerror}\n".encode(errors="replace"))
        await self._finish()


async def run(args: Sequence[str], **settings: Any) -> Exit:
    """Run an app to its end and return how it ended; takes what `Monitor` takes.

    Cancelled, it stops the app first. Raises what `Monitor.start` raises.
    """
    async with Monitor(args, **settings) as monitor:
        return await monitor.wait()
