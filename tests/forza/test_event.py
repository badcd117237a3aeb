# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whatever a child writes and a plugin sends: valid JSON, in the contract's order."""

from __future__ import annotations

import base64
import datetime
import json
import math
import uuid
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forza._event import _MARKS, Encoder
from forza._monitor import Monitor
from forza.plugins.logs import Logs
from tests.forza.conftest import Wire

ORDER = ("metric", "time", "host", "description", "service", "meta")
ALL_MARKS = b"".join(_MARKS)

# What random bytes seldom have: line ends, escapes, characters cut in two.
PIECES = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\n\n", b"\r", b"\0", b"\t", b'"', b"\\", b"\\n", b'"}\n'),
        *(b"\x1b[31m", b"\x0b\x0c", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f"),
        *("é\u2028\u2029\x85".encode(), "\U0001f600".encode(), b"\x98\x80", ALL_MARKS),
        *(ALL_MARKS[1:], ALL_MARKS[:-1], b"\x7f", b"{}", b"x" * 700, b"\\u000a"),
    ]
)
DATA = st.lists(PIECES | st.binary(max_size=8), max_size=8).map(b"".join)


def parse(wire: bytes) -> list[dict[str, Any]]:
    """Return the events on the wire; each must be a line of its own."""
    assert wire.endswith(b"\n") or not wire
    events = [json.loads(line) for line in wire.split(b"\n")[:-1]]
    for event in events:
        assert list(event) == [name for name in ORDER if name in event]
        assert list(event["meta"])[:2] == ["boot", "seq"]
    return events


def written(event: dict[str, Any]) -> bytes:
    """Return the bytes that a log event stands for."""
    raw = event["meta"].get("raw")
    if raw is None:
        return cast("str", event["description"]).encode()
    assert "\ufffd" in event["description"]
    return base64.b64decode(raw, validate=True)


@settings(max_examples=400)
@given(DATA.filter(bool))
@example(b"\n" * 65536)
@example(ALL_MARKS + b"\n")
@example(b"\xff\n")
@example(b"\n")
def test_lines(data: bytes) -> None:
    """One event for each line, its newline kept, and every byte to be had back."""
    events = parse(Encoder("host", "b", None).lines("logs/stdout", data))
    expected = data.split(b"\n")
    lines = [line + b"\n" for line in expected[:-1]] + list(filter(None, expected[-1:]))
    assert [written(event) for event in events] == lines
    assert {event["service"] for event in events} == {"logs/stdout"}
    assert len({event["time"] for event in events}) == 1
    assert {event["metric"] for event in events} == {1.0}


@given(st.text(max_size=50))
@example("\0\x1b\x7f\u2028\u2029\x85\ufffd\U0010ffff")
def test_text_needs_no_raw(text: str) -> None:
    """Text that is UTF-8 comes as it is, and nothing says that it was mended."""
    events = parse(Encoder("h", "b", None).lines("s", text.encode() + b"\n"))
    assert "".join(event["description"] for event in events) == text + "\n"
    assert all("raw" not in event["meta"] for event in events)


@pytest.mark.parametrize("mark", _MARKS)
def test_each_mark_alone_is_left(mark: bytes) -> None:
    """Whichever mark the data has not is used, and the others come through."""
    data = ALL_MARKS.replace(mark, b"") + b'\n"\\\n' + ALL_MARKS.replace(mark, b"")
    events = parse(Encoder("h", "b", None).lines("s", data))
    assert b"".join(map(written, events)) == data


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("out"), DATA),
        st.tuples(st.just("err"), DATA),
        st.tuples(st.just("wait"), st.sampled_from([0.05, 0.2, 0.5])),
    ),
    max_size=12,
)


@settings(max_examples=300)
@given(STEPS, st.sampled_from(["no", "yes"]))
@example([("out", b"x" * 70_000), ("out", b"\xe2\x82"), ("out", b"\xac\n")], "no")
@example([("out", b"\n" * 65_536)], "no")
@example([("err", ("\u20ac" * 50_000).encode()), ("wait", 0.5)], "no")
def test_through_logs(steps: list[tuple[str, Any]], chunks: str) -> None:
    """Any bytes in any chunks, at any pace: the same bytes in the same order."""
    wire = Wire()
    logs = Logs(cast("Monitor", wire), {"chunks": chunks})
    sent = {"out": b"", "err": b""}
    for kind, what in steps:
        if kind == "wait":
            wire.loop.advance(what)
        else:
            sent[kind] += what
            data_cb = logs.stdout_data if kind == "out" else logs.stderr_data
            data_cb(what)
    logs.process_exit(0, 0)
    events = [event for batch in wire.batches for event in parse(batch)]
    for kind, service in ("out", "logs/stdout"), ("err", "logs/stderr"):
        mine = [event for event in events if event["service"] == service]
        if chunks == "yes":
            joined = "".join(event["description"] for event in mine)
            assert joined == sent[kind].decode(errors="replace")
        else:
            assert b"".join(map(written, mine)) == sent[kind]
            assert not any("\n" in event["description"][:-1] for event in mine)
    numbers = [[event["meta"]["seq"] for event in parse(b)] for b in wire.batches]
    assert [set(batch) for batch in numbers] == [{n + 1} for n in range(len(numbers))]


def test_seq() -> None:
    """Batches of both kinds are counted together, from 1 and without gaps."""
    encoder = Encoder("h", "b", None)
    batches = [
        encoder.event("a", 1.0),
        encoder.lines("b", b"1\n2\n3"),
        encoder.lines("b", b"\xff\n\xff\n"),
        encoder.event("c", 1.0, "\ud800"),
        encoder.event("d", 1.0),
    ]
    numbers = [[event["meta"]["seq"] for event in parse(batch)] for batch in batches]
    assert numbers == [[1], [2, 2, 2], [3, 3], [4], [5]]
    assert encoder.seq == 5


def test_fields() -> None:
    """An event has what it was given, and what every event has."""
    encoder = Encoder("10.0.0.5", "abc", ("u", "n"))
    (before,) = parse(encoder.event("s/t", 0.5, "text", {"port": 80}))
    assert list(before) == list(ORDER)
    assert before["metric"] == 0.5
    assert before["host"] == "10.0.0.5"
    assert before["description"] == "text"
    app = {"user": "u", "name": "n"}
    assert before["meta"] == {"boot": "abc", "seq": 1, "app": app, "port": 80}
    encoder.set_pid(77)
    (after,) = parse(encoder.lines("s/t", b"x"))
    assert after["meta"] == {"boot": "abc", "seq": 2, "app": app, "pid": 77}
    assert after["time"] == pytest.approx(datetime.datetime.now().timestamp(), abs=3600)
    assert "description" not in parse(encoder.event("s", 1))[0]
    assert parse(encoder.event("s", 1, ""))[0]["description"] == ""


def test_own_meta_is_not_overridden() -> None:
    """No plugin can pass for another monitor, batch or child."""
    encoder = Encoder("h", "boot", ("u", "n"))
    encoder.set_pid(7)
    odd = {"boot": "x", "seq": 99, "pid": 1, "app": "x", "mine": 1}
    (event,) = parse(encoder.event("s", 1.0, None, odd))
    app = {"user": "u", "name": "n"}
    assert event["meta"] == {
        **{"boot": "boot", "seq": 1, "pid": 7, "app": app},
        "mine": 1,
    }
    (event,) = parse(encoder.event("s", 1.0))
    assert "mine" not in event["meta"]


class Opaque:
    def __str__(self) -> str:
        return "opaque"


def nested(depth: int) -> dict[str, object]:
    """Return dictionaries within dictionaries."""
    value: dict[str, object] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


def circular() -> dict[str, object]:
    """Return a dictionary that has itself in it."""
    value: dict[str, object] = {}
    value["me"] = value
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime.timedelta(1), "1 day, 0:00:00"),
        ({1}, "{1}"),
        (Opaque(), "opaque"),
        ([Opaque(), "\ud800"], ["opaque", "?"]),
        (b"\xff", "b'\\xff'"),
        (2**64 - 1, 2**64 - 1),
        (2**70, str(2**70)),
        (-(2**70), str(-(2**70))),
        (math.nan, None),
        (math.inf, None),
        ("\ud800", "?"),
        ({1: {2: 3}}, {"1": {"2": 3}}),
        ({"\ud800": 1}, {"?": 1}),
        (("a", 1), ["a", 1]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (3 + 4j, "(3+4j)"),
        (None, None),
    ],
    ids=repr,
)
def test_odd_meta(value: object, expected: object) -> None:
    """What JSON has no word for is sent as text, alone or beside what needs mending."""
    encoder = Encoder("h", "b", None)
    (event,) = parse(encoder.event("s", 1.0, "d", {"odd": value}))
    assert event["meta"]["odd"] == expected
    (event,) = parse(encoder.event("s", 1.0, "\udcff", {"odd": value, 7: 1}))  # type: ignore[dict-item]
    assert event["description"] == "?"
    assert event["meta"]["odd"] == expected
    assert event["meta"]["7"] == 1


@pytest.mark.parametrize(
    "value", [nested(300), nested(5000), circular()], ids=("300", "5000", "circular")
)
def test_deep_meta(value: dict[str, object]) -> None:
    """However deep its meta is, an event is sent."""
    (event,) = parse(Encoder("h", "b", None).event("s", 1.0, "d", {"deep": value}))
    assert event["description"] == "d"
    assert event["meta"]["seq"] == 1


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf, 2**70, True, 3])
def test_odd_metric(metric: float) -> None:
    """A metric is a number, or null if JSON has none for it; never text."""
    (event,) = parse(Encoder("h", "b", None).event("s", metric))
    assert event["metric"] is None or isinstance(event["metric"], int | float)


# Lone surrogates included: they come from names that are not UTF-8.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)


@given(
    ANY_TEXT,
    st.none() | ANY_TEXT,
    st.dictionaries(
        ANY_TEXT,
        st.recursive(
            st.none() | st.floats() | st.integers() | st.dates() | ANY_TEXT,
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
        max_size=3,
    ),
)
def test_any_event(
    service: str, description: str | None, meta: dict[str, object]
) -> None:
    """Nothing in an event, lone surrogates included, makes it invalid."""
    encoder = Encoder("h", "b", None)
    (event,) = parse(encoder.event(service, 1.0, description, meta))
    assert event["service"] == service.encode(errors="replace").decode()
    assert ("description" in event) == (description is not None)
    assert event["meta"]["seq"] == encoder.seq == 1
