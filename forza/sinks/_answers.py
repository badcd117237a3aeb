# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand what a receiver of forza's own says; ignore what anybody else does."""

from __future__ import annotations

from orjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza.sinks._unacked import Unacked

# What we are told is shorter; a line that is longer is not meant for us.
_LONGEST = 512
_VERSION = 1
_ACK = b'{"ack":'


class Answers:
    """What one connection says: a greeting, then acknowledgements, a line each.

        {"forza":"listen","version":1}
        {"ack":{"boot":"0123456789abcdef","seq":7,"events":120}}

    Whoever begins with anything else is no receiver of ours, and not listened to.
    """

    __slots__ = ("_ignored", "_tail", "_unacked")

    def __init__(self, unacked: Unacked) -> None:
        self._unacked = unacked
        self._tail = b""
        self._ignored = False

    def data(self, data: bytes) -> bool:
        """Take what was said, and return whether any of it was of use."""
        if self._ignored:
            return False
        *lines, tail = (self._tail + data).split(b"\n")
        self._tail = tail[: _LONGEST + 1]
        useful = False
        if not self._unacked.acking:
            if not lines and len(tail) <= _LONGEST:
                return False  # its first line goes on
            useful = self._greeting(lines.pop(0) if lines else tail)
            if not useful:
                return False
        for line in reversed(lines):
            # The last one says all that those before it do, and is the only one that
            # is looked at: a peer that lies without end shall not keep us busy.
            if line.startswith(_ACK):
                return self._acknowledged(_parse(line).get("ack")) or useful
        return useful

    def _greeting(self, line: bytes) -> bool:
        said = _parse(line)
        if said.get("forza") == "listen" and said.get("version") == _VERSION:
            self._unacked.greets()
            return True
        self._ignored = True
        self._unacked.is_plain()
        return False

    def _acknowledged(self, ack: object) -> bool:
        if not isinstance(ack, dict):
            return False
        boot, seq, events = ack.get("boot"), ack.get("seq"), ack.get("events")
        if not isinstance(boot, str) or type(seq) is not int or type(events) is not int:
            return False
        return self._unacked.acked(boot, seq, events)


def _parse(line: bytes) -> dict[str, object]:
    try:
        said = loads(line) if len(line) <= _LONGEST else None
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
