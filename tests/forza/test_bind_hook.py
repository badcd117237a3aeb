# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Compile the bind hook strictly, and run it under the compiler's sanitizers."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, ROOT

if TYPE_CHECKING:
    from pathlib import Path

CC = shutil.which(os.environ.get("CC", "cc"))
HOOK = ROOT / "forza" / "_native" / "libbind.c"
pytestmark = pytest.mark.skipif(CC is None, reason="there is no C compiler")
STRICT = [
    "-std=gnu11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wconversion",
    "-Wcast-align",
]


def compile_with(flags: list[str], target: Path, *sources: Path) -> None:
    """Compile, or skip if this compiler lacks the sanitizer's library."""
    assert CC is not None
    command = [CC, *STRICT, *flags, "-o", str(target), *map(str, sources)]
    ended = subprocess.run(
        [*command, "-pthread", "-ldl"], capture_output=True, text=True, check=False
    )
    if ended.returncode and "cannot find" in ended.stderr:
        pytest.skip("the compiler lacks this sanitizer")
    assert ended.returncode == 0, ended.stderr


def test_strictly(tmp_path: Path) -> None:
    """The hook compiles without a warning, and shows three names and no more."""
    target = tmp_path / "libbind.so"
    compile_with(["-O2", "-shared", "-fPIC"], target, HOOK)
    command = ["nm", "-D", "--defined-only", str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    names = {line.split()[-1] for line in ended.stdout.splitlines()}
    assert names == {"bind", "getsockname", "listen"}


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_under_sanitizers(tmp_path: Path, sanitizers: str) -> None:
    """Threads and signal handlers that bind at once: every one is moved and told."""
    program = tmp_path / "binds"
    flags = ["-g", "-O1", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    compile_with(flags, program, HOOK, CHILDREN / "binds.c")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "ear"))
        ear.setblocking(False)
        env = {**os.environ, "FORZA_BIND": f"u:{tmp_path / 'ear'}"}
        ended = subprocess.run(
            [str(program)], env=env, capture_output=True, text=True, check=False
        )
        assert (ended.stdout, ended.stderr) == ("1000\n", "")
        assert ended.returncode == 0
        first = ear.recv(1024).decode().split("\n")
    assert first[0].startswith("X_FORZA_PORT=")
    assert first[1] == "X_FORZA_ADDRESS=" + "0" * 32
    assert len(first) == 2
