# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The names that solenoid offers: all there, lazily loaded, without forza."""

from __future__ import annotations

import ast
import json
import subprocess
import sys

import solenoid
from solenoid import _errors
from tests.conftest import ROOT


def loaded(statement: str) -> set[str]:
    """Return what modules a statement makes a fresh interpreter load."""
    program = (
        f"import sys, json; sys.path.append({str(ROOT)!r}); before = set(sys.modules); "
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ended.stdout)) - {"__future__"}


def test_import_is_cheap() -> None:
    """`import solenoid` loads nothing else."""
    assert loaded("import solenoid") == {"solenoid"}
    assert loaded("import solenoid; dir(solenoid)") == {"solenoid"}


def test_fetch_is_light() -> None:
    """What a drone fetches with does not load what it does not need."""
    modules = loaded("from solenoid import fetch; import solenoid.storage.http")
    heavy = ("aiobotocore", "argparse", "email", "http", "random", "tempfile", "uvloop")
    assert not modules & set(heavy)
    assert not {name for name in modules if name.partition(".")[0] == "forza"}


def test_lists_match() -> None:
    """`__all__`, the table of homes and the imports for type checkers are one list."""
    assert sorted(solenoid.__all__) == sorted(solenoid._HOMES)
    tree = ast.parse((ROOT / "solenoid" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {name: f"solenoid.{home}" for name, home in solenoid._HOMES.items()}


def test_errors() -> None:
    """All errors are of one family, public, and know their step and whom to blame."""
    errors = {
        name: value
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert set(errors) <= set(solenoid.__all__)
    for error in errors.values():
        assert issubclass(error, solenoid.SolenoidError)
        assert error.blame in ("user", "system")
        assert error is solenoid.SolenoidError or error.step != "solenoid"
    assert solenoid.FetchError("x", blame="user").blame == "user"
    assert solenoid.FetchError("x").blame == "system"


def test_typed() -> None:
    """Type checkers are told that the package has types."""
    assert (ROOT / "solenoid" / "py.typed").exists()
