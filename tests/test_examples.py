# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run each example for real."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import PATIENCE, ROOT, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = ROOT / "examples"


def run(
    *command: str | Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program with the checkout's forza."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_monitor_in_ten_lines() -> None:
    """The library runs a command, sends its events and tells how it ended."""
    example = EXAMPLES / "monitor_in_ten_lines.py"
    ended = run(sys.executable, example, "sh", "-c", "echo hi; exit 3")
    assert ended.returncode == 3
    assert ended.stderr == "ended with 3, 0\n"
    events = [orjson.loads(line) for line in ended.stdout.splitlines()]
    assert events[-1]["service"] == "health/process/exit"
    assert any(event.get("description") == "hi\n" for event in events)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The plugin, installed as its users would; the environment to find it in."""
    folder = tmp_path_factory.mktemp("site")
    # From a copy, so that a build leaves nothing in the checkout.
    source = tmp_path_factory.mktemp("source") / "plugin-disk"
    subprocess.run(["cp", "-r", EXAMPLES / "plugin-disk", source], check=True)
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
    done = run(*pip, "--target", folder, source)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


@pytest.mark.parametrize("runtime", ["lean", "plain"])
def test_plugin(server: MetricsServer, installed: dict[str, str], runtime: str) -> None:
    """An installed plugin is found by name, and takes options."""
    ended = run(
        *(sys.executable, "-m", "forza", "-h", server.address),
        *("--plugin", "all", "--plugin", "disk", "--disk-path", "/proc/.."),
        *("--", "sh", "-c", "echo hi"),
        env={**installed, "FORZA_RUNTIME": runtime},
    )
    assert ended.returncode == 0
    server.wait_closed()
    (disk,) = server.of("health/machine/disk")
    assert 0 < disk["metric"] < 1
    assert disk["meta"]["path"] == "/proc/.."
    assert server.text("logs/stdout") == "hi\n"


def test_plugin_that_refuses(installed: dict[str, str], tmp_path: Path) -> None:
    """A plugin's refusal is a usage error, and the app does not run."""
    ended = run(
        *(sys.executable, "-m", "forza", "--plugin", "disk", "--disk-path", "/none"),
        *("--", "touch", tmp_path / "ran"),
        env=installed,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("forza: disk: ")
    assert "/none" in ended.stderr
    assert not (tmp_path / "ran").exists()


def test_plugin_is_listed(installed: dict[str, str]) -> None:
    """Who misspells its name is told that there is one."""
    ended = run(
        *(sys.executable, "-m", "forza", "--plugin", "disc", "--", "true"),
        env=installed,
    )
    assert ended.returncode == 2
    assert " disk" in ended.stderr


def test_demo_app_alone() -> None:
    """The demo's app needs no forza: it runs, and ends as it would under it."""
    ended = run("node", EXAMPLES / "demo" / "app.js", env={"DEMO_SECONDS": "1.5"})
    assert ended.returncode == 0
    assert ended.stdout.startswith("listening on http://127.0.0.1:")
    assert "time is up: bye after" in ended.stdout
