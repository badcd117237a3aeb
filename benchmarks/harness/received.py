# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The report's section on receivers."""

from __future__ import annotations

from collections.abc import Sequence

from .markdown import Line, chosen, table
from .sections import Section, shown

__all__ = ["section"]


def section(results: Sequence[Line]) -> Section:
    """What receivers take from many drones, and what they hold meanwhile."""
    measured = [line for line in chosen(results) if "failed" not in line]
    rows = [
        [
            f"{shown(line, 'drones', 0)} connected: {line['subject']}",
            shown(line, "events_per_s", 0),
            shown(line, "cpu_s_per_million", 2),
            shown(line, "rss_mb", 1),
            shown(line, "pss_mb", 1),
            shown(line, "anonymous_mb", 1),
            shown(line, "peak_mb", 1),
            shown(line, "processes", 0),
            shown(line, "torn", 0),
        ]
        for line in sorted(measured, key=lambda line: int(str(line["drones"])))
    ]
    headers = (
        *("", "events/s", "CPU s per million events"),
        *("RSS, MB", "PSS", "anonymous", "peak RSS", "processes", "lines torn"),
    )
    text = (
        "Drones that send events of a log line each, as fast as they are taken, all at"
        " once. `forza listen --to file:` leaves out repeats, syncs to disk, and counts"
        " what it has acknowledged as safe; the others count what they have written,"
        " which a crash of the machine may still lose, and write down repeats. nc"
        " serves one client after the other; socat has a process for each, and their"
        " writes cut each other's lines. Memory is that of all the receiver's processes"
        " with all drones connected and nothing coming; the peak is during the flood."
        " The sender shares the machine's cores. Medians of interleaved rounds."
    )
    return "\n\n".join([text, table(headers, rows)]), {}
