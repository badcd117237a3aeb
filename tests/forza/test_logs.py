# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Lines, their pieces, and every option of the logs plugin, byte by byte."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import forza
from forza._lines import LONGEST, whole
from forza._monitor import Monitor
from forza.plugins.logs import Logs
from forza.testing import FakeMonitor, Sent
from tests.forza.conftest import Run, Wire


class Lines:
    """The logs plugin, what it has sent, and a clock that stands still."""

    def __init__(self, **options: str) -> None:
        self.wire = Wire()
        self.logs = Logs(cast("Monitor", self.wire), options)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far."""
        return [json.loads(line) for line in b"".join(self.wire.batches).splitlines()]

    @property
    def sent(self) -> list[str]:
        """The descriptions so far."""
        return [event["description"] for event in self.events]

    @property
    def marks(self) -> list[dict[str, object]]:
        """What each event says in `meta`, but for what all events say."""
        common = ("boot", "seq", "app", "raw")
        return [
            {name: value for name, value in event["meta"].items() if name not in common}
            for event in self.events
        ]


def test_lines_as_they_come() -> None:
    """Whole lines leave in the call that brought them, as one batch."""
    lines = Lines()
    lines.logs.stdout_data(b"one\ntwo\nthr")
    assert lines.sent == ["one\n", "two\n"]
    assert len(lines.wire.batches) == 1
    lines.logs.stdout_data(b"ee\n")
    assert lines.sent == ["one\n", "two\n", "three\n"]
    lines.logs.process_exit(0, 0)
    lines.wire.loop.advance(10.0)
    assert len(lines.sent) == 3


def test_quiet_tail() -> None:
    """An unfinished line is sent when nothing has been added to it for 0.2 s."""
    lines = Lines()
    lines.logs.stdout_data(b"name? ")
    lines.wire.loop.advance(0.19)
    assert lines.sent == []
    lines.wire.loop.advance(0.02)
    assert lines.sent == ["name? "]
    lines.logs.stdout_data(b"Ann\nnext\n")
    assert lines.sent == ["name? ", "Ann\n", "next\n"]
    assert lines.marks == [{"part": 1, "more": True}, {"part": 2}, {}]


def test_tail_that_grows() -> None:
    """A line that comes slowly but steadily is not cut."""
    lines = Lines()
    for byte in b"slowly but steadily":
        lines.logs.stdout_data(bytes((byte,)))
        lines.wire.loop.advance(0.15)
    assert lines.sent == []
    lines.logs.stdout_data(b"\n")
    assert lines.sent == ["slowly but steadily\n"]
    lines.wire.loop.advance(10.0)
    assert len(lines.sent) == 1


def test_tails_of_one_byte() -> None:
    """The short tails of a flood, alike but not the same, are not taken for quiet."""
    lines = Lines()
    for _ in range(30):
        lines.logs.stdout_data(b"ine\nl")
        lines.wire.loop.advance(0.1)
    assert set(lines.sent) == {"ine\n", "line\n"}


def test_tail_while_held() -> None:
    """A line whose rest is left in the pipe is not quiet."""
    lines = Lines()
    lines.logs.stdout_data(b"be")
    lines.wire.held = True
    lines.wire.loop.advance(3.0)
    lines.wire.held = False
    lines.logs.stdout_data(b"gun\nne")
    assert lines.sent == ["begun\n"]
    lines.wire.loop.advance(0.5)
    assert lines.sent == ["begun\n", "ne"]


def test_tail_at_the_end() -> None:
    """What is unfinished at the exit is sent as it is, and no timer is left."""
    lines = Lines()
    lines.logs.stdout_data(b"out")
    lines.logs.stderr_data(b"err")
    lines.logs.process_exit(0, 0)
    assert lines.sent == ["out", "err"]
    assert lines.wire.loop._live() == []


def test_long_lines() -> None:
    """Up to 64 KiB a line is one event; over that all pieces but the last are full."""
    lines = Lines()
    lines.logs.stdout_data(b"x" * (LONGEST - 1) + b"\n")
    assert [len(text) for text in lines.sent] == [LONGEST]
    lines = Lines()
    lines.logs.stdout_data(b"x" * (3 * LONGEST) + b"end\nnext\n")
    assert [len(text) for text in lines.sent] == [LONGEST, LONGEST, LONGEST, 4, 5]
    assert [text.endswith("\n") for text in lines.sent] == [False] * 3 + [True] * 2
    pieces = [{"part": number, "more": True} for number in (1, 2, 3)]
    assert lines.marks == [*pieces, {"part": 4}, {}]


def test_long_line_in_pieces() -> None:
    """No more than 64 KiB of an unfinished line is kept."""
    lines = Lines()
    for _ in range(100):
        lines.logs.stdout_data(b"x" * 5000)
        assert len(lines.logs._streams[0]._tail) <= LONGEST
    lines.logs.stdout_data(b"\n")
    assert "".join(lines.sent) == "x" * 500_000 + "\n"
    assert max(map(len, lines.sent)) == LONGEST


@pytest.mark.parametrize("character", ["\u00e9", "\u20ac", "\U0001f600"])
@pytest.mark.parametrize("offset", range(4))
def test_long_lines_are_cut_between_characters(character: str, offset: int) -> None:
    """A character is not cut in two by forza, wherever it stands."""
    text = "x" * offset + character * 50_000 + "\n"
    lines = Lines()
    lines.logs.stdout_data(text.encode())
    assert "".join(lines.sent) == text
    assert "\ufffd" not in "".join(lines.sent)
    assert not any(b'"raw"' in batch for batch in lines.wire.batches)


@given(st.binary(max_size=12), st.integers(0, 12))
def test_whole(data: bytes, end: int) -> None:
    """A cut goes back by at most three bytes, and only before what may be a begin."""
    end = min(end, len(data))
    cut = whole(data, end)
    assert end - 3 <= cut <= end
    if cut < end:
        assert data[cut] >= 0xC0
        assert all(byte & 0xC0 == 0x80 for byte in data[cut + 1 : end])


@given(st.text(max_size=10), st.integers(0, 40))
def test_whole_of_text(text: str, end: int) -> None:
    """In text that is UTF-8, what is before the cut is UTF-8 as well."""
    data = text.encode()
    data[: whole(data, min(end, len(data)))].decode()


def test_chunks() -> None:
    """As the original: one event a read, lines together, characters kept whole."""
    lines = Lines(chunks="yes")
    lines.logs.stdout_data(b"one\ntwo\nthr")
    assert lines.sent == ["one\ntwo\nthr"]
    lines.logs.stdout_data(b"ee\xe2\x82")
    lines.logs.stderr_data(b"err\n")
    lines.logs.stdout_data(b"\xac\n\xff\n")
    lines.logs.stdout_data(b"\xf0\x9f")
    assert lines.sent == ["one\ntwo\nthr", "ee", "err\n", "\u20ac\n\ufffd\n"]
    lines.logs.process_exit(0, 0)
    assert lines.sent[-1] == "\ufffd"
    assert len(lines.sent) == 5


@pytest.mark.parametrize("value", ["", "1", "true", "YES"])
def test_bad_chunks(value: str) -> None:
    """The option is yes or no."""
    with pytest.raises(forza.PluginError, match="chunks must be yes or no"):
        Lines(chunks=value)


def test_logs_on_a_real_loop(run: Run) -> None:
    """The quiet time passes on both kinds of loop."""

    async def main() -> None:
        monitor = FakeMonitor()
        logs = Logs(monitor, {})
        logs.stdout_data(b"prompt> ")
        async with asyncio.timeout(10.0):
            while not monitor.sent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        meta = {"part": 1, "more": True}
        assert monitor.sent == [Sent("logs/stdout", 1.0, "prompt> ", meta)]

    run(main())


# A line that is written over and over.


def test_progress_is_seen() -> None:
    """A progress bar is told of once a second, though its line is never quiet."""
    lines = Lines()
    for percent in range(20):
        lines.logs.stdout_data(b"\r%d %%" % percent)
        lines.wire.loop.advance(0.1)
    assert 1 <= len(lines.sent) <= 3
    lines.logs.stdout_data(b"\rdone\n")
    assert all(text.startswith("\r") for text in lines.sent)
    assert "".join(lines.sent) == "".join(f"\r{n} %" for n in range(20)) + "\rdone\n"


def test_last_state() -> None:
    """`cr=last` leaves out what was written over, says how much, and keeps CRLF."""
    lines = Lines(cr="last")
    lines.logs.stdout_data(b"a\r\nb\nc\rd\r\ne\n\r1\r22\r333\nf")
    lines.logs.stdout_data(b"\rg\r")
    lines.logs.process_exit(0, 0)
    assert lines.sent == ["a\r\n", "b\n", "d\r\n", "e\n", "333\n", "g\r"]
    over = [mark.get("overwritten") for mark in lines.marks]
    assert over == [None, None, 2, None, 6, 2]
    assert len(lines.wire.batches) == 5


def test_last_state_of_progress() -> None:
    """Of a progress bar that is told of as it goes, each piece is its newest state."""
    lines = Lines(cr="last")
    for percent in range(20):
        lines.logs.stdout_data(b"\r%d %%" % percent)
        lines.wire.loop.advance(0.1)
    lines.logs.stdout_data(b"\rdone\n")
    assert [text for text in lines.sent if "\r" in text] == []
    assert lines.sent[-1] == "done\n"
    assert [mark["part"] for mark in lines.marks] == [*range(1, len(lines.sent) + 1)]
    over = sum(int(str(mark["overwritten"])) for mark in lines.marks)
    total = sum(len(f"\r{n} %") for n in range(20)) + len("\rdone\n")
    assert over + sum(map(len, lines.sent)) == total


# Lines that belong together.

TRACE = (
    "Error: no\n    at one (a.js:1)\n    at two (b.js:2)\n",
    "Error: again\n\tat three\n",
)


def test_join_indented() -> None:
    """A stack trace is one event; what stands alone stays alone, in a batch."""
    lines = Lines(join="indent")
    lines.logs.stdout_data(b"before\nwe start\n" + "".join(TRACE).encode())
    lines.logs.stdout_data(b"after\nthat\n")
    lines.logs.process_exit(0, 0)
    assert lines.sent == ["before\n", "we start\n", *TRACE, "after\n", "that\n"]
    assert not any(lines.marks)
    assert len(lines.wire.batches) == 5


def test_join_in_many_reads() -> None:
    """A trace that comes byte by byte is joined all the same."""
    lines = Lines(join="indent")
    for byte in ("".join(TRACE) + "end\n").encode():
        lines.logs.stderr_data(bytes((byte,)))
    lines.wire.loop.advance(2.0)
    assert lines.sent == [*TRACE, "end\n"]
    assert lines.wire.loop._live() == []


def test_join_by_pattern() -> None:
    """A regular expression is tried at the beginning of a line, in bytes."""
    lines = Lines(join=r"(?!\d{4}-)")
    lines.logs.stdout_data(b"2026-01-01 a\nb\n\xff\n2026-01-02 c\n")
    lines.logs.process_exit(0, 0)
    assert lines.sent == ["2026-01-01 a\nb\n\ufffd\n", "2026-01-02 c\n"]
    assert base64.b64decode(lines.events[0]["meta"]["raw"]).endswith(b"b\n\xff\n")


def test_join_is_bounded_in_time() -> None:
    """A line is kept for 0.2 s; a trace without end is told of every second."""
    lines = Lines(join="indent")
    lines.logs.stdout_data(b"alone\n")
    assert lines.sent == []
    lines.wire.loop.advance(0.5)
    assert lines.sent == ["alone\n"]
    lines.logs.stdout_data(b"first\n")
    for _ in range(30):
        lines.wire.loop.advance(0.1)
        lines.logs.stdout_data(b" more\n")
    assert len(lines.sent) in (3, 4)
    lines.logs.process_exit(0, 0)
    assert "".join(lines.sent[1:]) == "first\n" + " more\n" * 30


def test_join_is_bounded_in_bytes() -> None:
    """A trace over the length of an event comes in pieces, as a long line does."""
    lines = Lines(join="indent", longest="100")
    lines.logs.stdout_data(b"first\n" + b" and so on\n" * 20 + b"next\n")
    lines.logs.process_exit(0, 0)
    assert "".join(lines.sent) == "first\n" + " and so on\n" * 20 + "next\n"
    assert all(50 < len(text) <= 100 for text in lines.sent[:-2])
    count = len(lines.sent) - 1
    pieces = [{"part": number, "more": True} for number in range(1, count)]
    assert lines.marks == [*pieces, {"part": count}, {}]


# A limit on how many.


def test_rate() -> None:
    """What is over the rate is not sent, but counted, and told of within a second."""
    lines = Lines(rate="10:5")
    lines.logs.stdout_data(b"".join(b"%d\n" % n for n in range(20)))
    lines.logs.stderr_data(b"its own\n")
    assert lines.sent == ["0\n", "1\n", "2\n", "3\n", "4\n", "its own\n"]
    lines.wire.loop.advance(0.2)
    lines.logs.stdout_data(b"20\n21\n22\n")
    assert lines.sent[6:] == ["20\n", "21\n"]
    lines.wire.loop.advance(0.9)
    dropped = lines.events[-1]
    assert dropped["service"] == "telemetry/dropped"
    assert dropped["metric"] == 16
    assert dropped["meta"]["bytes"] == 5 * 2 + 11 * 3
    assert dropped["meta"]["reason"] == "rate limit"
    assert dropped["meta"]["stream"] == "logs/stdout"
    lines.wire.loop.advance(10.0)
    lines.logs.stdout_data(b"\n" * 7)
    lines.logs.process_exit(0, 0)
    assert lines.events[-1]["metric"] == 2
    assert lines.wire.loop._live() == []


# All of it.


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"cr": "drop"}, "cr must be keep or last, not 'drop'"),
        ({"join": "("}, "join must be 'indent' or a regular expression, not '('"),
        ({"longest": "63"}, "longest must be from 64 to 1M, not '63'"),
        ({"longest": "2M"}, "longest must be from 64 to 1M, not '2M'"),
        ({"longest": "x"}, "must be a number of bytes"),
        ({"rate": "0"}, "rate must be LINES or LINES:BURST"),
        ({"rate": "10:"}, "rate must be LINES or LINES:BURST"),
        ({"rate": "1.5"}, "rate must be LINES or LINES:BURST"),
        ({"chunks": "yes", "cr": "last"}, "no other --logs option"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, str], problem: str) -> None:
    """A bad value is named, with what is possible."""
    with pytest.raises(forza.UsageError) as caught:
        Lines(**options)
    assert problem in str(caught.value)


PIECES = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\r", b"\n\n", b" ", b"\tat\n", b"\0", b'"', b"\xff"),
        *("\u20ac".encode(), b"\xf0\x9f", b"x" * 63, b"y" * 200, b"\r 10 %"),
        *(b"one\n", b" two\n", b"\n" * 90),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.lists(PIECES | st.binary(max_size=8), max_size=6).map(b"".join),
        st.sampled_from([0.05, 0.2, 0.5, 2.0]),
    ),
    max_size=12,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "cr": st.sampled_from(["keep", "last"]),
        "join": st.sampled_from(["indent", "[^o]"]),
        "longest": st.sampled_from(["64", "100", "64K"]),
        "rate": st.sampled_from(["1:1", "10", "1000000"]),
    },
)


def account(event: dict[str, Any]) -> tuple[bytes, int]:
    """Return the bytes that an event stands for, and how many are left out before."""
    meta = event["meta"]
    raw = meta.get("raw")
    text = base64.b64decode(raw) if raw else event["description"].encode()
    return text, meta.get("overwritten", 0)


@settings(max_examples=600)
@given(STEPS, OPTIONS)
@example([b"x" * 70, 0.5, b"\n y\n", 0.5, b"z"], {"join": "indent", "longest": "64"})
def test_every_byte_is_accounted_for(
    steps: list[bytes | float], options: dict[str, str]
) -> None:
    """Any bytes, chunks, pace and options: all arrives, or events say what has not."""
    lines = Lines(**options)
    sent = b""
    for step in steps:
        if isinstance(step, bytes):
            sent += step
            lines.logs.stdout_data(step)
        else:
            lines.wire.loop.advance(step)
    lines.logs.process_exit(0, 0)
    assert lines.wire.loop._live() == []
    logs = [event for event in lines.events if event["service"] == "logs/stdout"]
    others = [event for event in lines.events if event not in logs]
    dropped = sum(event["meta"]["bytes"] for event in others)
    assert all(event["service"] == "telemetry/dropped" for event in others)
    assert all(event["metric"] > 0 for event in others)
    if not dropped:
        check_order(logs, sent)
        check_parts(logs)
    total = sum(len(text) + over for text, over in map(account, logs))
    assert total + dropped == len(sent)
    longest = {"64": 64, "100": 100}.get(options.get("longest", ""), LONGEST)
    for text, _ in map(account, logs):
        assert 0 < len(text) <= longest
        assert "join" in options or b"\n" not in text[:-1]


def check_order(logs: list[dict[str, Any]], sent: bytes) -> None:
    """What the events stand for is what was sent, but for what they say is left out."""
    for text, over in map(account, logs):
        assert sent[over:].startswith(text)
        assert b"\r" in sent[:over] or not over
        sent = sent[over + len(text) :]
    assert sent == b""


def check_parts(logs: list[dict[str, Any]]) -> None:
    """Pieces count from 1, one after the other, until one has no more."""
    expected = 0
    for event in logs:
        meta = event["meta"]
        if expected:
            assert meta["part"] == expected
        elif "part" in meta:
            assert meta["part"] == 1
            assert meta["more"]
        expected = meta["part"] + 1 if "more" in meta else 0
