# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The figures that the project set out to reach, held against the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .markdown import Line, chosen, number, table

__all__ = ["held_against_aims"]

OURS = "forza"


@dataclass(frozen=True)
class Aim:
    """A bound on one field of one result line."""

    words: str
    benchmark: str
    name: str
    bound: float
    unit: str = ""
    at_least: bool = False
    where: Mapping[str, object] = field(default_factory=dict)
    subject: str = OURS

    def is_met(self, value: float) -> bool:
        """Tell whether the value keeps to the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


IDLE = {"part": "idle", "drones": 1}
BURST = {"part": "burst"}
FLOOD = {"part": "flood"}
LATENCY = {"part": "latency"}

AIMS = (
    Aim("monitor, idle: resident", "memory", "rss_mb", 10, " MB", where=IDLE),
    Aim("monitor, idle: anonymous", "memory", "anonymous_mb", 4.5, " MB", where=IDLE),
    Aim(
        *("monitor and keeper, idle: PSS", "memory", "pss_mb", 11, " MB"),
        where=IDLE,
        subject="forza --keep",
    ),
    Aim(
        "monitor and keeper, idle: anonymous, shared pages once",
        "memory",
        "anonymous_once_mb",
        6,
        " MB",
        where=IDLE,
        subject="forza --keep",
    ),
    Aim("after 1,000,000 lines: resident", "memory", "rss_mb", 11, " MB", where=BURST),
    Aim(
        *("after 1,000,000 lines: anonymous", "memory", "anonymous_mb", 5.5, " MB"),
        where=BURST,
    ),
    Aim(
        *("peak, receiver stalled in mid-flood", "memory", "peak_mb", 16, " MB"),
        where={"part": "stall"},
    ),
    Aim("log lines a second", "logs", "lines_per_s", 3e6, "", True, where=FLOOD),
    Aim("CPU per million lines", "logs", "cpu_s_per_million", 0.3, " s", where=FLOOD),
    Aim("log lines lost", "logs", "lost", 0, "", where=FLOOD),
    *(
        Aim(
            *(f"app's time, {receiver}, of cat's", "logs", "of_cat", 1.05),
            where={"part": "app", "receiver": receiver},
        )
        for receiver in (
            "receiver up",
            "connection refused",
            "black hole",
            "receiver stalled",
        )
    ),
    Aim("metrics behind a flood, p99", "logs", "app_p99_ms", 100, " ms", where=LATENCY),
    Aim("app starts, of bare python", "start", "app_of_bare_python", 2),
    Aim("first event, of bare python", "start", "first_event_of_bare_python", 5),
    Aim("idle CPU", "idle", "cpu_percent", 0.05, " %"),
    Aim("idle wake-ups a second", "idle", "wakeups_per_s", 0.21),
    Aim("growth in the soak", "soak", "growth_mb", 0.25, " MB"),
    *(
        Aim(f"{words} in the stress", "stress", name, 0, "")
        for words, name in (
            ("exit events missing", "exits_missing"),
            ("processes left", "orphans"),
            ("files left", "files_left"),
            ("descriptors left", "descriptors_left"),
        )
    ),
)


# solenoid's.
AIMS += (
    Aim(
        *("2 GiB by a presigned URL: peak", "deploy", "peak_mb", 30, " MB"),
        where={"part": "huge"},
        subject="solenoid, presigned",
    ),
    Aim(
        *("2 GiB by the S3 client: peak", "deploy", "peak_mb", 80, " MB"),
        where={"part": "huge"},
        subject="solenoid, s3:",
    ),
    Aim(
        *("start by a presigned URL: peak", "deploy", "peak_mb", 30, " MB"),
        where={"part": "start"},
        subject="solenoid, presigned",
    ),
    Aim(
        *("rollback", "deploy", "s", 5, " s"),
        where={"part": "rollback"},
        subject="solenoid",
    ),
    Aim(
        *("unpack with isal, of tar's time", "unpack", "of_tar", 1),
        subject="solenoid, isal",
    ),
)


def held_against_aims(found: Mapping[str, Sequence[Line]]) -> str:
    """Return a table of the aims, what was measured, and whether it is enough."""
    rows = []
    for aim in AIMS:
        for line in chosen(
            found.get(aim.benchmark, ()), subject=aim.subject, **aim.where
        ):
            value = number(line, aim.name)
            if value is None:
                continue
            sign = "≥" if aim.at_least else "≤"
            rows.append(
                [
                    aim.words,
                    f"{sign} {aim.bound:,g}{aim.unit}"
                    if aim.bound < 1e6
                    else f"{sign} {aim.bound:,.0f}",
                    f"{value:,.0f}" if aim.bound >= 1e6 else f"{value:,.4g}{aim.unit}",
                    "yes" if aim.is_met(value) else "**no**",
                ]
            )
    return table(("forza", "aim", "measured", "met"), rows)
