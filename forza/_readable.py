# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Show events to a person at a terminal."""

from __future__ import annotations

from time import localtime, strftime

from orjson import JSONDecodeError, loads

_LOGS = {"logs/stdout": "out", "logs/stderr": "err"}
_WIDTH = 16
_HIDDEN = ("boot", "seq", "pid", "app", "raw", "kind")
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
    """Say in a few words what an event of forza's, or of the app's own, says."""
    metric, meta = event.get("metric"), event.get("meta")
    description = str(event.get("description", ""))
    meta = meta if isinstance(meta, dict) else {}
    if not isinstance(metric, int | float):
        figure = str(metric)
    elif service == "health/process/spawn":
        return f"pid {meta.get('pid')}"
    elif service == "health/process/exit":
        return f"status {description} ({meta.get('reason')})"
    elif service == "health/process/start" and not metric:
        return f"not started ({meta.get('reason')})"
    elif service == "health/process/memory":
        figure = f"{metric / 1e6:.1f} MB"
    elif service == "health/machine/memory":
        return f"{metric:.0%} of {meta.get('total', 0) / 1e6:.0f} MB"
    else:
        figure = f"{metric:.3f}".rstrip("0").rstrip(".")
    more = [f"{name}={value}" for name, value in meta.items() if name not in _HIDDEN]
    return " ".join(filter(None, (figure, *more, description)))
