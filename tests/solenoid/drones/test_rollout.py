# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The order of a change, whatever happens: who begins, who does not, what is undone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solenoid.drones._rollout import Ending, Rollout, Strategy, share

SHARES = st.one_of(
    st.integers(1, 60), st.integers(1, 100).map(lambda number: f"{number}%")
)
STRATEGIES = st.builds(
    Strategy,
    canary=st.integers(0, 5),
    batch=SHARES,
    max_fail=st.one_of(st.none(), st.integers(0, 20), SHARES),
)


class Course:
    """A change that runs with drawn endings, in a drawn order, and what it did."""

    def __init__(self, names: list[str], strategy: Strategy, data: st.DataObject):
        self.rollout = rollout = Rollout(names, strategy)
        self.begun: list[str] = []
        self.begun_after_stop: list[str] = []
        self.running_when_stopped: set[str] = set()
        self.overlaps = 0
        batch_of = {
            name: number
            for number, batch in enumerate(strategy.batches(names))
            for name in batch
        }
        while not rollout.over:
            if rollout.due:
                rollout.advance()
                continue
            stopped = bool(rollout.stopped)
            may_begin = not stopped and data.draw(st.booleans())
            name = rollout.take() if may_begin or not rollout.running else None
            if name is not None:
                self.begun.append(name)
                if stopped:
                    self.begun_after_stop.append(name)
                if len({batch_of[other] for other in rollout.running}) > 1:
                    self.overlaps += 1
            elif rollout.running:
                settled = data.draw(st.sampled_from(sorted(rollout.running)))
                ending: Ending = data.draw(
                    st.sampled_from(("changed", "changed", "same", "failed"))
                )
                rollout.settle(settled, ending)
                if rollout.stopped and not stopped:
                    self.running_when_stopped = set(rollout.running)


@given(st.integers(0, 40), STRATEGIES, st.data())
def test_any_course(count: int, strategy: Strategy, data: st.DataObject) -> None:
    """Order kept, batch after batch, stopped in time, undone what was changed."""
    names = [f"web{number}" for number in range(count)]
    course = Course(names, strategy, data)
    rollout = course.rollout
    assert course.begun == names[: len(course.begun)]
    assert course.begun_after_stop == []
    assert course.overlaps == 0
    assert set(rollout.endings) == set(course.begun)
    assert [*course.begun, *rollout.untouched] == names
    allowed, failed = strategy.allowed(count), len(rollout.failed)
    if rollout.stopped:
        late = {name for name in rollout.failed if name in course.running_when_stopped}
        canary = set(names[: strategy.canary]) & set(rollout.failed)
        assert canary or failed - len(late) == allowed + 1
    else:
        assert rollout.untouched == []
        assert failed <= allowed
        assert not set(names[: strategy.canary]) & set(rollout.failed)
    undone = [name for batch in rollout.to_undo() for name in batch]
    changed = [name for name in names if rollout.endings.get(name) == "changed"]
    assert undone == changed[::-1]


@given(st.integers(0, 300), STRATEGIES)
def test_batches(count: int, strategy: Strategy) -> None:
    """Everybody is in one batch, in order, the canary first and alone."""
    names = [f"web{number}" for number in range(count)]
    batches = strategy.batches(names)
    assert [name for batch in batches for name in batch] == names
    assert all(batches)
    if strategy.canary and names:
        assert len(batches[0]) == min(strategy.canary, count)
        batches = batches[1:]
    size = max(1, share(strategy.batch, count, up=True))
    assert all(len(batch) == size for batch in batches[:-1])


@given(st.integers(1, 30), st.integers(0, 30), st.data())
def test_stopped_by_hand(count: int, after: int, data: st.DataObject) -> None:
    """Once stopped nobody begins, and those in the middle still end."""
    names = [f"web{number}" for number in range(count)]
    rollout = Rollout(names, Strategy())
    begun = [rollout.take() for _ in range(min(after, count))]
    rollout.stop("interrupted")
    rollout.stop("interrupted again")
    assert rollout.take() is None
    assert rollout.untouched == names[len(begun) :]
    for name in data.draw(st.permutations(begun)):
        assert not rollout.over
        assert name is not None
        rollout.settle(name, data.draw(st.sampled_from(("changed", "failed"))))
    assert rollout.over
    assert rollout.stopped == "interrupted"


@pytest.mark.parametrize(
    ("text", "total", "up", "expected"),
    [
        (3, 100, True, 3),
        ("3", 1, True, 3),
        ("25%", 100, True, 25),
        ("25%", 3, True, 1),
        ("25%", 3, False, 0),
        ("10%", 99, False, 9),
        ("100%", 7, True, 7),
        ("0%", 7, False, 0),
    ],
)
def test_share(text: int | str, total: int, up: bool, expected: int) -> None:
    """Batches are rounded up, so that there is one; failures down, to be safe."""
    assert share(text, total, up=up) == expected


@pytest.mark.parametrize("text", ["", "-1", "a", "5.5", "101%", "5 %", "%"])
def test_no_share(text: str) -> None:
    """What is neither a number nor a percentage is an error that says so."""
    with pytest.raises(ValueError, match=r"neither a number|more than all"):
        share(text, 10, up=True)


def test_allowed_by_default() -> None:
    """One failure stops what goes step by step; nothing stops what is all begun."""
    assert Strategy().allowed(100) == 100
    assert Strategy(canary=1).allowed(100) == 0
    assert Strategy(batch="25%").allowed(100) == 0
    assert Strategy(batch=100).allowed(100) == 100
    assert Strategy(canary=1, max_fail="10%").allowed(100) == 10


@pytest.mark.parametrize(
    "wrong", [{"canary": -1}, {"batch": 0}, {"batch": "0%"}, {"max_fail": "x"}]
)
def test_no_strategy(wrong: dict[str, object]) -> None:
    """A strategy that cannot be is refused before anything begins."""
    with pytest.raises(ValueError, match=r"number|batch"):
        Strategy(**wrong)  # type: ignore[arg-type]


def test_words() -> None:
    """Why it stopped is said so that one needs no manual."""
    rollout = Rollout(["web1", "web2"], Strategy(canary=1))
    assert rollout.take() == "web1"
    rollout.settle("web1", "failed")
    assert rollout.stopped == "the canary web1 failed"
    rollout = Rollout(["web1", "web2"], Strategy(max_fail=0))
    rollout.take()
    rollout.settle("web1", "failed")
    assert rollout.stopped == "1 failed, and none may"
    assert rollout.untouched == ["web2"]
    with pytest.raises(ValueError, match="named twice"):
        Rollout(["web1", "web1"], Strategy())
