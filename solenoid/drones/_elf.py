# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read from a compiled program what it needs of the machine it is to run on."""

from __future__ import annotations

import re
import struct

_MACHINES = {
    3: "i686",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_INTERPRETER = 3


def machine(data: bytes) -> str | None:
    """Return the machine as `uname -m` has it; None if this is no such program."""
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return None
    (number,) = struct.unpack_from(f"{_order(data)}H", data, 18)
    return _MACHINES.get(number)


def is_static(data: bytes) -> bool:
    """Say whether a program does without shared objects."""
    order, wide = _order(data), data[4] == 2
    # The table of program headers: where it is, how large and how many they are.
    word, place = ("Q", 32) if wide else ("I", 28)
    (begin,) = struct.unpack_from(f"{order}{word}", data, place)
    size, count = struct.unpack_from(f"{order}HH", data, 54 if wide else 42)
    headers = range(begin, begin + size * count, size)
    kinds = [struct.unpack_from(f"{order}I", data, header)[0] for header in headers]
    return _INTERPRETER not in kinds


def glibc(data: bytes) -> tuple[int, int]:
    """Return the oldest glibc that has all that is asked of it."""
    found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)", data)
    return max(((int(a), int(b)) for a, b in found), default=(0, 0))


def _order(data: bytes) -> str:
    return "<" if data[5] == 1 else ">"
