# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Draw bars and lines as SVG that reads well on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["Bar", "Line", "bars", "lines"]

Bar = tuple[str, float, str]  # name, value, value as text
Line = Sequence[tuple[float, float]]

WIDTH = 760
OURS = "forza"
ACCENT = "#c2410c"
PLAIN = "#94a3b8"
PALE = "#fdba74"
SHADES = (
    *("#fb923c", "#2563eb", "#0d9488", "#7c3aed", "#ca8a04"),
    *("#64748b", "#db2777", "#4d7c0f", "#0891b2", "#a16207"),
)
STYLE = (
    "text{font:13px system-ui,-apple-system,Segoe UI,Helvetica,Arial,sans-serif;"
    "fill:#1e293b}.title{font-size:15px;font-weight:600}.small{font-size:11.5px;"
    "fill:#64748b}.end{text-anchor:end}.middle{text-anchor:middle}"
)


def svg(height: float, title: str, subtitle: str, body: Sequence[str]) -> str:
    """Wrap a drawing in its frame, with a background of its own."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" '
            f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
            f'aria-label="{escape(title)}">',
            f"<style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height:.0f}" rx="8" fill="#ffffff"/>',
            text(20, 28, title, "title"),
            text(20, 47, subtitle, "small"),
            *body,
            "</svg>",
            "",
        )
    )


def text(x: float, y: float, words: str, kind: str = "", fill: str = "") -> str:
    """Place some words."""
    marks = f' class="{kind}"' if kind else ""
    marks += f' style="fill:{fill}"' if fill else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{marks}>{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, colour: str = "#e2e8f0") -> str:
    """Draw a thin straight line."""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
        f'stroke="{colour}"/>'
    )


def bars(title: str, subtitle: str, rows: Sequence[Bar]) -> str:
    """Draw one horizontal bar for each row; ours stand out."""
    left, right, step, top = 165.0, 95.0, 27.0, 64.0
    most = max((value for _, value, _ in rows), default=1) or 1
    body = []
    for i, (name, value, label) in enumerate(rows):
        y = top + i * step
        length = max(1.0, value / most * (WIDTH - left - right))
        colour = ACCENT if name == OURS else PALE if OURS in name else PLAIN
        body += [
            text(left - 8, y + 14, name, "end"),
            f'<rect x="{left}" y="{y:.1f}" width="{length:.1f}" height="19" rx="2" '
            f'fill="{colour}"/>',
            text(left + length + 6, y + 14, label),
        ]
    return svg(top + len(rows) * step + 14, title, subtitle, body)


def lines(
    title: str,
    subtitle: str,
    series: Mapping[str, Line],
    axis: str,
    logarithmic: bool = False,
    shaded: Sequence[tuple[float, float]] = (),
) -> str:
    """Draw series over a common axis, each named at its end."""
    left, right, top, height = 62.0, 150.0, 66.0, 300.0
    points = [point for line in series.values() for point in line]
    x_ticks = ticks([x for x, _ in points], logarithmic, from_zero=False)
    y_ticks = ticks([y for _, y in points], logarithmic, from_zero=True)

    def place(value: float, marks: Sequence[float], start: float, end: float) -> float:
        low, high = marks[0], marks[-1]
        if logarithmic:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return start + (value - low) / ((high - low) or 1) * (end - start)

    def at_x(value: float) -> float:
        return place(value, x_ticks, left, WIDTH - right)

    def at_y(value: float) -> float:
        return place(value, y_ticks, top + height, top)

    body = [
        f'<rect x="{at_x(a):.1f}" y="{top}" width="{at_x(b) - at_x(a):.1f}" '
        f'height="{height}" fill="#fee2e2"/>'
        for a, b in shaded
    ]
    for tick in y_ticks:
        body.append(rule(left, at_y(tick), WIDTH - right, at_y(tick)))
        body.append(text(left - 8, at_y(tick) + 4, f"{tick:g}", "small end"))
    for tick in x_ticks:
        body.append(rule(at_x(tick), top + height, at_x(tick), top + height + 5))
        label = text(at_x(tick), top + height + 19, f"{tick:g}", "small middle")
        body.append(label)
    middle = left + (WIDTH - right - left) / 2
    body.append(text(middle, top + height + 38, axis, "small middle"))
    shades = iter(SHADES * 3)
    names: list[tuple[float, str, str]] = []
    for name, line in series.items():
        colour = ACCENT if name == OURS else next(shades)
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in line)
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" '
            f'stroke-width="{2.5 if name == OURS else 1.6}"/>'
        )
        names.append((at_y(line[-1][1]), name, colour))
    lowest = 0.0
    for y, name, colour in sorted(names):  # pushed apart where they would overlap
        lowest = max(y + 4, lowest + 15)
        body.append(text(WIDTH - right + 8, lowest, name, "", colour))
    return svg(top + height + 54, title, subtitle, body)


def ticks(values: Sequence[float], logarithmic: bool, from_zero: bool) -> list[float]:
    """Choose round numbers that enclose the values."""
    low, high = min(values), max(values)
    if logarithmic:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        return [10.0**n for n in range(first, max(last, first + 1) + 1)]
    low = 0.0 if from_zero else low
    raw = (high - low) / 6 or 1
    power = 10 ** math.floor(math.log10(raw))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= raw)
    start = math.floor(low / step)
    return [step * n for n in range(start, math.ceil(high / step) + 1)]
