# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say whether the app has started, and if not, what it has said so far."""

from __future__ import annotations

from forza._wait import end, settle
from forza.plugins import number
from forza.ready import DEFAULT, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Mapping

    from forza._monitor import Monitor
    from forza._process import ProcessOptions
    from forza.ready.log import Log
    from forza.ready.notify import Notify

_TAIL_BYTES = 64 * 1024
# Sources that look by themselves; the others are told by a callback.
_WATCHING = ("port", "tcp", "http", "exec")


class Start:
    """Send `health/process/start`, exactly once: 1 as soon as one of the sources of
    readiness (`ready`, one a line; docs/readiness.md) says that the app has started,
    and it has lived for `stable` seconds (0) from then.

    If that has not happened by `timeout` (15 s), or the app dies before, it is 0:
    its `description` is the app's output so far, at most the last 64 KiB, and its
    `meta.reason` is `timeout`, `exit` or `unstable`. The start event, good or bad, is
    also the one line of the start log. Further places where the app listens are
    `health/process/listen`; a start after the time-out is `health/process/late`.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self.monitor = monitor
        self.reported = False
        self._options = options
        self._deadline = number("start", options, "timeout", 15.0)
        self._stable = number("start", options, "stable", 0.0)
        self._watchdog = number("start", options, "watchdog", 0.0)
        self._sources = sources(options.get("ready", DEFAULT))
        self._kinds = {kind for kind, _ in self._sources}
        self._output: bytearray | None = bytearray()
        self._found: dict[str, object] | None = None
        self._told: set[object] = set()
        self._places: list[dict[str, object]] = []
        self._alarm: Future[None] | None = None
        self._log: Log | None = None
        self._notify: Notify | None = None
        if "log" in self._kinds:
            from forza.ready.log import Log

            self._log = Log([value for kind, value in self._sources if kind == "log"])
        if "ipc" in self._kinds and not monitor.options.ipc:
            monitor.say("--ready ipc: the command is not node, so see --ipc")
        if monitor.start_log is not None:
            from forza._startlog import prepare

            prepare(monitor.start_log)
        if monitor.process is None:
            from forza.ready.before import hook

            hook(options, monitor.options, platform=monitor.has_app)  # or say why not

    def process_options(self, options: ProcessOptions) -> None:
        if self.monitor.process is not None:  # whoever has spawned it has prepared it
            ear = int(self._options.get("ear", "-1"))
        else:
            from forza.ready.before import prepare

            ear = prepare(self._options, options, platform=self.monitor.has_app)
        if ear >= 0:
            from forza.ready.notify import Notify

            self._notify = Notify(self, ear, asked="notify" in self._kinds)

    async def run(self) -> None:
        loop = self.monitor.loop
        if self._notify is not None:
            self._notify.start()
        tasks = [loop.create_task(self._watch(*source)) for source in self._sources]
        try:
            await self._decide()
            if self._notify is not None and self._watchdog:
                while self._found is None:
                    await self._wake(loop.create_future())
                await self._notify.guard(self._watchdog)
            await loop.create_future()  # until the app's end
        finally:
            for task in tasks:
                await end(loop, task)
            if self._notify is not None:
                self._notify.close()

    def stdout_data(self, data: bytes) -> None:
        self._data("stdout", data)

    def stderr_data(self, data: bytes) -> None:
        self._data("stderr", data)

    def ipc_data(self, data: bytes) -> None:
        # node's process.send("port=80") puts it in quotes.
        name, _, digits = data.strip(b'"').partition(b"=")
        if name == b"port" and digits.isdigit() and len(digits) <= len("65535"):
            port = int(digits)
            if 0 < port < 65536:
                kind = "fd" if "fd" in self._kinds else "port"
                self.hear(kind, {"port": port})
                return
        if data == b'"ready"':
            self.hear("ipc")
        if data[:1] != b"{":
            self.hear("fd")

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        if self._notify is not None:  # it was never started, if nothing could run
            self._notify.close()
        if not self.reported:
            self._fail("exit" if self._found is None else "unstable")

    # What sources use.

    def hear(self, kind: str, where: dict[str, object] | None = None) -> None:
        """Take the word of a source: the app has started, or listens, or both."""
        if where:
            place = where.get("port", where.get("path"))
            if place in self._told:
                return
            self._told.add(place)
            self._places.append(where)
        if kind in self._kinds and self._found is None:
            self._found = {"ready": kind}
            if self.reported:  # as failed
                self._send("health/process/late")
                self._tell_ready()
            elif not self._stable:
                self._succeed()
            if self._alarm is not None:
                settle(self._alarm)
        if self.reported:
            self._tell_further()

    def extend(self, seconds: float) -> None:
        """Give the app so much time from now, if it has less."""
        self._deadline = max(self._deadline, self.monitor.clock() + seconds)

    def drain(self) -> None:
        """Hear first what has been said already."""
        if self._notify is not None:
            self._notify.read()

    # The course of things.

    async def _watch(self, kind: str, value: str) -> None:
        try:
            if kind == "none":
                self.hear(kind)
            elif kind in _WATCHING:
                module = __import__(f"forza.ready.{kind}", None, None, ["watch"])
                await module.watch(self, value)
        except Exception as error:  # the other sources may still do
            self.monitor.say(f"--ready {kind} failed: {type(error).__name__}: {error}")

    async def _decide(self) -> None:
        while self._found is None:
            left = self._deadline - self.monitor.clock()
            if left <= 0:
                self._fail("timeout")
                return
            await self._wake(self.monitor.sleep(left))
        if not self.reported:
            await self.monitor.sleep(self._stable)
            self._succeed()

    async def _wake(self, alarm: Future[None]) -> None:
        """Wait for this alarm, or until a source says something."""
        self._alarm = alarm
        await alarm

    def _data(self, stream: str, data: bytes) -> None:
        output = self._output
        if output is None:
            return
        output += data
        if len(output) > 2 * _TAIL_BYTES:
            del output[:-_TAIL_BYTES]
        if self._log is not None and self._log.data(stream, data):
            self.hear("log")

    def _succeed(self) -> None:
        if not self._places and self._kinds.isdisjoint(("port", "none")):
            self._look()
        self._report(self._send("health/process/start"))
        self._tell_ready()
        self._tell_further()

    def _tell_further(self) -> None:
        for further in self._places:
            self.monitor.send("health/process/listen", 1.0, meta=further)
        self._places.clear()

    def _look(self) -> None:
        """See where an app listens that has said that it is ready, but not where."""
        process = self.monitor.process
        if process is not None and process.pid:
            from forza.ready.port import Ports

            ports = Ports(process, self.monitor.say)
            self._places += ports.look()
            ports.close()
            self._told.update(p.get("port", p.get("path")) for p in self._places)

    def _send(self, service: str) -> bytes:
        where = self._places.pop(0) if self._places else {}
        meta = {**(self._found or {}), **where}
        return self.monitor.send(service, 1.0, None, meta, lifecycle=True)

    def _fail(self, reason: str) -> None:
        output = bytes(self._output or b"")[-_TAIL_BYTES:].decode(errors="replace")
        meta = {"reason": reason}
        self._report(
            self.monitor.send("health/process/start", 0.0, output, meta, lifecycle=True)
        )

    def _report(self, event: bytes) -> None:
        self.reported = True
        self._output = self._log = None
        if self.monitor.start_log is not None:
            from forza._startlog import write

            try:
                write(self.monitor.start_log, event)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                self.monitor.say(f"cannot write the start log: {reason}")
        if self.monitor.ready_fd is not None:
            from forza._upward import tell_line

            tell_line(self.monitor.ready_fd, event)
            self.monitor.ready_fd = None

    def _tell_ready(self) -> None:
        if self.monitor.notify_socket is not None:
            from forza._upward import notify

            notify(self.monitor.notify_socket, "READY=1\nSTATUS=running")
