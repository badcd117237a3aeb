# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Medians and percentiles, rounded for a result line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import linear_regression
from statistics import median as exact_median

from .results import Result

__all__ = ["median", "median_of_each", "percentile", "slope"]


def median(values: Iterable[object]) -> float | None:
    """Return the middle of the numbers among the values; None without any."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return exact_median(numbers) if numbers else None


def median_of_each(runs: Sequence[Result]) -> Result:
    """Return the median of each field over some runs, whole where they all are."""
    merged: Result = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        middle = median(values)
        if middle is not None and all(isinstance(value, int) for value in values):
            middle = round(middle)
        merged[name] = middle if middle is not None else values[0]
    return merged


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest value that so many percent do not exceed."""
    if not values:
        return None
    rank = max(0, -(-len(values) * percent // 100) - 1)
    return round(sorted(values)[int(rank)], 3)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return by how much the second grows for one of the first."""
    return linear_regression(*zip(*points, strict=True)).slope
