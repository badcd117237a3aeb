# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What a person at a terminal reads: one line an event, and never a traceback."""

from __future__ import annotations

import json
import re
from time import localtime, strftime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forza._event import Encoder
from forza._readable import Renderer

NOW = 1732406400.25
CLOCK = strftime("%H:%M:%S", localtime(NOW))


def show(event: dict[str, Any], *, colour: bool = False) -> str:
    """Render one event."""
    line = json.dumps({"time": NOW, "metric": 1.0, "meta": {}, **event}) + "\n"
    return Renderer(colour=colour).render(line.encode()).decode()


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"service": "logs/stdout", "description": "hello\n"}, "out  hello"),
        (
            {"service": "logs/stderr", "description": "oh \x1b[1mno"},
            "err  oh \x1b[1mno",
        ),
        ({"service": "logs/stdout"}, "out "),
        ({"service": "health/process/spawn", "meta": {"pid": 7}}, "spawn  pid 7"),
        (
            {
                "service": "health/process/exit",
                "description": "137",
                "meta": {"signal": "SIGKILL", "reason": "signal:KILL"},
            },
            "exit  status 137 (signal:KILL)",
        ),
        (
            {"service": "health/process/start", "meta": {"port": 80}},
            "start  1 port=80",
        ),
        (
            {
                "service": "health/process/start",
                "metric": 0.0,
                "description": "one\ntwo\n",
                "meta": {"reason": "timeout"},
            },
            "start  not started (timeout)",
        ),
        ({"service": "health/process/uptime", "metric": 12.5}, "uptime  12.5"),
        (
            {
                "service": "health/process/memory",
                "metric": 5e7,
                "meta": {"kind": "rss"},
            },
            "memory  50.0 MB",
        ),
        (
            {
                "service": "health/machine/memory",
                "metric": 0.254,
                "meta": {"total": 4e9, "kind": "machine"},
            },
            "machine/memory  25% of 4000 MB",
        ),
        (
            {"service": "app/queue", "metric": 3, "description": "jobs"},
            "app/queue  3 jobs",
        ),
        ({"service": "app/none", "metric": None}, "app/none  None"),
        ({"service": "app/zero", "metric": 0}, "app/zero  0"),
        ({"service": "app/ten", "metric": 10}, "app/ten  10"),
        ({"service": "app/big", "metric": 100.0}, "app/big  100"),
        (
            {
                "service": "app/own",
                "meta": {"boot": "b", "seq": 1, "app": {}, "k": "v"},
            },
            "app/own  1 k=v",
        ),
    ],
    ids=lambda value: value["service"] if isinstance(value, dict) else "",
)
def test_line(event: dict[str, Any], expected: str) -> None:
    """An event is a line: time, what it is about, and the text or the figure."""
    shown = show(event)
    assert shown.endswith("\n")
    label, _, rest = expected.partition("  ")
    assert shown == f"{CLOCK} {label.strip():16} {rest}\n"


def test_colour() -> None:
    """With colour the words are the same, and each line ends as it began."""
    for service in "logs/stdout", "logs/stderr", "health/process/uptime":
        event = {"service": service, "description": "text"}
        coloured = show(event, colour=True)
        assert "\x1b[" in coloured
        assert coloured.endswith("\x1b[0m\n")
        assert re.sub(r"\x1b\[\d*m", "", coloured) == show(event)
    assert show({"service": "logs/stderr"}, colour=True).count("\x1b[31m") == 1


@pytest.mark.parametrize(
    "line",
    [
        *(b"{}", b"[]", b"1", b"null", b'"x"', b"\xff", b"{", b"not JSON"),
        *(
            b'{"time":"x","service":"s"}',
            b'{"time":1}',
        ),
    ],
)
def test_not_an_event(line: bytes) -> None:
    """What is no event is shown as it is."""
    expected = line.decode(errors="replace") + "\n"
    assert Renderer(colour=False).render(line + b"\n").decode() == expected


def test_batch() -> None:
    """A batch of lines is as many lines."""
    batch = Encoder("h", "b", None).lines("logs/stdout", b"one\ntwo\r\n\n\xff")
    lines = Renderer(colour=False).render(batch).decode().split("\n")
    assert [line[9:] for line in lines] == [
        f"{'out':16} one",
        f"{'out':16} two\r",
        f"{'out':16} ",
        f"{'out':16} \ufffd",
        "",
    ]


@given(
    st.text(st.characters(exclude_categories=()), max_size=8),
    st.floats() | st.integers() | st.booleans(),
    st.none() | st.text(max_size=8),
    st.dictionaries(st.text(max_size=8), st.none() | st.text(max_size=4), max_size=3),
)
def test_any_event(
    service: str, metric: float, description: str | None, meta: dict[str, object]
) -> None:
    """Any event that can be sent can be shown."""
    for name in service, "health/machine/memory", "health/process/memory":
        event = Encoder("h", "b", None).event(name, metric, description, meta)
        for colour in False, True:
            assert Renderer(colour=colour).render(event).endswith(b"\n")
