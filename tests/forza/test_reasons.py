# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The reasons in the exit event are those that the documentation lists, each."""

from __future__ import annotations

import ast
import errno
import re
from pathlib import Path

import forza
from forza._process import Exit

ROOT = Path(__file__).resolve().parent.parent.parent


def documented() -> set[str]:
    """Return the first column of the table."""
    text = (ROOT / "docs" / "supervision.md").read_text()
    table = text.partition("`meta.reason` of that event")[2].partition("\n\n`oom`")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line[:3] == "| `"]
    return {word for row in rows for word in re.findall("`([^`]+)`", row)}


def of_spawn_errors() -> set[str]:
    """Return what an app may have that never ran."""
    source = (ROOT / "forza" / "_spawn.py").read_text()
    assert "StepError" in source
    found = set()
    for step in ("exec", "cwd", "user", "fork", "limit"):
        for number in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ENOEXEC):
            error = forza.SpawnError(number, "")
            error.step = step
            found.add(error.reason)
    return found


def in_the_source() -> set[str]:
    """Return what the source gives as the reason for an end, in whichever way."""
    found = set()
    for path in (ROOT / "forza").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            given: list[ast.expr] = []
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "fail":
                    given += node.args[:1]
                if node.func.attr == "stop":
                    given += node.args[1:2]
                    given += [k.value for k in node.keywords if k.arg == "reason"]
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    name = getattr(target, "attr", "")
                    if name == "_killed" or (
                        name == "reason"
                        and ast.unparse(target).endswith("ended.reason")
                    ):
                        given.append(node.value)
            if isinstance(node, ast.FunctionDef) and node.name == "_reason":
                given += [
                    part.value
                    for part in ast.walk(node)
                    if isinstance(part, ast.Return) and part.value is not None
                ]
            found |= {
                part.value
                for part in given
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            }
    return found - {""}


def test_one_list() -> None:
    """What the code gives is what is documented, no more and no less."""
    ends = {Exit(7, 0).reason, Exit(0, 9).reason.replace("KILL", "NAME")}
    found = ends | of_spawn_errors() | in_the_source()
    assert {"memory", "watchdog", "oom", "grace"} <= in_the_source()
    assert found == documented()


def test_nowhere_else() -> None:
    """Other pages point to the list, and have none of their own."""
    for path in (ROOT / "docs").glob("*.md"):
        if path.name not in ("supervision.md", "CHANGELOG.md"):
            assert "`not executable`" not in path.read_text(), path
