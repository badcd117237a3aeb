# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold the source to the rules on headers and on who may import what."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

SPDX = [
    "# SPDX-FileCopyrightText: the forza authors",
    "# SPDX-License-Identifier: MIT",
]
# What costs memory in the resident monitor, if it is imported just because we are.
HEAVY = {
    *("argparse", "asyncio", "dataclasses", "enum", "logging", "pathlib", "psutil"),
    *("re", "signal", "socket", "subprocess", "typing"),
}
# For those who write plugins and tests; the monitor never imports them.
LIGHT_HEARTED = {"testing", "typing"}

FOLDERS = ("forza", "solenoid", "tests", "benchmarks", "examples")
ALL = sorted(
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if not {".cache", "node_modules", ".venv"} & set(path.parts)
)
FORZA = [path for path in ALL if path.is_relative_to(ROOT / "forza")]


def name(path: Path) -> str:
    """Name a file in a test's report."""
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """Return the module that a file is."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, *, everywhere: bool) -> Iterator[str]:
    """Find the modules that are imported when the file is, or ever."""
    tree = ast.parse(path.read_text())
    for node in _walk(tree, everywhere=everywhere):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            # `from forza import plugins` is a module, too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _walk(node: ast.AST, *, everywhere: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and _is_for_types_only(child.test):
            if everywhere:
                yield from _walk(child, everywhere=True)
            for other in child.orelse:
                yield other
                yield from _walk(other, everywhere=everywhere)
            continue
        in_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if everywhere or not (in_function or isinstance(child, ast.Lambda)):
            yield from _walk(child, everywhere=everywhere)


def _is_for_types_only(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("path", ALL, ids=name)
def test_header(path: Path) -> None:
    """Each file begins with its licence, and a sentence on what it is for."""
    text = path.read_text()
    lines = text.splitlines()
    begin = 1 if lines[0].startswith("#!") else 0
    assert lines[begin : begin + 2] == SPDX
    words = ast.get_docstring(ast.parse(text))
    assert words
    first = words.split("\n\n")[0]
    assert first[0].isupper() or not first[0].isalpha()
    assert first.rstrip().endswith((".", ":"))


@pytest.mark.parametrize("path", FORZA, ids=name)
def test_nothing_heavy(path: Path) -> None:
    """What the monitor need not have, it imports where it is used, or for types."""
    if path.stem in LIGHT_HEARTED:
        pytest.skip("not part of the resident monitor")
    top = {found.partition(".")[0] for found in imported(path, everywhere=False)}
    assert not top & HEAVY


@pytest.mark.parametrize("path", FORZA, ids=name)
def test_resident_modules_leave_the_others_alone(path: Path) -> None:
    """Nothing that stays resident imports what is meant for plugin authors."""
    if path.stem in LIGHT_HEARTED:
        pytest.skip("may import all")
    others = {f"forza.{stem}" for stem in LIGHT_HEARTED}
    assert not set(imported(path, everywhere=False)) & others


@pytest.mark.parametrize("path", FORZA, ids=name)
def test_forza_stands_alone(path: Path) -> None:
    """The two packages know of each other by argv, environment and descriptors."""
    found = {name.partition(".")[0] for name in imported(path, everywhere=True)}
    assert not found & {"solenoid", "tests", "benchmarks", "examples"}


def test_solenoid_stands_alone() -> None:
    """And the other way round."""
    for path in ALL:
        if path.is_relative_to(ROOT / "solenoid"):
            found = {name.partition(".")[0] for name in imported(path, everywhere=True)}
            assert not found & {"forza", "tests", "benchmarks", "examples"}


PLUGINS = [path for path in FORZA if path.parent.name == "plugins"]


@pytest.mark.parametrize("path", PLUGINS, ids=name)
def test_plugins_do_not_know_of_each_other(path: Path) -> None:
    """A plugin imports no plugin, though it may import what all plugins share."""
    others = {module(other) for other in PLUGINS} - {"forza.plugins"}
    # Not even for types, nor later.
    assert not set(imported(path, everywhere=True)) & others


def test_the_core_knows_no_plugin() -> None:
    """Plugins are found by name; only their own options are looked at by others."""
    plugins = {module(path) for path in PLUGINS} - {"forza.plugins"}
    for path in FORZA:
        if path not in PLUGINS:
            assert not set(imported(path, everywhere=False)) & plugins, path


def test_no_drawer_for_everything() -> None:
    """No module is named for its having no purpose."""
    drawers = {"utils", "util", "helpers", "common", "base", "misc"}
    for path in ALL:
        assert path.stem.strip("_") not in drawers, path


def test_the_rules_see_what_they_should(tmp_path: Path) -> None:
    """The looking itself: in classes and branches, not in functions or for types."""
    path = tmp_path / "module.py"
    path.write_text(
        "import a.b\nTYPE_CHECKING = False\n"
        "if TYPE_CHECKING:\n    import c\nelse:\n    import d\n"
        "try:\n    from e import f\nexcept ImportError:\n    import g\n"
        "def h():\n    import i\nclass J:\n    import k\n"
        "    async def l(self):\n        import m\nwith n:\n    import o\n"
    )
    assert set(imported(path, everywhere=False)) == {
        *("a.b", "d", "e", "e.f", "g", "k", "o")
    }
    assert set(imported(path, everywhere=True)) == {
        *("a.b", "c", "d", "e", "e.f", "g", "i", "k", "m", "o")
    }
