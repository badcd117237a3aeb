# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Results to Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Line", "chosen", "number", "provenance", "table", "trouble"]

Line = Mapping[str, object]


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is text and the others are numbers."""
    lines = [
        f"| {' | '.join(headers)} |",
        f"|---|{'---:|' * (len(headers) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines)


def number(line: Line, name: str) -> float | None:
    """Return a field if it is a number."""
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def chosen(lines: Iterable[Line], **fields: object) -> list[Line]:
    """Return the lines with these fields, of those that were measured at all."""
    return [
        line
        for line in lines
        if not any(word in line for word in ("unavailable", "skipped"))
        and all(line.get(name) == value for name, value in fields.items())
    ]


def trouble(lines: Iterable[Line]) -> str:
    """Say what could not be measured: nothing is left out silently."""
    found = []
    for line in lines:
        for word in ("unavailable", "skipped", "failed"):
            if word in line:
                what = [str(line["subject"])]
                if "drones" in line:
                    what.append(f"{line['drones']} drones")
                reason = str(line[word]).strip().splitlines()[0]
                found.append(f"- {', '.join(what)}: {word}: {reason}")
    return "\n".join(dict.fromkeys(found))


def provenance(lines: Sequence[Line]) -> list[str]:
    """Say how to repeat it, and where and with what it was measured."""
    runs: dict[tuple[object, object], Line] = {}
    for line in sorted(lines, key=lambda line: str(line["time"])):
        runs[(line["command"], line["commit"])] = line
    return [one_run(line) for line in runs.values()]


def one_run(line: Line) -> str:
    """Describe the run that a line came from."""
    versions = line.get("versions")
    assert isinstance(versions, Mapping)
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"`{line['command']}` at commit {line['commit']}, {line['time']}, on"
        f" {line['machine']} (load {line.get('load', 'unknown')}), {line['kernel']},"
        f" {line['python']}; {packages}."
    )
