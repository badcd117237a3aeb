# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say whether the app has started, and if not, what it has said so far."""

from __future__ import annotations

import os

from forza._errors import SinkError
from forza.plugins import number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._monitor import Monitor

_TAIL_BYTES = 64 * 1024


class Start:
    """Send `health/process/start` 1 with `meta.port` once the app says `port=N` on
    descriptor 3 (in node: `process.send("port=80")`), and `health/process/listen` for
    each further port.

    If it has not by `timeout` (15 s), or dies before, send `health/process/start` 0:
    its `description` is the app's output so far, at most the last 64 KiB, and its
    `meta.reason` is `timeout` or `exit`. The first start event, good or bad, is also
    the one line of the start log.
    """

    def __init__(self, monitor: Monitor, options: Mapping[str, str]) -> None:
        self._monitor = monitor
        self._timeout = number("start", options, "timeout", 15.0)
        self._output: bytearray | None = bytearray()
        self._started = False
        self._reported = False
        if monitor.start_log is not None:
            prepare(monitor.start_log)

    async def run(self) -> None:
        await self._monitor.sleep(self._timeout)
        if not self._started:
            self._fail("timeout")

    def stdout_data(self, data: bytes) -> None:
        output = self._output
        if output is not None:
            output += data
            if len(output) > 2 * _TAIL_BYTES:
                del output[:-_TAIL_BYTES]

    stderr_data = stdout_data

    def ipc_data(self, data: bytes) -> None:
        # node's process.send("port=80") puts it in quotes.
        name, _, number = data.strip(b'"').partition(b"=")
        if name == b"port" and number.isdigit() and len(number) <= len("65535"):
            port = int(number)
            if 0 < port < 65536:
                self._listening(port)

    def process_exit(self, exit_status: int, term_signal: int) -> None:
        if not self._reported:
            self._fail("exit")

    def _listening(self, port: int) -> None:
        if self._started:
            self._monitor.send("health/process/listen", 1.0, meta={"port": port})
            return
        self._started = True
        self._report(1.0, None, {"port": port})

    def _fail(self, reason: str) -> None:
        output = bytes(self._output or b"")[-_TAIL_BYTES:]
        self._report(0.0, output.decode(errors="replace"), {"reason": reason})

    def _report(
        self, metric: float, description: str | None, meta: dict[str, object]
    ) -> None:
        event = self._monitor.send(
            "health/process/start", metric, description, meta, lifecycle=True
        )
        self._output = None
        if self._monitor.start_log is not None and not self._reported:
            _append(self._monitor.start_log, event)
        self._reported = True


def prepare(path: str) -> None:
    """Make the start log, or empty it. Raises SinkError."""
    try:
        os.close(_open(path, os.O_TRUNC))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SinkError(f"cannot write the start log {path}: {reason}") from error


def _append(path: str, line: bytes) -> None:
    fd = _open(path, os.O_APPEND)
    try:
        os.write(fd, line)
    finally:
        os.close(fd)


def _open(path: str, flags: int) -> int:
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, 0o644)
