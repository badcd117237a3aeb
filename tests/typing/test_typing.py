# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let mypy, if it is there, see what users may write, and what they may not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed"
)

# Each line of it, but the imports, is a mistake.
MISTAKES = """\
import forza
from forza.typing import Plugin, PluginFactory

class NoRun:
    def __init__(self, monitor: forza.Monitor, options: dict[str, str]) -> None: ...

class PlainRun:
    def run(self) -> None: ...

forza.Monitor("node app.js".split(), to=7)  # wrong
forza.Monitor(["node"], plugins=[NoRun])  # wrong
forza.Monitor(["node"], nonsense=1)  # wrong
plugin: Plugin = PlainRun()  # wrong
factory: PluginFactory = NoRun  # wrong
forza.no_such_name  # wrong

async def use(monitor: forza.Monitor) -> None:
    monitor.send(1, 2)  # wrong
    monitor.send("a", "b")  # wrong
    monitor.send("a", 1.0, lifecyle=True)  # wrong
    (await monitor.wait()).status  # wrong
    for _ in monitor.every(1.0):  # wrong
        pass
"""


def mypy(*args: str) -> subprocess.CompletedProcess[str]:
    """Run mypy as the project does, with the project's own cache."""
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *args],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_users_write() -> None:
    """The files beside this one pass, in strict mode."""
    files = sorted(str(path) for path in HERE.glob("*.py"))
    assert len(files) > 2
    checked = mypy(*files)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_mistakes(tmp_path: Path) -> None:
    """What can't work is found before it runs."""
    path = tmp_path / "mistakes.py"
    path.write_text(MISTAKES)
    checked = mypy("--no-warn-unused-configs", str(path))
    # Not the whole path: mypy's cache may remember where the file was last time.
    found = {
        int(line.partition("mistakes.py:")[2].partition(":")[0])
        for line in checked.stdout.splitlines()
        if "mistakes.py:" in line and ": error:" in line
    }
    lines = MISTAKES.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "# wrong" in line}
    assert found == wrong, checked.stdout + checked.stderr
