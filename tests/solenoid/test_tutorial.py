# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Do what the tutorial says, as it says it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import NOBODY
from tests.solenoid.drone import ROOT as IS_ROOT
from tests.solenoid.servers import free_port

PAGE = ROOT / "docs" / "tutorial-solenoid.md"
_COMMAND = re.compile(r"^    \$ (.*(?:\n    > .*)*)", re.MULTILINE)


def commands() -> list[str]:
    """Return the page's commands; `>` goes on with the one before."""
    found = _COMMAND.findall(PAGE.read_text())
    return [command.replace("\n    > ", "\n") for command in found]


def test_tutorial(place: Path) -> None:
    """Each command works, and the app answers as the page shows."""
    port = str(free_port())
    bin_ = place / "bin"
    bin_.mkdir()
    # As root, not with a user that is made for it: the machine stays as it is.
    more = f" --system-user {NOBODY.name}" if IS_ROOT else ""
    (bin_ / "solenoid").write_text(
        f'#!/bin/sh\ncase $1 in start) set -- "$@"{more};; esac\n'
        f'exec {sys.executable} -m solenoid "$@"\n'
    )
    (bin_ / "solenoid").chmod(0o755)
    script = "\n".join(["set -e", *commands()]).replace("8080", port)
    work = place / "work"
    work.mkdir()
    environ = {
        **os.environ,
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    try:
        ended = subprocess.run(
            ["bash", "-c", script],
            cwd=work,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE * 5,
        )
    finally:
        clean = [sys.executable, "-m", "solenoid", "clean", "--run-dir", f"{work}/run"]
        subprocess.run(clean, cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr[-4000:]
    lines = ended.stdout.splitlines()
    answers = [line for line in lines if re.match(r"shop \d|status \d", line)]
    shown = re.findall(r"^    (shop \d.*|status \d.*)$", PAGE.read_text(), re.MULTILINE)
    assert answers == shown
    assert "app: Error: no stock" in ended.stderr
    assert '"description":"open for business' in ended.stdout
    assert "sk_live_x" not in ended.stdout + ended.stderr
    assert not (work / "run").exists()
