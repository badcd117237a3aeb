# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The names that solenoid.drones offers: lazily loaded, and complete."""

from __future__ import annotations

import ast

from solenoid import SolenoidError, drones
from solenoid.drones import _errors
from tests.conftest import ROOT
from tests.solenoid.test_surface import loaded


def test_import_is_cheap() -> None:
    """What is not used is not loaded; asyncssh is not before the first connection."""
    assert loaded("from solenoid import drones") == {"solenoid", "solenoid.drones"}
    modules = loaded(
        "from solenoid import drones; drones.Ssh, drones.Session, drones.load, "
        "drones.lock"
    )
    assert "solenoid.drones._session" in modules
    assert "asyncssh" not in modules


def test_lists_match() -> None:
    """`__all__`, the table of homes and the imports for type checkers are one list."""
    assert sorted(drones.__all__) == sorted(drones._HOMES)
    tree = ast.parse((ROOT / "solenoid" / "drones" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {name: f"solenoid.drones.{home}" for name, home in drones._HOMES.items()}
    assert typed == homes
    for name in drones.__all__:
        assert getattr(drones, name) is not None


def test_errors() -> None:
    """All errors are of one family, public, and know their step."""
    errors = {
        name: value
        for name, value in vars(_errors).items()
        if isinstance(value, type) and value.__module__ == _errors.__name__
    }
    assert errors
    assert set(errors) <= set(drones.__all__)
    for error in errors.values():
        assert issubclass(error, SolenoidError)
        assert error.step != "solenoid"
