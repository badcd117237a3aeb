# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ship every byte of the app's output, whole, in order and before the end."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import CHILDREN, MetricsServer

if TYPE_CHECKING:
    from tests.conftest import Event
    from tests.contract.conftest import Forza

MILLION = 1_000_000


def test_flood(forza: Forza) -> None:
    """A million lines and an immediate exit: all of them, in order, then the exit."""
    with MetricsServer(parse=False) as server:
        ended = forza.run(
            *("-h", server.address, "--", sys.executable, "-S"),
            *(CHILDREN / "flood.py", MILLION),
        )
        server.wait_closed()
        lines = server.data.split(b"\n")
    assert ended.status == 0
    assert lines.pop() == b""
    begins = b'{"metric":1.0,"time":'
    number = 0
    others: list[Event] = []
    for line in lines:
        if b'"service":"logs/stdout"' in line:
            # To parse a million objects takes a while: a few, and the text of all.
            if number % 1000 == 0:
                assert orjson.loads(line)["service"] == "logs/stdout"
            assert line.startswith(begins)
            assert b'"description":"line %d of the flood\\n"' % number in line
            number += 1
        else:
            others.append(orjson.loads(line))
    assert number == MILLION
    assert others[-1]["service"] == "health/process/exit"
    assert orjson.loads(lines[-1]) == others[-1]
    assert "telemetry/dropped" not in {event["service"] for event in others}


def test_lines_that_grow_short(forza: Forza, server: MetricsServer) -> None:
    """A flood that changes from the longest lines to the shortest loses nothing."""
    script = (
        "import os\n"
        "for _ in range(4):\n"
        "    os.write(1, (b'x' * 65535 + b'\\n') * 4)\n"
        "    os.write(1, b'\\n' * 65536)\n"
    )
    ended = forza.run(
        *("-h", server.address, "--plugin", "logs", "--plugin", "process", "--"),
        *(sys.executable, "-S", "-c", script),
    )
    assert ended.status == 0
    server.wait_for("health/process/exit")
    assert server.of("telemetry/dropped") == []
    assert len(server.of("logs/stdout")) == 4 * (4 + 65536)


def test_unfinished_line(forza: Forza) -> None:
    """What comes after the last newline is told too, and has none."""
    ended = forza.run("--", "printf", "one\ntwo")
    described = [event["description"] for event in ended.of("logs/stdout")]
    assert described == ["one\n", "two"]


def test_paced_flood(lean_forza: Forza) -> None:
    """200,000 lines in two seconds: all have left within a second of the app's end."""
    script = (
        "import os, time\n"
        "begun = time.monotonic()\n"
        "for n in range(200):\n"
        "    numbers = range(n * 1000, n * 1000 + 1000)\n"
        "    lines = b''.join(b'line %d\\n' % i for i in numbers)\n"
        "    while lines:\n"
        "        lines = lines[os.write(1, lines):]\n"
        "    time.sleep(max(0, begun + n / 100 - time.monotonic()))\n"
    )
    with MetricsServer(parse=False) as server:
        # What has not left in this time is counted on stderr.
        ended = lean_forza.run(
            *("-h", server.address, "--flush-timeout", 1, "--"),
            *(sys.executable, "-S", "-c", script),
        )
        server.wait_closed()
        data = server.data
    assert ended.status == 0
    assert "not delivered" not in ended.stderr
    assert b'"telemetry/dropped"' not in data
    assert data.count(b'"service":"logs/stdout"') == 200_000
    at = [data.index(b'"description":"line %d\\n"' % n) for n in range(0, 200_000, 777)]
    assert at == sorted(at)
    assert b'"service":"health/process/exit"' in data.splitlines()[-1]


def test_long_line(forza: Forza) -> None:
    """The pieces of a long line count themselves, and say that there is more."""
    ended = forza.run(
        *("--logs-longest", "1K", "--", sys.executable, "-S", "-c"),
        "print('short'); print('x' * 2500); print('end')",
    )
    events = ended.of("logs/stdout")
    told = [(e["meta"].get("part"), e["meta"].get("more")) for e in events]
    assert told == [(None, None), (1, True), (2, True), (3, None), (None, None)]
    sizes = [len(event["description"]) for event in events]
    assert sizes == [6, 1024, 1024, 453, 4]


def test_progress_bar(forza: Forza) -> None:
    """Of a line that is written over and over, only its last state is told."""
    script = "printf '\\r1 %%\\r50 %%\\r100 %%\\nand on\\n'"
    ended = forza.run("--logs-cr", "last", "--", "sh", "-c", script)
    events = ended.of("logs/stdout")
    assert [event["description"] for event in events] == ["100 %\n", "and on\n"]
    assert events[0]["meta"]["overwritten"] == len("\r1 %\r50 %\r")


def test_stack_trace(forza: Forza) -> None:
    """With `--logs-join` a trace of Python's is one event."""
    script = "def f(): raise ValueError('no')\nf()"
    pattern = r"\s|Traceback|\w+Error\b"
    ended = forza.run(
        *("--logs-join", pattern, "--", sys.executable, "-c", f"print('on')\n{script}")
    )
    assert ended.status == 1
    (trace,) = ended.of("logs/stderr")
    assert trace["description"].startswith("Traceback (most recent call last):\n")
    assert trace["description"].endswith("\nValueError: no\n")
    assert ended.text("logs/stdout") == "on\n"


def test_rate_limit(forza: Forza) -> None:
    """What is over the rate is counted, for each stream, before the exit is told."""
    script = "for n in range(1000): print(n)\nimport sys; print('err', file=sys.stderr)"
    ended = forza.run(
        *("--logs-rate", "1:10", "--", sys.executable, "-S", "-c", script)
    )
    lines = ended.of("logs/stdout")
    dropped = ended.of("telemetry/dropped")
    assert len(lines) >= 10
    assert len(lines) + sum(event["metric"] for event in dropped) == 1000
    assert {event["meta"]["reason"] for event in dropped} == {"rate limit"}
    assert {event["meta"]["stream"] for event in dropped} == {"logs/stdout"}
    left = sum(event["meta"]["bytes"] for event in dropped)
    assert left + len(ended.text("logs/stdout")) == sum(
        len(f"{n}\n") for n in range(1000)
    )
    assert ended.text("logs/stderr") == "err\n"
    assert ended.events[-1]["service"] == "health/process/exit"


@pytest.mark.parametrize(
    "words",
    [
        ("--logs-longest", "0"),
        ("--logs-join", "("),
        ("--logs-rate", "fast"),
        ("--logs-cr", "never"),
        ("--legacy-chunks", "--logs-cr", "last"),
    ],
    ids=" ".join,
)
def test_bad_option(lean_forza: Forza, words: tuple[str, ...]) -> None:
    """A bad option is named in one line, and nothing runs."""
    ended = lean_forza.run(*words, "--", "echo", "ran")
    assert ended.status == 2
    assert ended.stdout == b""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("forza: ")


def test_prompt(forza: Forza, server: MetricsServer) -> None:
    """A prompt, which no newline follows, is seen while the app waits."""
    program = forza.start(
        *("-h", server.address, "--", "sh", "-c", "printf 'name? '; read -r name"),
        stdin=subprocess.PIPE,
    )
    (prompt,) = server.wait_for("logs/stdout")
    assert prompt["description"] == "name? "
    forza.wait(program)


def test_legacy_chunks(forza: Forza) -> None:
    """`--legacy-chunks` sends what was read, several lines at a time."""
    script = "printf 'one\\ntwo\\nthree\\n'"
    ended = forza.run("--legacy-chunks", "--", "sh", "-c", script)
    (event,) = ended.of("logs/stdout")
    assert event["description"] == "one\ntwo\nthree\n"


def test_streams_apart(forza: Forza) -> None:
    """stdout and stderr keep to their services."""
    ended = forza.run("--", "sh", "-c", "echo out; echo err >&2")
    assert ended.text("logs/stdout") == "out\n"
    assert ended.text("logs/stderr") == "err\n"


def test_output_of_a_grandchild(forza: Forza) -> None:
    """A grandchild that keeps the output open does not keep forza alive."""
    ended = forza.run("--", "sh", "-c", "sleep 1000 & echo bye")
    assert ended.status == 0
    assert ended.text("logs/stdout") == "bye\n"
    assert ended.events[-1]["service"] == "health/process/exit"


def written(events: list[Event]) -> bytes:
    """Return the bytes that these log events stand for."""
    return b"".join(
        base64.b64decode(event["meta"]["raw"])
        if "raw" in event["meta"]
        else event["description"].encode()
        for event in events
    )


# Random bytes seldom hit what matters: line ends of all kinds, quotes, escapes, NUL,
# characters cut in two, lone surrogates, and bytes that no UTF-8 has.
_WORDS = st.sampled_from(
    [
        *(b"\n", b"\r\n", b"\n\n", b"\r", b"\0", b"\t", b'"', b"\\", b"\\n", b"{}"),
        *(b"\x1b[1m", b"\x7f", b"~`^|", b"\xff", b"\xc0\x80", b"\xed\xa0\x80"),
        *(b"\xf0\x9f", b"\x98\x80", "\U0001f600".encode(), "\u2028 é".encode()),
        *(bytes(range(256)), b"x" * 5000, b'\\"' * 40_000),
    ]
)
_CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 2]),
        st.lists(_WORDS | st.binary(max_size=20), min_size=1, max_size=6).map(b"".join),
    ),
    max_size=6,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(chunks=_CHUNKS)
def test_any_bytes(forza: Forza, chunks: list[tuple[int, bytes]]) -> None:
    """Any bytes in any chunks give valid JSON, from which they can be had back."""
    program = forza.start(
        *("--", sys.executable, "-S", CHILDREN / "chunks.py"), stdin=subprocess.PIPE
    )
    assert program.stdin is not None
    told = json.dumps([(fd, data.hex()) for fd, data in chunks])
    program.stdin.write(told.encode())
    ended = forza.wait(program)
    assert ended.status == 0
    for fd, service in (1, "logs/stdout"), (2, "logs/stderr"):
        expected = b"".join(data for to, data in chunks if to == fd)
        events = ended.of(service)
        assert written(events) == expected
        for event in events:
            # One event has at most one line, and says so if its text was mended.
            assert "\n" not in event["description"][:-1]
            assert ("\ufffd" in event["description"]) == ("raw" in event["meta"])
