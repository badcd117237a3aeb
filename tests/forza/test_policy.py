# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold the restart policy to its figures, whatever the pattern of ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forza._policy import MAX_DELAY, Policy


def starts(uptimes: list[float], within: float, **options: object) -> list[float]:
    """Return when an app that lives so long each time, and then as at last, starts."""
    policy = Policy(options)
    now, failures, found = 0.0, 0, []
    ends: tuple[float, ...] = ()
    for turn in range(10_000):
        found.append(now)
        uptime = uptimes[min(turn, len(uptimes) - 1)]
        now += uptime
        if uptime >= policy.stable:
            failures = 0
        ends = policy.recent(ends, now)
        if policy.is_loop(ends):
            return found
        now += policy.delay(failures, 0.0)
        failures += 1
        if now > within:
            return found
    raise AssertionError("this is spinning")


def test_what_ends_at_once() -> None:
    """At most 12 starts in the first minute, two a minute after it, and then none."""
    found = starts([0.0], 3600.0)
    assert sum(start < 60 for start in found) == 6
    for minute in range(1, 60):
        assert sum(minute * 60 <= start < minute * 60 + 60 for start in found) <= 2
    assert len(found) == 20


def test_health_is_remembered() -> None:
    """After a minute of health the pause is the first again."""
    found = starts([0.0, 0.0, 0.0, 60.0, 0.0], 100.0, park=None)
    assert found[:6] == [0.0, 1.0, 3.0, 7.0, 68.0, 70.0]


@given(st.lists(st.floats(0.0, 120.0), min_size=1, max_size=50))
def test_it_never_spins(uptimes: list[float]) -> None:
    """Whatever the pattern: no two starts within a second, twelve at most a minute."""
    found = starts(uptimes, 7200.0, park=None)
    assert all(b - a >= 1.0 for a, b in pairwise(found))
    for start in found:
        assert sum(start <= other < start + 60 for other in found) <= 12


@given(st.integers(0, 10**6), st.floats(0.0, 1.0))
def test_jitter_and_cap(failures: int, chance: float) -> None:
    """A pause has a tenth on top at most, and grows up to the cap."""
    delay = Policy({}).delay(failures, chance)
    least = Policy({}).delay(failures, 0.0)
    assert least <= delay <= 1.1 * least
    assert least == min(2.0 ** min(failures, 64), MAX_DELAY)


def test_a_first_delay_over_the_longest() -> None:
    """--min-delay alone may be more than the longest delay is by default."""
    assert Policy({"min_delay": 100.0}).delay(0, 0.0) == 100.0
    assert Policy({"min_delay": 0.0}).delay(9, 1.0) == 0.0


@pytest.mark.parametrize(
    ("options", "goes_on"),
    [
        ({}, {0: True, 1: True, 137: True}),
        ({"restart": "on-failure"}, {0: False, 1: True, 143: True}),
        ({"restart": "never"}, {0: False, 1: False, 137: False}),
        ({"stop_codes": (0, 64)}, {0: False, 1: True, 64: False}),
        (
            {"restart": "on-failure", "stop_codes": (64,)},
            {0: False, 64: False, 1: True},
        ),
    ],
)
def test_which_ends_are_final(
    options: dict[str, object], goes_on: dict[int, bool]
) -> None:
    """--restart and --stop-codes say it, by status."""
    policy = Policy(options)
    assert {status: policy.goes_on(status) for status in goes_on} == goes_on


def test_ends_that_are_long_ago() -> None:
    """Only ends within the window count towards a crash loop."""
    policy = Policy({"park": (3, 10.0)})
    ends: tuple[float, ...] = ()
    for now in 0.0, 6.0, 12.0, 18.0:
        ends = policy.recent(ends, now)
        assert not policy.is_loop(ends)
    assert policy.is_loop(policy.recent(ends, 19.0))
    assert policy.recent((1.0, 2.0), 1000.0) == (1000.0,)
    assert Policy({"park": None}).recent((1.0,), 2.0) == ()
