# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The program `solenoid`: help that teaches, one line for an error, its own status."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from solenoid import _errors
from solenoid._exits import _STATUS
from solenoid.commands import COMMANDS, IN_BOTH, ON_DRONES
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def solenoid(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "solenoid", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help() -> None:
    """Without words it says on stderr what there is; asked, on stdout."""
    alone = solenoid()
    assert (alone.returncode, alone.stdout) == (2, "")
    asked = solenoid("--help")
    assert (asked.returncode, asked.stdout) == (0, alone.stderr)
    for name, about in COMMANDS.items():
        assert f"  {name} " in asked.stdout
        assert about in asked.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    """Each command says what it is for, shows how, and documents each option."""
    ended = solenoid(name, "--help")
    assert ended.returncode == 0, ended.stderr
    assert f"usage: solenoid {name} " in ended.stdout
    assert f"solenoid {name} " in ended.stdout.partition("\nexamples:\n")[2]
    module = importlib.import_module(f"solenoid.commands.{name.replace('-', '_')}")
    assert module.ABOUT.endswith(".")
    assert "exit status" in module.MORE


@pytest.mark.parametrize("name", [*IN_BOTH, *ON_DRONES])
def test_help_of_a_command_on_drones(name: str) -> None:
    """So does its form for many drones."""
    ended = solenoid(name, "--drones", "--help")
    assert ended.returncode == 0, ended.stderr
    assert f"usage: solenoid {name} " in ended.stdout
    examples = ended.stdout.partition("\nexamples:\n")[2]
    assert f"solenoid {name} " in examples
    assert "--drones" in examples
    assert "exit status" in ended.stdout


def test_version() -> None:
    """The contract's: with no action, the version."""
    assert solenoid("-v").stdout.startswith("solenoid ")
    assert solenoid("-v").stdout == solenoid("--version").stdout


def test_only_one_command_is_loaded() -> None:
    """What a command does not need, it does not load."""
    program = "import sys; from solenoid import cli; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not [name for name in loaded if name.startswith("solenoid.commands.")]
    assert not {"aiobotocore", "asyncssh", "uvloop", "forza"} & set(loaded)


def test_usage_errors(tmp_path: Path) -> None:
    """What makes no sense is status 2 and one line, which names it."""
    for words, named in (
        (["strat"], "'strat'"),
        (["status", "--bogus"], "--bogus"),
        (["status", "--run-dir"], "--run-dir"),
        (["status", "extra"], "extra"),
    ):
        ended = solenoid(*words)
        assert (ended.returncode, ended.stdout) == (2, ""), words
        (line,) = ended.stderr.splitlines()
        assert line.startswith("error: usage: ")
        assert named in line
        assert "--help" in line


def test_json_failure(tmp_path: Path) -> None:
    """With --json a failure is one line on stdout, and one on stderr all the same."""
    ended = solenoid("status", "--run-dir", str(tmp_path), "--json")
    assert ended.returncode == 25
    assert json.loads(ended.stdout) == {
        "ok": False,
        "step": "find",
        "blame": "user",
        "error": f"no app in {tmp_path}",
        "output": "",
        "status": 25,
        "running": None,
    }
    assert ended.stderr == f"error: find: no app in {tmp_path}\n"


def test_statuses_are_documented() -> None:
    """Each step has a status of its own, and the docs say which."""
    steps = {
        value.step
        for value in vars(_errors).values()
        if isinstance(value, type) and issubclass(value, _errors.SolenoidError)
    }
    assert steps - {"solenoid"} <= set(_STATUS)
    assert len(set(_STATUS.values())) == len(_STATUS)
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    for step, status in _STATUS.items():
        assert f"| {status} | `{step}` |" in text


@pytest.mark.parametrize("many", [(), ("--drones", "host")], ids=["one", "many"])
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--run-dir", ""), "--run-dir: it is empty"),
        (("--from", ""), "--from: it is empty"),
        (("-u", "../alice"), "--app-user: no name: '../alice'"),
        (("-a", ""), "--app-name: no name: ''"),
        (("-v", "1/.."), "--app-version: no name: '1/..'"),
    ],
)
def test_what_leads_elsewhere(
    words: tuple[str, ...], why: str, many: tuple[str, ...], tmp_path: Path
) -> None:
    """An unset variable is not the folder we are in, nor a name a way out of one."""
    ended = subprocess.run(
        [sys.executable, "-m", "solenoid", "start", *many, *words],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert why in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
