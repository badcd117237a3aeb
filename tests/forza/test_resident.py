# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Load modules without what only people read: the same code, and never an old one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING

import pytest

import forza
from forza._strip import compile_all, stripped

if TYPE_CHECKING:
    from collections.abc import Iterator

HOME = Path(forza.__file__).parent
MODULES = sorted(HOME.rglob("*.py"))


def codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those within it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from codes(const)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOME)))
def test_the_code_is_the_same(path: Path) -> None:
    """Every function is there, on its line; a traceback names lines as ever."""
    source = path.read_bytes()
    plain = compile(source, path, "exec", dont_inherit=True, optimize=2)
    bare = stripped(source, str(path))

    def functions(code: CodeType) -> dict[tuple[str, int], set[int | None]]:
        return {
            (c.co_qualname, c.co_firstlineno): {line for _, _, line in c.co_lines()}
            for c in codes(code)
            if c.co_name != "<module>"
        }

    found, expected = functions(bare), functions(plain)
    assert all(lines <= expected[where] for where, lines in found.items())
    missing = {name.partition(".")[0] for name, _ in expected.keys() - found.keys()}
    assert not missing & set(bare.co_names), "it is not for types alone"


def test_what_is_left_out() -> None:
    """Docstrings, assertions, what is for types; not what a class says of itself."""
    source = b"""
from __future__ import annotations
TYPE_CHECKING = False
if TYPE_CHECKING:
    import missing
else:
    import os as there
def f(a: missing.A, *b: int, c: str = "", **d: x) -> y:
    "A docstring."
    assert a, "not there"
    return a
async def g(a: int) -> int:
    return a
class C:
    "Another."
    field: int
"""
    names: dict[str, object] = {}
    exec(stripped(source, "x.py"), names)
    f, g, c = names["f"], names["g"], names["C"]
    assert callable(f)
    assert f(0) == 0
    assert f.__doc__ is None
    assert f.__annotations__ == g.__annotations__ == {}
    assert c.__doc__ is None
    assert c.__annotations__ == {"field": "int"}
    assert names["there"] is os


PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
from forza._resident import install
install()
import forza._host, forza.sinks._names
print(forza._host.host_name.__doc__, getattr(forza._host, "added", None))
"""


def run(folder: Path) -> str:
    """Load two modules of the copy there; say whether one has its docstring."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM.format(folder=str(folder))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, never compiled."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(HOME, tmp_path / "forza", ignore=ignored))


def test_the_first_to_need_it_compiles(copy: Path) -> None:
    """All at once, and again when a source has changed; then it is only read."""
    assert run(copy.parent) == "None None\n"
    made = sorted(copy.rglob("*.opt-resident.pyc"))
    assert len(made) == len(MODULES)
    times = [path.stat().st_mtime_ns for path in made]
    assert run(copy.parent) == "None None\n"
    assert [path.stat().st_mtime_ns for path in made] == times
    source = copy / "_host.py"
    source.write_text(source.read_text() + "\nadded = 1\n")
    assert run(copy.parent) == "None 1\n"
    changed = [
        path
        for path, time in zip(made, times, strict=True)
        if path.stat().st_mtime_ns != time
    ]
    assert [path.name.partition(".")[0] for path in changed] == ["_host"]


def test_what_cannot_be_compiled_is_left_to_python(copy: Path) -> None:
    """Half an upgrade is told by whoever imports it, and hinders no other module."""
    (copy / "_host.py").write_text("def half")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(copy.parent)
    assert "_host.py" in caught.value.stderr
    assert "SyntaxError" in caught.value.stderr
    names = {path.name.partition(".")[0] for path in copy.rglob("*.opt-resident.pyc")}
    assert "_names" in names
    assert "_host" not in names


def test_where_nothing_can_be_written_it_loads_as_ever(copy: Path) -> None:
    """A folder that takes no files: the modules have all that is in them."""
    for folder in (copy, copy / "sinks"):
        (folder / "__pycache__").write_text("not a folder")
    assert run(copy.parent).startswith("Return")
    assert not list(copy.rglob("*.opt-resident.pyc"))


def test_compiling_says_what_it_cannot_write(copy: Path) -> None:
    """The first that fails is an OSError."""
    (copy / "__pycache__").write_text("not a folder")
    with pytest.raises(OSError, match="__pycache__"):
        compile_all(str(copy))
