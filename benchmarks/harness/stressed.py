# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what thousands of starts and endings have left behind."""

from __future__ import annotations

from collections.abc import Sequence

from .markdown import Line, chosen
from .sections import Section, shown

__all__ = ["section"]


def section(results: Sequence[Line]) -> Section:
    """What each start has told, and what is left of all."""
    parts = []
    for line in chosen(results):
        if "failed" in line:
            continue
        faults = " ".join(
            f"{words}: {shown(line, name, 0)};"
            for words, name in (
                ("Statuses that were not the app's", "wrong_status"),
                ("exit events missing", "exits_missing"),
                ("told twice", "exits_twice"),
                ("untrue", "exits_wrong"),
                ("start events missing", "starts_missing"),
                ("told twice", "starts_twice"),
                ("processes left", "orphans"),
                ("files left", "files_left"),
            )
        )
        parts.append(
            f"{line['subject']}: {shown(line, 'starts', 0)} starts,"
            f" {shown(line, 'at_once', 0)} at a time, in {shown(line, 'seconds', 0)} s,"
            " each with a connection to `forza listen`, a spool and a start log. The"
            " apps end at once: by themselves, by SIGTERM or SIGKILL, not found; some"
            f" leave children in other sessions. {faults} descriptors left in the"
            f" receiver: {shown(line, 'descriptors_left', 0)}. Under one keeper:"
            f" {shown(line, 'restarts', 0)} restarts in"
            f" {shown(line, 'kept_seconds', 0)} s; exit events missing:"
            f" {shown(line, 'kept_exits_missing', 0)}; descriptors left in the keeper:"
            f" {shown(line, 'kept_descriptors_left', 0)}."
        )
    return "\n\n".join(parts), {}
