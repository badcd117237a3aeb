# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""An app that writes log lines, and counting what has become of them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .cache import compiled
from .cell import Cell

__all__ = ["LINE_SIZE", "Flood", "marks_in", "size_of"]

# One Q to count lines by, as native/sink.c does; nothing that JSON escapes.
LINE = (
    b"2024-11-24T00:00:00.000Z info: Q "
    b"GET /api/v1/things/4711 200 in 12 ms from 10.0.0.5 agent=ab\n"
)
LINE_SIZE = len(LINE)  # 93
CHUNK_LINES = 704  # 65,472 bytes: whole lines in a write that a pipe takes at once


class Flood:
    """Lines of 93 bytes in large writes, from when the cell's gate opens."""

    def __init__(
        self, cell: Cell, lines: int, rate: int = 0, probe_ms: int = 0
    ) -> None:
        times = max(1, round(lines / CHUNK_LINES))
        chunk = cell.path / "chunk"
        chunk.write_bytes(LINE * CHUNK_LINES)
        self.lines = times * CHUNK_LINES
        self.size = self.lines * LINE_SIZE
        self.result = cell.path / "flood-ns"
        words = (
            *(compiled("app"), "flood", cell.pids, cell.closed_gate(), chunk),
            *(times, rate, probe_ms, self.result),
        )
        self.argv = [str(word) for word in words]

    def seconds(self) -> float | None:
        """Return how long the app took to write it all, None if it still does."""
        with suppress(FileNotFoundError):
            return int(self.result.read_text()) / 1e9
        return None


def size_of(files: Iterable[Path]) -> int:
    """Add up the sizes of files, some of which may just be renamed."""
    total = 0
    for file in files:
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def marks_in(files: Iterable[Path]) -> int:
    """Count the lines of a flood that files hold."""
    total = 0
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total += block.count(b"Q")
    return total
