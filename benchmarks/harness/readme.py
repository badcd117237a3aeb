# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The main figures for the README, and their place in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .markdown import Line, chosen, number, table

__all__ = ["figures", "put_between_markers"]

BEGIN = "<!-- benchmarks:begin -->"
END = "<!-- benchmarks:end -->"
NOT_HERE = ("forza, plain imports", "cat", "C pump", "honcho")

# Heading, benchmark, which lines, field, digits.
COLUMNS: tuple[tuple[str, str, dict[str, object], str, int], ...] = (
    ("resident, MB", "memory", {"part": "idle", "drones": 1}, "rss_mb", 1),
    ("anonymous, MB", "memory", {"part": "idle", "drones": 1}, "anonymous_mb", 1),
    (
        "PSS per app at 100 apps, MB",
        "memory",
        {"part": "idle", "drones": 100},
        "pss_mb",
        1,
    ),
    ("app runs after, ms", "start", {}, "app_ms", 0),
    ("log lines/s", "logs", {"part": "flood"}, "lines_per_s", 0),
    ("CPU s per M lines", "logs", {"part": "flood"}, "cpu_s_per_million", 2),
)


def figures(found: Mapping[str, Sequence[Line]], report: str) -> str:
    """Return one table and a line that says where it comes from."""
    measured = {name: chosen(lines) for name, lines in found.items()}
    names = dict.fromkeys(
        str(line["subject"])
        for line in measured.get("memory", ())
        if line["subject"] not in NOT_HERE
    )
    columns = [column for column in COLUMNS if cells(measured, column)]
    rows = []
    for name in names:
        shown = [cells(measured, column).get(name, "–") for column in columns]  # noqa: RUF001
        rows.append([f"**{name}**" if name == "forza" else name, *shown])
    # Of other benchmarks nothing is shown here, so their runs do not date the table.
    shown_here = {column[1] for column in columns}
    lines = sorted((line for k in shown_here for line in found.get(k, ())), key=_when)
    line = next(one for one in reversed(lines) if one["subject"] == "forza")
    others = {name for name in names if "forza" not in name}
    peers = [one for one in lines if one["subject"] in others]
    commits = str(line["commit"])
    if peers and peers[-1]["commit"] != commits:
        commits += f" ({peers[-1]['commit']} for the others)"
    quick = ", a quick run" if "--quick" in str(line["command"]) else ""
    source = (
        f"Measured by `python benchmarks/report.py` on {line['machine']},"
        f" {line['kernel']}, {line['python']}, at commit {commits}{quick}:"
        f" [all figures and how they were taken]({report}). The others write log"
        " lines to files; forza sends each as a JSON event over TCP."
    )
    headers = ("monitor of one idle node app", *(column[0] for column in columns))
    return f"{table(headers, rows)}\n\n{source}"


def _when(line: Line) -> str:
    return str(line["time"])


def cells(
    measured: Mapping[str, Sequence[Line]],
    column: tuple[str, str, dict[str, object], str, int],
) -> dict[str, str]:
    """Return a column's text by subject."""
    _, benchmark, where, field, digits = column
    found = {}
    for line in chosen(measured.get(benchmark, ()), **where):
        value = number(line, field)
        if value is not None:
            found[str(line["subject"])] = f"{value:,.{digits}f}"
    return found


def put_between_markers(readme: Path, text: str) -> None:
    """Replace what stands between the two marker lines."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"report: {readme.name} has no {BEGIN} … {END}")
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
