# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The sections of the report: each turns result lines into text and drawings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .charts import bars, lines
from .markdown import Line, chosen, number, table

__all__ = ["Section", "idle", "logs", "memory", "soak", "start"]

OURS = "forza"

Point = tuple[float, float]
Section = tuple[str, dict[str, str]]  # Markdown, and drawings by file name

MEMORY_FIELDS = ("rss_mb", "pss_mb", "uss_mb", "anonymous_mb", "anonymous_once_mb")
MEMORY_HEADERS = ("RSS", "PSS", "USS", "anonymous", "of it once")


def shown(line: Line, name: str, digits: int = 1, unit: str = "") -> str:
    """Return a field as text, a dash where there is none."""
    value = number(line, name)
    return "–" if value is None else f"{value:,.{digits}f}{unit}"  # noqa: RUF001


def subject_of(line: Line) -> str:
    """Return the name for a table, ours in bold."""
    name = str(line["subject"])
    return f"**{name}**" if name == OURS else name


def memory(results: Sequence[Line]) -> Section:
    """Per drone at each count, the crossover, and forza under load."""
    parts = [
        "MB for each drone: one app with one monitor, or one more app under a shared"
        " daemon, all processes that are not the app summed. RSS counts shared pages"
        " in full in each process, PSS divides them, USS leaves them out; the last"
        " column counts anonymous pages that are shared by fork once. forza"
        " unmaps clean file pages once it has settled, which lowers RSS more than"
        " PSS. With 1 drone the app is a node web server that nobody asks; with more,"
        " a static C program that sleeps."
    ]
    drawings = {}
    idle_lines = chosen(results, part="idle")
    counts = sorted({int(number(line, "drones") or 0) for line in idle_lines})
    for count in counts:
        rows = [
            [
                subject_of(line),
                *(shown(line, field, 2) for field in MEMORY_FIELDS),
                shown(line, "processes", 0),
            ]
            for line in chosen(idle_lines, drones=count)
            if "failed" not in line
        ]
        drones = "1 drone" if count == 1 else f"{count} drones"
        headers = ("", *MEMORY_HEADERS, "processes in all")
        parts += [f"### {drones}, idle", table(headers, rows)]
        if count == 1:
            drawings["memory.svg"] = bars(
                "Memory of the monitor over one idle node app",
                "resident (RSS), MB; less is better",
                bar_rows(chosen(idle_lines, drones=1), "rss_mb", " MB", 1),
            )
            parts.append("![Memory of the monitor](memory.svg)")
    if len(counts) > 1:
        drawings["memory-drones.svg"] = lines(
            "Memory per drone as drones are added to one host",
            "proportional (PSS), MB for each drone; both axes logarithmic",
            per_count(idle_lines, counts),
            "drones on the host",
            logarithmic=True,
        )
        parts += crossover(idle_lines, counts)
    parts += under_load(results)
    return "\n\n".join(parts), drawings


def per_count(results: Sequence[Line], counts: Iterable[int]) -> dict[str, list[Point]]:
    """Return PSS over the number of drones for each subject."""
    series: dict[str, list[Point]] = {}
    for count in counts:
        for line in chosen(results, drones=count):
            value = number(line, "pss_mb")
            if value:
                series.setdefault(str(line["subject"]), []).append((count, value))
    return {name: points for name, points in series.items() if len(points) > 1}


def crossover(results: Sequence[Line], counts: Sequence[int]) -> list[str]:
    """Say from how many drones on each peer is lighter than forza.

    A straight line through the sums at the two largest counts: what the peer
    costs once, and what it costs for each app.
    """
    if counts[-2] < 2:
        return []  # the single app is another one
    series = per_count(results, counts[-2:])
    fits = {}
    for name, points in series.items():
        (n, a), (m, b) = points[0], points[-1]
        slope = (b * m - a * n) / (m - n)
        fits[name] = (a * n - slope * n, slope)
    if OURS not in fits:
        return []
    once, each = fits[OURS]
    rows = []
    for name, (their_once, their_each) in fits.items():
        if name == OURS:
            verdict = ""
        elif their_each >= each:
            verdict = "never" if their_once + their_each > once + each else "at few"
        else:
            apps = (their_once - once) / (each - their_each)
            verdict = "always" if apps <= 1 else f"from {int(apps) + 1} apps on"
        shown_name = f"**{name}**" if name == OURS else name
        rows.append([shown_name, f"{their_once:.1f}", f"{their_each:.2f}", verdict])
    headers = ("PSS, MB", "once", "for each app", f"lighter than {OURS}")
    return [
        "### Many apps on one host",
        "One monitor for each app costs the same again with every app; a daemon costs"
        " much once and little for each. From the sums at"
        f" {counts[-2]} and {counts[-1]} drones:",
        table(headers, rows),
        "![Memory per drone](memory-drones.svg)",
    ]


def under_load(results: Sequence[Line]) -> list[str]:
    """Show forza after a burst and before a receiver that has stopped reading."""
    rows = [
        [
            f"{line['subject']}: {shown(line, 'lines', 0)} lines, then idle"
            f" {shown(line, 'idle_s', 0)} s",
            *(shown(line, field, 2) for field in MEMORY_FIELDS),
            shown(line, "peak_mb", 2),
        ]
        for line in chosen(results, part="burst")
    ]
    rows += [
        [
            f"{line['subject']}: full speed, receiver stalled for 5 s",
            shown(line, "stalled_rss_mb", 2),
            *["–"] * 4,  # noqa: RUF001
            shown(line, "peak_mb", 2),
        ]
        for line in chosen(results, part="stall")
    ]
    if not rows:
        return []
    headers = ("MB", *MEMORY_HEADERS, "peak RSS")
    return ["### After and during floods", table(headers, rows)]


def bar_rows(
    results: Iterable[Line], field: str, unit: str, digits: int
) -> list[tuple[str, float, str]]:
    """Return the rows of a bar chart, smallest first."""
    rows = []
    for line in results:
        value = number(line, field)
        if value is not None:
            rows.append((str(line["subject"]), value, shown(line, field, digits, unit)))
    return sorted(rows, key=lambda row: row[1])


def logs(results: Sequence[Line]) -> Section:
    """Throughput, the app's own speed, the latency of metrics."""
    drawings = {}
    floods = chosen(results, part="flood")
    rows = [
        [
            subject_of(line),
            str(line.get("to", "")),
            shown(line, "lines_per_s", 0),
            shown(line, "of_cat", 2),
            shown(line, "of_c_pump", 2),
            shown(line, "cpu_s_per_million", 3),
            shown(line, "peak_mb", 1),
            shown(line, "lost", 0),
        ]
        for line in floods
    ]
    parts = [
        "A child writes lines of 93 bytes in writes of 64 kB, as fast as it can. forza"
        " and the C pump make one JSON event of each line and send it over TCP, cat"
        " sends the bytes as they are, s6-log, svlogd and honcho stamp each line, the"
        " others copy bytes. Writer, monitor and receiver share the machine's cores."
        " Medians of interleaved rounds.",
        table(
            (
                *("", "to", "lines/s", "of cat", "of the C pump"),
                *("CPU s per million lines", "peak RSS, MB", "lines lost"),
            ),
            rows,
        ),
    ]
    if floods:
        drawings["logs.svg"] = bars(
            "Log lines per second",
            "93-byte lines in large writes; more is better",
            bar_rows(floods, "lines_per_s", "", 0)[::-1],
        )
        parts.append("![Log lines per second](logs.svg)")
    app = chosen(results, part="app")
    if app:
        rows = [
            [
                subject_of(line),
                str(line["receiver"]) if line["subject"] != "file" else "",
                shown(line, "app_s", 3),
                shown(line, "of_file", 2),
                shown(line, "of_cat", 2),
            ]
            for line in app
        ]
        parts += [
            "### The app's own speed",
            f"A node app prints {shown(app[0], 'lines', 0)} short lines with"
            " `console.log`; how long its loop takes by its own clock. 1.00 is as fast"
            " as without a monitor.",
            table(("", "receiver", "seconds", "of a file", "of cat"), rows),
        ]
    for line in chosen(results, part="latency"):
        if "failed" in line:
            continue
        headers = ("ms from sending to arrival", "metrics", "median", "p99", "slowest")
        rows = [
            [
                name,
                shown(line, f"{kind}_metrics", 0),
                *(shown(line, f"{kind}_{p}_ms", 1) for p in ("p50", "p99", "max")),
            ]
            for kind, name in (("app", "the app's own"), ("own", "the monitor's"))
        ]
        parts += [
            f"### Metrics behind a flood: {line['subject']}",
            table(headers, rows),
        ]
    return "\n\n".join(parts), drawings


def start(results: Sequence[Line]) -> Section:
    """Time to the app and to the first event."""
    measured = chosen(results)
    rows = [
        [
            subject_of(line),
            shown(line, "app_ms", 1),
            shown(line, "app_of_bare_python", 2),
            shown(line, "first_event_ms", 1),
            shown(line, "first_event_of_bare_python", 2),
        ]
        for line in measured
    ]
    headers = (
        *("", "app runs, ms", "of bare python"),
        *("first event, ms", "of bare python"),
    )
    text = (
        "From the exec of the monitor to the first instruction of the app (for an"
        " interpreter without an app: to its end), and to the first bytes at the"
        " receiver. Bare python is `python -I -S -c pass`. Medians of interleaved"
        " rounds."
    )
    drawing = bars(
        "From exec to the app's first instruction",
        "milliseconds; less is better",
        bar_rows(
            [line for line in measured if "pass" not in str(line["subject"])],
            "app_ms",
            " ms",
            1,
        ),
    )
    parts = [text, table(headers, rows), "![Start-up](start.svg)"]
    return "\n\n".join(parts), {"start.svg": drawing}


def idle(results: Sequence[Line]) -> Section:
    """CPU time and wake-ups at rest."""
    rows = [
        [
            subject_of(line),
            shown(line, "cpu_percent", 4),
            shown(line, "wakeups_per_s", 2),
            shown(line, "processes", 0),
        ]
        for line in chosen(results)
        if "failed" not in line
    ]
    text = (
        "Over an idle node app, all side by side. Wake-ups are voluntary context"
        " switches of all the monitor's threads. forza with all its plugins sends"
        " its metrics meanwhile; the others send nothing."
    )
    headers = ("", "% of a core", "wake-ups per second", "processes")
    return "\n\n".join([text, table(headers, rows)]), {}


def soak(results: Sequence[Line]) -> Section:
    """Memory over time."""
    parts, drawings = [], {}
    for line in chosen(results):
        samples = line.get("samples")
        if not isinstance(samples, list):
            continue
        verdict = {True: "flat", False: "not flat", None: "not known"}[line["flat"]]  # type: ignore[index]
        parts.append(
            f"{line['subject']}: {shown(line, 'minutes', 0)} minutes of"
            f" {shown(line, 'rate_mb_per_s', 0)} MB of log lines a second, the receiver"
            f" away for a sixth of every {shown(line, 'cycle_s', 0)} s. Anonymous"
            f" memory grew by {shown(line, 'growth_mb', 3)} MB from the first cycle"
            f" after the warm-up to the last: {verdict}. Median"
            f" {shown(line, 'rss_mb', 2)} MB resident, {shown(line, 'anonymous_mb', 2)}"
            f" MB anonymous, peak {shown(line, 'peak_mb', 2)} MB,"
            f" {shown(line, 'cpu_percent', 1)} % of a core,"
            f" {shown(line, 'arrived', 0)} of {shown(line, 'lines', 0)} lines arrived."
        )
        if line["subject"] == OURS:
            drawings["soak.svg"] = lines(
                "Memory over time, receiver away while red",
                f"MB; {shown(line, 'rate_mb_per_s', 0)} MB of log lines a second",
                {
                    "resident": [(s[0] / 60, s[1]) for s in samples],
                    "anonymous": [(s[0] / 60, s[2]) for s in samples],
                },
                "minutes",
                shaded=outages(samples),
            )
            parts.append("![Memory over time](soak.svg)")
    return "\n\n".join(parts), drawings


def outages(samples: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    """Return from when to when, in minutes, the receiver was away."""
    spans: list[tuple[float, float]] = []
    begun: float | None = None
    for second, _, _, is_up in samples:
        if not is_up and begun is None:
            begun = second
        elif is_up and begun is not None:
            spans.append((begun / 60, second / 60))
            begun = None
    return spans
