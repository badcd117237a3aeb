# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The section of the report on many drones: time, CPU and memory by their number."""

from __future__ import annotations

from collections.abc import Sequence

from .charts import lines
from .markdown import Line, chosen, number, table
from .sections import Section, shown

__all__ = ["section"]

OURS = "solenoid"
KINDS = {"asyncssh": "", "sshd": " of OpenSSH"}


def section(results: Sequence[Line]) -> Section:
    """Tables for each number of drones, and a drawing of time over it."""
    parts = [
        "`true` on many drones, from the start of the program to its end, connections,"
        " host keys and public-key authentication included, at most 64 drones at a"
        " time. Drones are SSH servers of asyncssh in two processes, or real ones, each"
        " in a network namespace of its own with a cable to one bridge, on the same"
        " machine: what they take of its cores is in the seconds, and not in"
        " the CPU time, which is the program's with all that it starts. Memory is the"
        " peak of their PSS, looked at ten times a second. Medians of interleaved"
        " rounds; of 1,000 drones one round. parallel-ssh, whose protocol is in C, is a"
        " program of five lines by its documentation and asks for no host key; ansible"
        " is its `raw` module."
    ]
    measured = [line for line in chosen(results) if "failed" not in line]
    for kind, name in KINDS.items():
        counts = {int(number(line, "drones") or 0) for line in measured}
        for count in sorted(counts):
            found = chosen(measured, part=kind, drones=count)
            if not found:
                continue
            plural = "drone" if count == 1 else "drones"
            headers = ("", "seconds", "CPU, s", "CPU ms per drone", "peak, MB")
            rows = [
                [
                    f"**{OURS}**" if line["subject"] == OURS else str(line["subject"]),
                    shown(line, "seconds", 2),
                    shown(line, "cpu_s", 2),
                    shown(line, "cpu_ms_per_drone", 1),
                    shown(line, "peak_mb", 1),
                ]
                for line in found
            ]
            ports = any(line.get("network") == "loopback" for line in found)
            where = ", on ports of loopback" if ports and name else ""
            parts += [f"### {count:,} {plural}{name}{where}", table(headers, rows)]
    drawing = lines(
        "A command on many drones",
        "seconds from start to end; both axes logarithmic; less is better",
        over_counts(chosen(measured, part="asyncssh")),
        "drones",
        logarithmic=True,
    )
    parts.append("![A command on many drones](drones.svg)")
    return "\n\n".join(parts), {"drones.svg": drawing}


def over_counts(measured: Sequence[Line]) -> dict[str, list[tuple[float, float]]]:
    """Return each program's seconds by the number of drones."""
    series: dict[str, list[tuple[float, float]]] = {}
    for line in measured:
        count, seconds = number(line, "drones"), number(line, "seconds")
        if count is not None and seconds is not None:
            series.setdefault(str(line["subject"]), []).append((count, seconds))
    return {name: sorted(points) for name, points in series.items()}
