# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold the build to its word: C is compiled where that can be, or left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = '#include <stdio.h>\nint main(void) { puts("built"); return 0; }\n'
LIBRARY = "int answer(void);\nint answer(void) { return 42; }\n"
SUSPECT = "int main(int argc, char **argv) { return argc; }\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Copy what a wheel is made of, with two sources of the test's own in it."""
    made = tmp_path / "source"
    made.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made)
    for package in ("forza", "solenoid"):
        if (ROOT / package).exists():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(ROOT / package, made / package, ignore=ignored)
    native = made / "forza" / "_native"
    for path in native.iterdir():
        if path.suffix != ".py":
            path.unlink()
    (native / "says.c").write_text(PROGRAM)
    (native / "libanswer.c").write_text(LIBRARY)
    return made


def build(source: Path, **env: str) -> zipfile.ZipFile:
    """Build a wheel without asking a registry for anything."""
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "."),
            *("--no-build-isolation", "--wheel-dir", "made"),
        ],
        cwd=source,
        env={**os.environ, **env},
        check=True,
    )
    (wheel,) = (source / "made").iterdir()
    return zipfile.ZipFile(wheel)


def native(wheel: zipfile.ZipFile) -> set[str]:
    """Return what the wheel has beside the sources."""
    names = {Path(n).name for n in wheel.namelist() if n.startswith("forza/_native/")}
    return {name for name in names if not name.endswith((".c", ".py"))}


def test_compiled(source: Path, tmp_path: Path) -> None:
    """With a compiler, the wheel is the platform's and has what was compiled."""
    if shutil.which(os.environ.get("CC") or "cc") is None:
        pytest.skip("there is no C compiler")
    wheel = build(source)
    assert native(wheel) == {"says", "libanswer.so"}
    assert wheel.filename is not None
    assert "-py3-none-linux_" in wheel.filename
    installed = tmp_path / "installed"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--target", str(installed), wheel.filename),
        ],
        check=True,
    )
    program = (
        "import ctypes, subprocess\n"
        "from forza._native import path\n"
        "print(subprocess.check_output([path('says')], text=True), end='')\n"
        "print(ctypes.CDLL(path('libanswer.so')).answer(), path('absent'))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said == "built\n42 None\n"


@pytest.mark.parametrize("compiler", ["false", "there-is-no-such-compiler"])
def test_no_compiler(source: Path, compiler: str) -> None:
    """Without a compiler, the same package comes without, for every platform."""
    wheel = build(source, CC=compiler)
    assert native(wheel) == set()
    assert wheel.filename is not None
    assert wheel.filename.endswith("-py3-none-any.whl")


def test_warnings_are_errors(source: Path) -> None:
    """What the compiler warns of is not built, and does not keep the rest from it."""
    if shutil.which(os.environ.get("CC") or "cc") is None:
        pytest.skip("there is no C compiler")
    (source / "forza" / "_native" / "suspect.c").write_text(SUSPECT)
    assert native(build(source)) == {"says", "libanswer.so"}


def test_what_is_here_was_built() -> None:
    """Each source of this checkout has been compiled where there is a compiler."""
    if shutil.which(os.environ.get("CC") or "cc") is None:
        pytest.skip("there is no C compiler")
    from forza._native import path

    for made in (ROOT / "forza" / "_native").glob("*.c"):
        name = f"{made.stem}.so" if made.stem.startswith("lib") else made.stem
        assert path(name) is not None, name
