# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know which wheels and which programs of ours run on a drone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid.drones import _elf as elf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_OLDEST_GLIBC = 5
# The names that manylinux had for versions of glibc, before it named these.
_MANYLINUX = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
# A 32-bit system may run on a kernel of 64.
_HALVES = {"x86_64": "i686", "aarch64": "armv7l", "arm64": "armv7l"}


@dataclass(frozen=True, slots=True)
class Target:
    """A drone's Python and its platform."""

    python: tuple[int, int]
    abi: str
    machine: str
    libc: str
    libc_version: tuple[int, int]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Target:
        """Understand what a drone has said. Raises ValueError with what will not do."""
        if facts["system"] != "Linux":
            raise ValueError(f"it runs {facts['system']}, not Linux")
        if facts["implementation"] != "cpython":
            raise ValueError(f"its Python is {facts['implementation']}, not CPython")
        found = re.fullmatch(r"(glibc|musl) (\d+)\.(\d+).*", facts["libc"])
        if found is None:
            raise ValueError(f"its C library is unknown: {facts['libc']}")
        machine = facts["machine"]
        if facts["bits"] == 32:
            machine = _HALVES.get(machine, machine)
        major, minor = facts["python"][:2]
        return cls(
            (major, minor),
            f"cp{major}{minor}{'t' if facts['threaded'] else ''}",
            machine,
            found[1],
            (int(found[2]), int(found[3])),
        )

    def __str__(self) -> str:
        version = ".".join(map(str, self.libc_version))
        return f"{self.abi}-{self.machine}-{self.libc}{version}"

    def platforms(self) -> Iterator[str]:
        """Name the platforms of wheels that run there, the best first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            for i in range(minor, -1, -1):
                yield f"musllinux_{major}_{i}_{self.machine}"
            return
        for i in range(minor, _OLDEST_GLIBC - 1, -1):
            yield f"manylinux_{major}_{i}_{self.machine}"
            if i in _MANYLINUX:
                yield f"{_MANYLINUX[i]}_{self.machine}"

    def takes_wheel(self, tags: Iterable[str]) -> bool:
        """Say whether a wheel with these tags, as in its WHEEL file, runs there."""
        parts = (tag.split("-") for tag in tags)
        return any(len(part) == 3 and self._takes_tag(*part) for part in parts)

    def _takes_tag(self, python: str, abi: str, platform: str) -> bool:
        if platform != "any" and platform not in set(self.platforms()):
            return False
        if abi == self.abi:
            return python == f"cp{self.python[0]}{self.python[1]}"
        older = re.fullmatch(r"cp3(\d+)", python)
        if abi == "abi3" and not self.abi.endswith("t"):
            return older is not None and int(older[1]) <= self.python[1]
        generic = python in ("py3", f"py3{self.python[1]}", f"cp3{self.python[1]}")
        return abi == "none" and generic

    def takes_program(self, data: bytes, *, shared: bool) -> bool:
        """Say whether a compiled program or shared object of ours runs there."""
        if elf.machine(data) != self.machine:
            return False
        if not shared and elf.is_static(data):
            return True  # it asks nothing but a kernel
        return self.libc == "glibc" and elf.glibc(data) <= self.libc_version
