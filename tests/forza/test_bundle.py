# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Load the first modules from one file: the same code, and never an old one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

import forza
from forza import _native
from forza._strip import FIRST, compile_all

HOME = Path(forza.__file__).parent
NAME = f"__pycache__/first.{sys.implementation.cache_tag}.bundle"
# Is `python -m forza -- true` until it has spawned and would go on as the monitor; then
# it says what it has loaded, and by what.
PROGRAM = """
import json, os, sys
def execve(*words):
    loaders = {
        name: type(module.__spec__.loader).__name__
        for name, module in sys.modules.items()
        if name.startswith("forza.")
    }
    from forza import _errors
    print(json.dumps([loaders, getattr(_errors, "added", None), _errors.__file__]))
    sys.stdout.flush()
    os._exit(0)
os.execve = execve
sys.path.insert(0, sys.argv[1])
sys.argv[1:] = ["--", "true"]
from forza._begin import begin
begin(None)
"""
needs_guard = pytest.mark.skipif(
    _native.path("guard") is None, reason="without a guard, more is imported"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, and the file in it."""
    ignored = shutil.ignore_patterns("__pycache__")
    folder = Path(shutil.copytree(HOME, tmp_path / "forza", ignore=ignored))
    compile_all(str(folder))
    return folder


def loaded(folder: Path) -> tuple[dict[str, str], int | None]:
    """Return which loader has loaded which module, and what was added to one."""
    words = [sys.executable, "-I", "-c", PROGRAM, str(folder.parent)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaders, added, path = json.loads(done.stdout)
    assert path == str(folder / "_errors.py")
    return loaders, added


@needs_guard
def test_all_that_comes_first_is_in_it(copy: Path) -> None:
    """A usual start imports what is listed, no less and no more, and from the file."""
    loaders, _ = loaded(copy)
    for name in ("_begin", "_bundle"):
        assert loaders.pop(f"forza.{name}") == "SourceFileLoader"
    assert loaders == {f"forza.{name}": "Bundle" for name in FIRST}


def test_what_has_changed_is_loaded_as_ever(copy: Path) -> None:
    """And the file goes, until the monitor has it made anew."""
    source = copy / "_errors.py"
    source.write_text(source.read_text() + "\nadded = 1\n")
    loaders, added = loaded(copy)
    assert added == 1
    assert loaders["forza._errors"] == "SourceFileLoader"
    assert not (copy / NAME).exists()
    words = [sys.executable, "-m", "forza", "--", "true"]
    env = {**os.environ, "PYTHONPATH": str(copy.parent)}
    subprocess.run(words, cwd=copy.parent, env=env, check=True, capture_output=True)
    assert (copy / NAME).exists()
    loaders, added = loaded(copy)
    assert added == 1
    assert loaders["forza._errors"] == "Bundle"


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize("rest", [b"", bytes(1000)])
def test_a_torn_file_hinders_nobody(copy: Path, size: int, rest: bytes) -> None:
    """The machine went down while it was written: it goes."""
    (copy / NAME).write_bytes((copy / NAME).read_bytes()[:size] + rest)
    loaders, _ = loaded(copy)
    assert "Bundle" not in loaders.values()
    assert not (copy / NAME).exists()


def test_what_another_python_has_compiled_is_not_run(copy: Path) -> None:
    """Two that share their folder's name, before a release, may not share code."""
    data = (copy / NAME).read_bytes()
    other = bytes([data[-1] ^ 1])
    (copy / NAME).write_bytes(data.replace(MAGIC_NUMBER, other + MAGIC_NUMBER[1:]))
    loaders, _ = loaded(copy)
    assert "Bundle" not in loaders.values()


def test_half_an_upgrade_leaves_no_file(copy: Path) -> None:
    """What does not compile is told by whoever imports it."""
    (copy / NAME).unlink()
    (copy / "cli.py").write_text("def half")
    shutil.rmtree(copy / "__pycache__")
    compile_all(str(copy))
    assert not (copy / NAME).exists()
