# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What is gathered for a drone is what runs there, whatever the operator's machine."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from solenoid import drones
from solenoid.drones._target import Target
from solenoid.drones.remote import install
from tests.conftest import ROOT
from tests.solenoid.conftest import CACHE

if TYPE_CHECKING:
    from pathlib import Path

FACTS = {
    "system": "Linux",
    "machine": "x86_64",
    "bits": 64,
    "libc": "glibc 2.36",
    "implementation": "cpython",
    "python": [3, 11, 2],
    "threaded": False,
}


def target(**facts: Any) -> Target:
    """Return what a drone with such facts is."""
    return Target.of({**FACTS, **facts})


def names(archive: Any) -> list[str]:
    """Return the names of an archive's files."""
    return zipfile.ZipFile(io.BytesIO(archive.data)).namelist()


def test_targets() -> None:
    """Drones are told apart by what decides which files run there."""
    assert str(target()) == "cp311-x86_64-glibc2.36"
    assert str(target(bits=32)) == "cp311-i686-glibc2.36"
    assert str(target(machine="aarch64", bits=32)) == "cp311-armv7l-glibc2.36"
    assert str(target(libc="musl 1.2")) == "cp311-x86_64-musl1.2"
    assert str(target(python=[3, 13, 0], threaded=True)) == "cp313t-x86_64-glibc2.36"
    assert str(Target.of(install.facts("/nowhere"))).startswith("cp3")


@pytest.mark.parametrize(
    ("fact", "value", "error"),
    [
        ("system", "FreeBSD", "it runs FreeBSD, not Linux"),
        ("implementation", "pypy", "its Python is pypy, not CPython"),
        ("libc", "?", "its C library is unknown"),
    ],
)
def test_no_targets(fact: str, value: str, error: str) -> None:
    """What nothing can be gathered for is said."""
    with pytest.raises(ValueError, match=error):
        target(**{fact: value})


def test_wheels_by_their_tags() -> None:
    """As installers do: interpreter, ABI and platform have to fit."""
    here = target()
    for tag, fits in {
        "py3-none-any": True,
        "py2-none-any": False,
        "cp311-cp311-manylinux_2_17_x86_64": True,
        "cp311-cp311-manylinux2014_x86_64": True,
        "cp311-cp311-manylinux1_x86_64": True,
        "cp311-cp311-manylinux_2_36_x86_64": True,
        "cp311-cp311-manylinux_2_39_x86_64": False,
        "cp311-cp311-manylinux_2_17_aarch64": False,
        "cp311-cp311-musllinux_1_2_x86_64": False,
        "cp312-cp312-manylinux_2_17_x86_64": False,
        "cp310-cp310-manylinux_2_17_x86_64": False,
        "cp38-abi3-manylinux_2_17_x86_64": True,
        "cp312-abi3-manylinux_2_17_x86_64": False,
        "py3-none-manylinux_2_17_x86_64": True,
        "py3-none-macosx_11_0_arm64": False,
        "cp311-cp311-linux_x86_64": False,
        "nonsense": False,
    }.items():
        assert here.takes_wheel([tag]) is fits, tag
    assert not here.takes_wheel([])
    assert here.takes_wheel(["py2-none-any", "py3-none-any"])
    assert target(libc="musl 1.2").takes_wheel(["cp311-cp311-musllinux_1_1_x86_64"])
    threaded = target(python=[3, 13, 1], threaded=True)
    assert not threaded.takes_wheel(["cp313-cp313-manylinux_2_17_x86_64"])
    assert not threaded.takes_wheel(["cp38-abi3-manylinux_2_17_x86_64"])
    assert threaded.takes_wheel(["cp313-cp313t-manylinux_2_17_x86_64"])


def test_programs_by_their_headers() -> None:
    """Static programs run with any C library, others with one that is new enough."""
    machine = os.uname().machine
    here = target(machine=machine)
    shared = next(
        path
        for path in (ROOT / ".venv").rglob("uvloop/*.so")
        if path.read_bytes()[:4] == b"\x7fELF"
    ).read_bytes()
    assert here.takes_program(shared, shared=True)
    assert not target(machine="s390x").takes_program(shared, shared=True)
    assert not target(machine=machine, libc="musl 1.2").takes_program(
        shared, shared=True
    )
    old = replace(here, libc_version=(2, 1))
    assert not old.takes_program(shared, shared=True)
    assert not here.takes_program(b"#!/bin/sh\n", shared=False)
    assert not here.takes_program(b"\x7fELF", shared=False)
    guard = ROOT / "forza" / "_native" / "guard"
    if guard.exists():  # there is a compiler, and here it links statically
        static = guard.read_bytes()
        assert old.takes_program(static, shared=False)
        assert target(machine=machine, libc="musl 1.2").takes_program(
            static, shared=False
        )
        assert not target(machine="s390x").takes_program(static, shared=False)


def test_from_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a drone like this machine nothing is fetched, and made once."""
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    here = Target.of(install.facts("/nowhere"))
    wheelhouse = drones.Wheelhouse(tmp_path)

    async def main() -> Any:
        both = await asyncio.gather(wheelhouse.archive(here), wheelhouse.archive(here))
        assert both[0] is both[1]
        return both[0]

    archive = asyncio.run(main())
    found = names(archive)
    assert {"forza/cli.py", "solenoid/drones/remote/lock.py", "orjson/py.typed"} <= set(
        found
    )
    assert [name for name in found if name.startswith("uvloop/loop.")]
    assert not [name for name in found if name.endswith((".pyc", ".c", ".pth"))]
    assert not [name for name in found if ".." in name or name.startswith("/")]
    assert archive.id.startswith("1.")
    (path,) = tmp_path.iterdir()
    made = path.stat().st_ino
    again = asyncio.run(drones.Wheelhouse(tmp_path).archive(here))
    assert again == archive
    assert path.stat().st_ino == made


@pytest.mark.parametrize(
    ("facts", "suffix"),
    [
        ({"machine": "aarch64"}, "-311-aarch64-linux-gnu.so"),
        ({"libc": "musl 1.2", "python": [3, 13, 1]}, "-313-x86_64-linux-musl.so"),
    ],
)
def test_from_pip(facts: dict[str, Any], suffix: str) -> None:
    """For another machine, libc or Python there are the wheels for that."""
    wheelhouse = drones.Wheelhouse(CACHE / "wheelhouse")
    other = target(**facts)
    archive = asyncio.run(wheelhouse.archive(other))
    (loop,) = (name for name in names(archive) if name.startswith("uvloop/loop.c"))
    assert loop.endswith(suffix)
    assert "orjson/__init__.py" in names(archive)
    natives = {name for name in names(archive) if name.startswith("forza/_native/")}
    if other.machine != os.uname().machine:
        assert natives == {"forza/_native/__init__.py"}
    else:
        assert "forza/_native/libbind.so" not in natives


def test_what_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no wheel, and no way to one, it is said what was wanted."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(drones.WheelhouseError) as caught:
        asyncio.run(drones.Wheelhouse(tmp_path).archive(target(machine="s390x")))
    assert "for cp311-s390x-glibc2.36: " in str(caught.value)
    assert "uvloop" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    nowhere = drones.Wheelhouse(tmp_path / "file" / "cache")
    here = Target.of(install.facts("/nowhere"))
    with pytest.raises(drones.WheelhouseError, match="cannot gather solenoid"):
        asyncio.run(nowhere.archive(here))


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    """The archives that were used last are kept, and the others removed."""
    for number in range(20):
        (tmp_path / f"old{number}.zip").touch()
        os.utime(tmp_path / f"old{number}.zip", (number, number))
    here = Target.of(install.facts("/nowhere"))
    archive = asyncio.run(drones.Wheelhouse(tmp_path).archive(here))
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == {archive.id, *(f"old{number}" for number in range(9, 20))}
