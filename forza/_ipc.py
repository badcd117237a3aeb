# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand what the app says on descriptor 3: its own metrics, and other messages."""

from __future__ import annotations

from orjson import JSONDecodeError, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Send(Protocol):
        def __call__(
            self,
            service: str,
            metric: float,
            description: str | None = None,
            meta: dict[str, object] | None = None,
        ) -> object: ...


_LONGEST = 64 * 1024
# What forza itself tells of the app: nobody else shall seem to be forza.
_OURS = ("health/process/", "health/machine/", "telemetry/")
_LOGS = ("logs/stdout", "logs/stderr")


class Channel:
    """Cut messages at newlines; node's `process.send` writes each as one of JSON.

    An object with a `service`, none of forza's own, and a `metric` becomes an event of
    the app's. Any other message, up to 64 KiB, goes to `message_cb` as bytes, newline
    removed.
    """

    __slots__ = ("_message_cb", "_send", "_skip", "_tail")

    def __init__(self, send: Send, message_cb: Callable[[bytes], object]) -> None:
        self._send = send
        self._message_cb = message_cb
        self._tail = b""
        self._skip = False

    def data(self, data: bytes) -> None:
        """Take what was read; a message may come in several pieces."""
        *messages, self._tail = (self._tail + data).split(b"\n")
        for message in messages:
            if not self._skip:
                self._message(message)
            self._skip = False
        if len(self._tail) > _LONGEST:
            self._tail = b""
            self._skip = True

    def close(self) -> None:
        """Take an unfinished message as it is."""
        if self._tail and not self._skip:
            self._message(self._tail)
        self._tail = b""

    def _message(self, message: bytes) -> None:
        if message[:1] == b"{" and (event := _event(message)) is not None:
            self._send(*event)
        else:
            self._message_cb(message)


def _event(
    message: bytes,
) -> tuple[str, float, str | None, dict[str, object] | None] | None:
    try:
        record = loads(message)
    except JSONDecodeError:
        return None
    service, metric = record.get("service"), record.get("metric")
    if not isinstance(service, str) or not service:
        return None
    if service.startswith(_OURS) or service in _LOGS:
        return None
    if isinstance(metric, bool) or not isinstance(metric, int | float):
        return None
    description, meta = record.get("description"), record.get("meta")
    return (
        service,
        metric,
        description if isinstance(description, str) else None,
        meta if isinstance(meta, dict) else None,
    )
