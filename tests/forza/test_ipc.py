# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What the app says on descriptor 3: cut at newlines, sorted, and bounded."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forza._ipc import Channel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Heard = tuple[list[tuple[Any, ...]], list[bytes]]


def hear(pieces: Iterable[bytes]) -> Heard:
    """Return the events and the messages in what is read piece by piece."""
    events: list[tuple[Any, ...]] = []
    messages: list[bytes] = []

    def send(
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> None:
        events.append((service, metric, description, meta))

    channel = Channel(send, messages.append)
    for piece in pieces:
        channel.data(piece)
    channel.close()
    return events, messages


def test_event() -> None:
    """A service and a metric make an event, with all that comes along."""
    record = {"service": "a/b", "metric": 2, "description": "d", "meta": {"k": [1]}}
    assert hear([json.dumps(record).encode() + b"\n"]) == (
        [("a/b", 2, "d", {"k": [1]})],
        [],
    )
    assert hear([b'{"metric":-0.5,"service":"s","time":1,"host":"x"}\n']) == (
        [("s", -0.5, None, None)],
        [],
    )
    assert hear([b'{"metric":1,"service":"s","description":7,"meta":[]}']) == (
        [("s", 1, None, None)],
        [],
    )


@pytest.mark.parametrize(
    "message",
    [
        *(b"port=80", b"", b"{", b"{}", b"[]", b"null", b'"text"', b"\xff", b"{\xff}"),
        *(b'{"service":"s"}', b'{"metric":1}', b'{"service":"","metric":1}'),
        *(b'{"service":1,"metric":1}', b'{"service":"s","metric":"1"}'),
        *(b'{"service":"s","metric":true}', b'{"service":"s","metric":null}'),
        *(b'{"service":"s","metric":NaN}', b'{"service":"\\ud800","metric":1}'),
        *(b'[{"service":"s","metric":1}]', b' {"service":"s","metric":1}x'),
        b'{"a":' * 5000,
    ],
    ids=lambda message: message[:30],
)
def test_other_message(message: bytes) -> None:
    """Anything else is handed on as it is."""
    assert hear([message + b"\n"]) == ([], [message])


MESSAGES = st.lists(
    st.binary(max_size=12).map(lambda data: data.replace(b"\n", b""))
    | st.sampled_from([b'{"service":"s","metric":1}', b"x" * 65_536, b"y" * 30_000]),
    max_size=6,
)


@given(MESSAGES, st.lists(st.integers(0, 200_000), max_size=6), st.booleans())
@example([b"x" * 65_536], [65_536], True)
def test_any_chunking(messages: list[bytes], cuts: list[int], ended: bool) -> None:
    """However reads cut them, messages of up to 64 KiB are the same ones."""
    data = b"\n".join(messages) + (b"\n" if ended and messages else b"")
    edges = [0, *sorted(cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert hear(pieces) == hear([data])
    events, others = hear([data])
    expected = messages if ended or (messages and messages[-1]) else messages[:-1]
    assert len(events) == sum(m.startswith(b'{"service') for m in expected)
    assert others == [m for m in expected if not m.startswith(b'{"service')]


@pytest.mark.parametrize("size", [1, 1000, 65_536, 100_000])
def test_too_long(size: int) -> None:
    """A message without end is not kept; those around it are heard."""
    data = b"before\n" + b"x" * 1_000_000 + b"\nafter\n" + b"y" * 200_000
    if size == 1:
        data = data.replace(b"x" * 1_000_000, b"x" * 66_000).rstrip(b"y") + b"y" * 9
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    _, messages = hear(pieces)
    assert messages[:2] == [b"before", b"after"]
    assert not any(message.startswith(b"x") for message in messages)


def test_bounded() -> None:
    """What is kept of an unfinished message is 64 KiB at most."""
    channel = Channel(lambda *_: None, lambda _: None)
    for _ in range(100):
        channel.data(b"x" * 60_000)
        assert len(channel._tail) <= 65_536
