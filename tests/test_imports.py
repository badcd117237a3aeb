# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold what a fresh interpreter imports against written lists: each costs memory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from forza import _lean

ROOT = Path(__file__).resolve().parent.parent

# ---- The lists.  To raise one is a decision: measure what the module costs
# (benchmarks/memory.py) and put the figure into the changelog.

# `import forza`: the surface is looked up by name, nothing is behind it yet.
FORZA = {"forza"}

# The lean runtime, over what `python -I -S` itself has loaded.
LEAN = {
    "forza",
    "forza._lean",
    # `from __future__ import annotations` is an import, too.
    "__future__",
    # What forza itself uses.
    "os",
    "os.path",
    "posixpath",
    "genericpath",
    "stat",
    "_stat",
    "_collections_abc",
    # uvloop, and what it takes from the real modules.
    "uvloop",
    "uvloop.loop",
    "uvloop._noop",
    "cython_runtime",
    "_cython",
    "errno",
    "gc",
    "concurrent",
    # asyncio: Future and Task, and two small modules; the package is incomplete.
    "asyncio",
    "asyncio.exceptions",
    "asyncio.protocols",
    "_asyncio",
    # The halves in C of modules that have stand-ins.
    "_collections",
    "_functools",
    "_socket",
    "_datetime",
    # orjson.
    "orjson",
    "orjson.orjson",
}

# What one version of Python imports and another does not.
LEAN_ONLY_IN: dict[tuple[int, int], set[str]] = {}


def imported_by(statements: str) -> tuple[set[str], str]:
    """Return which modules the statements import, and what is said on stderr."""
    program = f"""
import sys
before = set(sys.modules)
sys.path[1:] = {[str(ROOT), *sys.path]!r}
{statements}
names = sorted(set(sys.modules) - before)
import json
print(json.dumps(names))
"""
    environ = {k: v for k, v in os.environ.items() if k != "FORZA_RUNTIME"}
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    names = set(json.loads(ended.stdout))
    # Its name ends in the version of the Cython that has built uvloop.
    return {re.sub(r"^_cython_\d.*", "_cython", n) for n in names}, ended.stderr


def compare(imported: set[str], allowed: set[str], name: str) -> None:
    newcomers = imported - allowed
    assert not newcomers, (
        f"newly imported: {', '.join(sorted(newcomers))}. Import it where it is used, "
        f"or if it has to be resident, add it to {name} in {Path(__file__).name} and "
        f"the memory it takes to the changelog."
    )
    gone = allowed - imported
    assert not gone, f"no longer imported, take it off {name}: {sorted(gone)}"


def test_import_forza_imports_nothing_else() -> None:
    """`import forza` is free: no asyncio, no typing, no uvloop, no orjson."""
    imported, said = imported_by("import forza")
    assert said == ""
    compare(imported, FORZA, "FORZA")


def test_the_lean_runtime_imports_what_is_written_here() -> None:
    """The lean runtime is taken, without a word, and imports just the list."""
    imported, said = imported_by(
        "from forza import _lean\n"
        "new_loop, lean = _lean.load()\n"
        "assert lean, 'plain imports were used'\n"
    )
    assert said == ""
    compare(imported, LEAN | LEAN_ONLY_IN.get(sys.version_info[:2], set()), "LEAN")


def test_these_versions_are_known_to_the_lean_runtime() -> None:
    """What is installed is in the list of what the tests have run with.

    A version that is not is tried in a child at every start, which takes time.
    """
    assert _lean._is_tested(), (
        "uvloop, orjson or Python is of a version that is new to forza/_lean.py: "
        "if the other tests pass, add it to TESTED or TESTED_PYTHON there"
    )
