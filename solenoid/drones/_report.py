# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell how it has gone: a table, JSON, the last words of who failed, an exit status."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, TextIO

from solenoid._theirs import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from solenoid.drones._result import Result, State

EXIT_ALL, EXIT_SOME, EXIT_NONE, EXIT_UNCLEAR = 0, 30, 31, 32

_STATES: tuple[State, ...] = ("done", "failed", "undone", "unclear", "untouched")
_TAIL_LINES = 20


def exit_status(results: Sequence[Result]) -> int:
    """Return 0 if all drones are as asked for, else 30 for some, 31 for none.

    32 comes before these: on some drone nobody knows what runs.
    """
    if any(result.state == "unclear" for result in results):
        return EXIT_UNCLEAR
    good = sum(result.ok for result in results)
    if good == len(results):
        return EXIT_ALL
    return EXIT_SOME if good else EXIT_NONE


def summary(results: Sequence[Result]) -> str:
    """Return how many drones there are of each kind: `92 done, 8 failed`."""
    counts = dict.fromkeys(_STATES, 0)
    for result in results:
        counts[result.state] += 1
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def table(results: Iterable[Result]) -> str:
    """Return a line for each drone, under a heading."""
    rows = [("DRONE", "STATE", "RELEASE", "TIME", "")]
    for result in results:
        release = result.release or "-"
        if result.before and result.before != result.release:
            release = f"{release} (was {result.before})"
        took = f"{result.seconds:.1f} s" if result.seconds else "-"
        rows.append((result.drone, result.state, release, took, why(result)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "".join(
        "  ".join(
            f"{cell:{width}}" for cell, width in zip(row, (*widths, 0), strict=True)
        ).rstrip()
        + "\n"
        for row in rows
    )


def why(result: Result) -> str:
    """Return in a line why a drone is not as asked for."""
    if not result.error:
        return ""
    where = f"{result.step}: " if result.step else ""
    return printable(f"{where}{result.error}").replace("\n", " ")


def last_words(results: Iterable[Result]) -> str:
    """Return the end of what was said on the drones, each under its name.

    Drones that said the same share it: a hundred do not hide the one that differs.
    """
    said: dict[str, list[str]] = {}
    for result in results:
        if result.output.strip():
            lines = printable(result.output).rstrip().splitlines()[-_TAIL_LINES:]
            said.setdefault("\n".join(lines), []).append(result.drone)
    parts = []
    for words, names in said.items():
        shown = ", ".join(names[:5])
        if len(names) > 5:
            shown += f" and {len(names) - 5} more"
        body = "".join(f"  | {line}\n" for line in words.split("\n"))
        parts.append(f"{shown}:\n{body}")
    return "".join(parts)


def put(stream: TextIO, text: str) -> bool:
    """Write, now; say whether somebody still reads it.

    That nobody does is no reason to leave a change half-way.
    """
    try:
        stream.write(text)
        stream.flush()
        return True
    except OSError:
        # Nor is it one to fail at the end, when what is left is written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return False


def json_line(value: object) -> str:
    """Return a line of JSON."""
    line = json.dumps(value, ensure_ascii=False, default=str)
    # Halves of characters, which UTF-8 has not, stay what they are to JSON.
    return line.encode(errors="backslashreplace").decode() + "\n"
