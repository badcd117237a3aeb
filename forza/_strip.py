# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Compile forza's modules without what only people and tools read (see _resident.py),
and put those that come first into one file (see _bundle.py).

    python -I -S -X no_debug_ranges forza/_strip.py forza

Left out are docstrings, assertions, the annotations of functions, what is imported for
these alone and, for that is the option, the columns in tables of lines.
"""

import _frozen_importlib_external as machinery  # what importlib itself does
import ast
import os
import sys
from marshal import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

# Not from a module of ours: this is run by path.
TAG = "resident"
# What a usual start imports until the app runs, and the monitor takes over.
FIRST = (
    *("_cgroup", "_errors", "_files", "_guard", "_mounts", "_native", "_oom"),
    *("_options", "_process", "_spawn", "_stage", "_start", "cli", "plugins", "ready"),
    *("ready.before", "sinks"),
)


class _Strip(ast.NodeTransformer):
    """Leaves the annotations of classes: those of protocols mean something."""

    def visit_FunctionDef(self, node: "Any") -> ast.AST:
        node.returns = None
        for part in ast.walk(node.args):
            if isinstance(part, ast.arg):
                part.annotation = None
        return self.generic_visit(node)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node.orelse or ast.copy_location(ast.Pass(), node)
        return node


def stripped(source: bytes, path: str) -> "CodeType":
    """Compile a module. Raises SyntaxError."""
    tree = _Strip().visit(ast.parse(source, path))
    code: CodeType = compile(tree, path, "exec", dont_inherit=True, optimize=2)
    return code


def compile_all(folder: str) -> None:
    """Compile the modules in a folder and below, where that is not done already.

    Raises OSError if what is compiled cannot be written.
    """
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            if name[-3:] == ".py":
                _compile(f"{place}/{name}")
    _bundle(folder)


def _bundle(folder: str) -> None:
    modules = {}
    for name in FIRST:
        source = name.replace(".", "/")
        source += "/__init__.py" if os.path.isdir(f"{folder}/{source}") else ".py"
        try:
            with open(_compiled(f"{folder}/{source}"), "rb") as file:
                modules[f"forza.{name}"] = source, file.read()
        except FileNotFoundError:  # not compiled, by a slip in it
            return
    tag = sys.implementation.cache_tag
    made = f"{folder}/__pycache__/first.{tag}.bundle"
    machinery._write_atomic(made, dumps(modules))  # type: ignore[attr-defined]


def _compiled(path: str) -> str:
    return machinery.cache_from_source(path, optimization=TAG)


def _compile(path: str) -> None:
    with open(path, "rb") as file:
        about, source = os.fstat(file.fileno()), file.read()
    made = _compiled(path)
    try:
        code = stripped(source, path)
    except SyntaxError:  # half an upgrade, say: whoever imports it will tell
        return
    data = machinery._code_to_timestamp_pyc(  # type: ignore[attr-defined]
        code, int(about.st_mtime), about.st_size
    )
    try:
        with open(made, "rb") as file:
            if file.read(16) == data[:16]:
                return
    except FileNotFoundError:
        os.makedirs(os.path.dirname(made), exist_ok=True)
    mode = about.st_mode & 0o666 | 0o200
    machinery._write_atomic(made, data, mode)  # type: ignore[attr-defined]


if __name__ == "__main__":
    try:
        compile_all(sys.argv[1])
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
