# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Compile forza's modules without what only people and tools read (see _resident.py).

    python -I -S -X no_debug_ranges forza/_strip.py forza

Left out are docstrings, assertions, the annotations of functions, what is imported for
these alone and, for that is the option, the columns in tables of lines.
"""

import ast
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any

# Not from a module of ours: this is run by path.
TAG = "resident"


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


def _compile(path: str) -> None:
    import _frozen_importlib_external as machinery  # what importlib itself does

    with open(path, "rb") as file:
        about, source = os.fstat(file.fileno()), file.read()
    made = machinery.cache_from_source(path, optimization=TAG)
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
