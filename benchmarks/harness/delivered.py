# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold what a receiver has stored against what apps have written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from .markdown import Line, chosen
from .results import Result
from .sections import Section, shown

__all__ = ["Stored", "section"]


class Stored:
    """The events in a receiver's files, and which of the apps' lines are missing."""

    def __init__(self, files: Iterable[Path]) -> None:
        self.events = self.torn = self.twice = self.dropped = 0
        # Of each run of an app, a byte for each line: stored or not.
        self.runs: dict[str, bytearray] = {}
        # Of each life of a monitor, its batches.
        self.boots: dict[str, set[int]] = {}
        for file in files:
            with file.open("rb") as stream:
                for line in stream:
                    self.take(line)

    def take(self, line: bytes) -> None:
        """Take one line of a file."""
        try:
            event = json.loads(line)
            meta, service = event["meta"], event["service"]
        except ValueError:
            self.torn += 1  # by the receiver's own death; it comes again
            return
        self.events += 1
        batches = self.boots.setdefault(meta["boot"], set())
        if service == "logs/stdout":
            run, number, _ = event["description"].split(" ", 2)
            lines = self.runs.setdefault(run, bytearray())
            lines.extend(bytes(max(0, int(number) + 1 - len(lines))))
            self.twice += lines[int(number)]
            lines[int(number)] = 1
        else:
            self.twice += meta["seq"] in batches
        if service == "telemetry/dropped":
            self.dropped += int(event["metric"])
        batches.add(meta["seq"])

    def held_against(self, records: Iterable[Path]) -> Result:
        """Compare with the records that the apps of all runs have kept.

        The lines after the last that was stored of a run went down with its monitor:
        they were in the pipe, which nobody else can read. Any other that is missing
        is lost, unless it was announced.
        """
        written = missing = sunk = most_sunk = runs = 0
        for record in records:
            runs += 1
            lines = self.runs.get(record.name, bytearray())
            count = max(int(record.read_text() or 0), len(lines))
            tail = count - len(lines)
            written += count
            sunk += tail
            most_sunk = max(most_sunk, tail)
            missing += lines.count(0)
        gaps = sum(max(seqs) - len(seqs) for seqs in self.boots.values())
        return {
            "runs": runs,
            "lines_written": written,
            "lines_stored": written - sunk - missing,
            "events_stored": self.events,
            "stored_twice": self.twice,
            "torn": self.torn,
            "dropped": self.dropped,
            "lost": max(0, missing - self.dropped),
            "batches_missing": gaps,
            "sunk": sunk,
            "most_sunk": most_sunk,
        }


def section(results: Sequence[Line]) -> Section:
    """What came through kills on both sides."""
    parts = []
    for line in chosen(results):
        if "failed" in line:
            continue
        parts.append(
            f"{line['subject']}: {shown(line, 'minutes', 0)} minutes, an app that"
            f" writes {shown(line, 'rate', 0)} lines a second. At random moments the"
            f" receiver (`forza listen --to file:`) was killed with SIGKILL"
            f" {shown(line, 'receiver_kills', 0)} times and left away for up to"
            f" {shown(line, 'away_s', 0)} s, the monitor"
            f" {shown(line, 'monitor_kills', 0)} times, and"
            f" {shown(line, 'resets', 0)} connections were broken by RST. Events that"
            f" were sent: {shown(line, 'events_sent', 0)}, of them repeated"
            f" {shown(line, 'repeated', 0)}, stored {shown(line, 'events_stored', 0)},"
            f" stored twice {shown(line, 'stored_twice', 0)}, announced as dropped"
            f" {shown(line, 'dropped', 0)}, **lost: {shown(line, 'lost', 0)}**. What a"
            " killed monitor had not yet read from its app's pipe, or not yet stored,"
            f" went down with both: {shown(line, 'sunk', 0)} of"
            f" {shown(line, 'lines_written', 0)} lines, at most"
            f" {shown(line, 'most_sunk', 0)} at one kill."
        )
    return "\n\n".join(parts), {}
