# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Show events to a person at a terminal."""

from __future__ import annotations

from time import localtime, strftime

from orjson import JSONDecodeError, loads

_LOGS = {"logs/stdout": "out", "logs/stderr": "err"}
_WIDTH = 16
_EVERYWHERE = ("boot", "seq", "pid", "app", "raw")
_DIM, _RED, _CYAN, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[36m", "\x1b[0m"


class Renderer:
    """Turn batches of events into lines: time, what, and the text or the figure.

    The app's own colours are left alone; forza's are used only if `colour` is true.
    """

    __slots__ = ("_colour",)

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def render(self, batch: bytes) -> bytes:
        """Return the readable form of a batch of newline-delimited JSON."""
        lines = "".join(map(self._line, batch.splitlines()))
        return lines.encode(errors="replace")

    def _line(self, line: bytes) -> str:
        try:
            event = loads(line)
            clock = strftime("%H:%M:%S", localtime(event["time"]))
            service = str(event["service"])
        except (JSONDecodeError, KeyError, TypeError, ValueError):
            return f"{line.decode(errors='replace')}\n"  # not an event of ours
        label = _LOGS.get(service)
        if label is None:
            label = service.removeprefix("health/").removeprefix("process/")
            text = _figure(service, event)
            paint = _CYAN
        else:
            text = event.get("description", "")
            paint = _RED if label == "err" else ""
        text = text.removesuffix("\n")
        if not self._colour:
            return f"{clock} {label:{_WIDTH}} {text}\n"
        label = f"{label:{_WIDTH}}"
        painted = f"{paint}{label}{_PLAIN}" if paint else label
        return f"{_DIM}{clock}{_PLAIN} {painted} {text}{_PLAIN}\n"


def _figure(service: str, event: dict[str, object]) -> str:
    metric = event.get("metric")
    meta = event.get("meta")
    if service == "health/process/memory" and isinstance(metric, int | float):
        words = [f"{metric / 1e6:.1f} MB"]
    elif service == "health/machine/memory" and isinstance(metric, int | float):
        words = [f"{metric:.0%}"]
    elif isinstance(metric, float):
        words = [f"{metric:.3f}".rstrip("0").rstrip(".")]
    else:
        words = [str(metric)]
    if isinstance(meta, dict):
        if service == "health/process/spawn":
            words = [f"pid {meta.get('pid')}"]
        words += [f"{k}={v}" for k, v in meta.items() if k not in _EVERYWHERE]
    description = event.get("description")
    if isinstance(description, str) and description:
        words.append(description)
    return " ".join(words)
