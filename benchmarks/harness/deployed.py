# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tables of what it took to bring, start and unpack snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from .markdown import Line, chosen, table
from .sections import Section, shown

__all__ = ["section", "unpacked"]

PARTS = {
    "bring": "From a server on loopback to a folder that is complete and, by solenoid"
    " and by `sync -f`, on disk; solenoid also checks the SHA-256 and what is in the"
    " archive (`solenoid download`).",
    "start": "The same, and then the app runs, restricted and watched, and was seen to"
    " listen (`solenoid start`; of its time 1 s is the app's own probation).",
    "rollback": "Back to the release before, until it was seen to listen.",
    "huge": "One object of 2 GiB, to a file.",
}


def section(results: Sequence[Line]) -> Section:
    """What each way took, part by part."""
    parts = [
        "Seconds, medians of interleaved rounds, and the peak resident memory of the"
        " largest process. A helper of 10 MB starts each of them, and what is smaller"
        " than that is not seen. The server is `rclone serve s3`, which checks"
        " signatures; folders are in memory, so that no disk is compared."
    ]
    for part, words in PARTS.items():
        lines = [line for line in chosen(results, part=part) if "failed" not in line]
        if not lines:
            continue
        rows = [
            [str(line["subject"]), shown(line, "s", 2), shown(line, "peak_mb", 1)]
            for line in lines
        ]
        size = f" {shown(lines[0], 'mb', 1)} MB." if part != "rollback" else ""
        parts += [f"{words}{size}", table(("", "s", "peak MB"), rows)]
    return "\n\n".join(parts), {}


def unpacked(results: Sequence[Line]) -> Section:
    """Beside tar."""
    lines = [line for line in chosen(results) if "failed" not in line]
    about = lines[0]
    text = (
        f"A node_modules tree of {shown(about, 'entries', 0)} entries and"
        f" {shown(about, 'mb', 0)} MB, interpreter included; `sync -f` because solenoid"
        " syncs before the folder appears."
    )
    rows = [
        [
            str(line["subject"]),
            shown(line, "ms", 0),
            shown(line, "of_tar", 2),
            shown(line, "peak_mb", 1),
        ]
        for line in lines
    ]
    return "\n\n".join([text, table(("", "ms", "of tar", "peak MB"), rows)]), {}
