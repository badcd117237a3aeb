# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The names that forza offers: all there, no more than those, and lazily loaded."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from types import ModuleType

import pytest

import forza
from forza import _errors
from tests.conftest import ROOT

PUBLIC = (
    *("forza", "forza.testing", "forza.typing"),
    *("solenoid", "solenoid.drones", "solenoid.storage", "solenoid.testing"),
)


def test_lists_match() -> None:
    """`__all__`, the table of homes and the imports for type checkers are one list."""
    assert sorted(forza.__all__) == sorted(forza._HOMES)
    tree = ast.parse((ROOT / "forza" / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {name: f"forza.{home}" for name, home in forza._HOMES.items()}


@pytest.mark.parametrize("module", PUBLIC)
def test_all(module: str) -> None:
    """Each public module says what it offers, literally, in order, and has it."""
    found = importlib.import_module(module)
    assert isinstance(found.__all__, tuple)
    assert list(found.__all__) == sorted(found.__all__)
    assert found.__file__ is not None
    with open(found.__file__, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    (literal,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
    )
    assert ast.literal_eval(literal) == found.__all__
    for name in found.__all__:
        assert getattr(found, name) is not None


@pytest.mark.parametrize("module", PUBLIC)
def test_documented(module: str) -> None:
    """Each public class and function says what it is for, its methods too."""
    found = importlib.import_module(module)
    assert found.__doc__
    for name in found.__all__:
        value = getattr(found, name)
        if isinstance(value, str):
            continue
        assert value.__doc__, name
        for method, member in vars(value).items() if isinstance(value, type) else ():
            if not method.startswith("_") and callable(member):
                special = name in ("Plugin",) or value.__module__ == "forza.typing"
                assert member.__doc__ or special, f"{name}.{method}"


def test_dir() -> None:
    """What is not loaded yet is listed, too."""
    assert set(forza.__all__) <= set(dir(forza))


def test_no_such_name() -> None:
    """A name that is not there is the usual error, for `hasattr` and for people."""
    assert not hasattr(forza, "no_such_name")
    with pytest.raises(AttributeError, match="'forza' has no attribute 'moniter'"):
        getattr(forza, "moniter")  # noqa: B009


def test_nothing_leaks() -> None:
    """Without an underscore there are only public names and modules of forza's own."""
    for name, value in vars(forza).items():
        if name.startswith("_") or name in forza.__all__:
            continue
        own = isinstance(value, ModuleType) and value.__name__.startswith("forza.")
        assert own or name in ("annotations", "TYPE_CHECKING"), name


def test_errors() -> None:
    """All errors are of one family, and all that a caller may meet are public."""
    errors = {
        name: value
        for name, value in vars(_errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert set(errors) <= set(forza.__all__)
    for error in errors.values():
        assert issubclass(error, forza.ForzaError)
    assert issubclass(forza.SpawnError, OSError)
    assert not issubclass(forza.SinkError, forza.UsageError)


def test_version() -> None:
    """The version is a version."""
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+|\.dev\d+)?", forza.__version__)


def test_typed() -> None:
    """Type checkers are told that the package has types."""
    assert (ROOT / "forza" / "py.typed").exists()


def loaded(statement: str) -> set[str]:
    """Return what modules a statement makes a fresh interpreter load."""
    program = (
        "import sys, json; before = set(sys.modules); "
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(ROOT)!r}); " + program,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(ended.stdout)) - {"__future__"}


def test_import_is_cheap() -> None:
    """`import forza` loads nothing else; a name loads what it needs and no more."""
    assert loaded("import forza") == {"forza"}
    assert loaded("import forza; dir(forza)") == {"forza"}
    assert loaded("import forza; forza.__version__") == {"forza", "forza._version"}
    assert loaded("from forza import ForzaError") == {"forza", "forza._errors"}
    assert "forza._monitor" not in loaded("from forza import ProcessOptions")


def test_star() -> None:
    """`from forza import *` brings the public names, all of them."""
    names: dict[str, object] = {}
    exec("from forza import *", names)
    assert set(forza.__all__) - set(names) == set()
