# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Turn events and log lines into newline-delimited JSON, many lines at a time."""

from __future__ import annotations

from time import time

from orjson import OPT_PASSTHROUGH_DATACLASS, dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

# A log batch is encoded as one JSON string. Its newlines travel through the encoder
# as one of these bytes and are replaced afterwards by the end of one event and the
# beginning of the next. They qualify because JSON leaves them as they are and never
# makes them: no quote, no backslash, no letter of an escape. The first is the rarest.
_MARKS = tuple(bytes((c,)) for c in b"\x7f~`^|@#$%&*;<>?=_+!")

_DEEPEST = 100


class Encoder:
    """Encode what one monitor sends.

    Every event carries `meta.boot`, one monitor's life, and `meta.seq`, which counts
    batches without gaps. A batch is what one call returns: all its events share the
    time and the seq, so a receiver sees gaps and repeats by seq alone.
    """

    __slots__ = ("_fixed", "_host", "_services", "seq")

    def __init__(self, host: str, boot: str, app: tuple[str, str] | None) -> None:
        self.seq = 0
        self._host = _text(host)
        self._fixed: dict[str, object] = {"boot": boot, "seq": 0}
        if app is not None:
            self._fixed["app"] = {"user": _text(app[0]), "name": _text(app[1])}
        self._services: dict[str, bytes] = {}

    def set_pid(self, pid: int) -> None:
        """Name the child in every event from now on."""
        self._fixed["pid"] = pid

    def _meta(self) -> dict[str, object]:
        self.seq += 1
        self._fixed["seq"] = self.seq
        return self._fixed

    def event(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> bytes:
        """Return one event, newline included.

        A value in `meta` that JSON has no word for is sent as its `str()`.
        """
        record: dict[str, object] = {
            "metric": metric,
            "time": round(time(), 3),
            "host": self._host,
        }
        if description is not None:
            record["description"] = description
        record["service"] = service
        fixed = self._meta()
        record["meta"] = {**fixed, **meta, **fixed} if meta else fixed
        try:
            return dumps(record, str, OPT_PASSTHROUGH_DATACLASS) + b"\n"
        except TypeError:  # a lone surrogate, a key that is no string, too deep
            # An integer may have too many digits, even for a float.
            record["metric"] = float(metric) if abs(metric) < 1e308 else None
            return dumps(_presentable(record)) + b"\n"

    def lines(self, service: str, data: bytes) -> bytes:
        """Return one event for each line of `data`, their newlines kept.

        Every line but the last must end in a newline. A line that is not UTF-8 has
        its odd bytes replaced by U+FFFD, and its original in `meta.raw`, as base64.
        """
        if service not in self._services:
            self._services[service] = b',"service":' + dumps(service) + b',"meta":'
        fixed = {"metric": 1.0, "time": round(time(), 3), "host": self._host}
        begin = dumps(fixed)[:-1] + b',"description":'
        end = self._services[service] + dumps(self._meta()) + b"}\n"
        ended = data[-1:] == b"\n"
        for mark in _MARKS:
            if mark not in data:
                break
        else:
            return self._each(data, begin, end)
        try:
            text = (data[:-1] if ended else data).replace(b"\n", mark).decode()
        except UnicodeDecodeError:
            return self._each(data, begin, end)
        joint = b'\\n"' + end + begin + b'"'
        body = dumps(text).replace(mark, joint)
        return b"".join((begin, body[:-1], b'\\n"' if ended else b'"', end))

    def _each(self, data: bytes, begin: bytes, end: bytes) -> bytes:
        """Encode line by line: slower, and right for any bytes."""
        # Not a list of pieces: orjson allocates 4 kB for each result, however small,
        # and shrinks it in place, so that many of them hold much more than their sum.
        events = bytearray()
        for line in split_lines(data):
            try:
                events += begin + dumps(line.decode()) + end
            except UnicodeDecodeError:
                from binascii import b2a_base64  # 25 kB, with its library

                raw = b',"raw":"' + b2a_base64(line, newline=False) + b'"}}\n'
                text = dumps(line.decode(errors="replace"))
                events += begin + text + end[:-3] + raw
        return bytes(events)


def split_lines(data: bytes) -> list[bytes]:
    """Cut after each newline, and only there (`splitlines` knows more line ends)."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    if last:
        lines.append(last)
    return lines


def _presentable(value: object, depth: int = 0) -> object:
    """Return `value` with everything JSON has no word for as text."""
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {_text(str(k)): _presentable(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_presentable(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return _text(str(value))


def _text(text: str) -> str:
    return text.encode(errors="replace").decode()
