# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read the entries of a tar archive: ustar, GNU's long names, pax."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from solenoid._errors import UnpackError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from solenoid._inflate import Inflated

BLOCK = 512
_ZEROS = bytes(BLOCK)
_SPARSE = b"GNU.sparse."
# What describes an entry is small; who says otherwise wants our memory.
_MAX_EXTENSION = 1 << 20
_MAX_DIGITS = 20
# Of what pax may say of an entry the rest is not for us, nor for our memory.
_HEEDED = (b"path", b"linkpath", b"size")
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "link",
    b"5": "folder",
    b"3": "character device",
    b"4": "block device",
    b"6": "FIFO",
    b"S": "sparse file",
}


class Entry(NamedTuple):
    """One thing in an archive; its bytes, if any, are next in the stream."""

    name: str
    kind: str
    mode: int
    size: int
    target: str


def entries(stream: Inflated) -> Iterator[Entry]:
    """Yield the entries; the stream must stand behind an entry's bytes for the next.

    Raises UnpackError for what is no tar archive, or ends too early.
    """
    extended: dict[bytes, bytes] = {}
    while True:
        header = stream.read(BLOCK)
        if header == _ZEROS:
            return
        if len(header) < BLOCK:
            raise UnpackError("the archive ends too early")
        # The checksum counts its own eight bytes as blanks.
        if sum(header) - sum(header[148:156]) + 256 != _number(header[148:156]):
            raise UnpackError("not a tar archive, or a damaged one")
        kind, size = header[156:157], _number(header[124:136])
        if kind in b"xLKg":
            data = _extension(stream, size)
            if kind == b"L":
                extended[b"path"] = data.rstrip(b"\0")
            elif kind == b"K":
                extended[b"linkpath"] = data.rstrip(b"\0")
            elif kind == b"x":
                extended.update(_pax(data))
            continue  # of `g`, for all entries, there is nothing that we heed
        yield _entry(header, kind, size, extended)
        extended = {}


def _entry(
    header: bytes, kind: bytes, size: int, extended: dict[bytes, bytes]
) -> Entry:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345] and b"path" not in extended:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    target = header[157:257].partition(b"\0")[0]
    kind_name = _KINDS.get(kind, f"entry of type {kind.decode('latin-1')!r}")
    if extended:
        name = extended.get(b"path", name)
        target = extended.get(b"linkpath", target)
        if b"size" in extended:
            digits = extended[b"size"]
            if not digits.isdigit() or len(digits) > _MAX_DIGITS:
                raise UnpackError("a damaged pax header")
            size = int(digits)
        if _SPARSE in extended:
            kind_name = _KINDS[b"S"]
    # Archives from before 1988 tell a folder by its name.
    if kind_name == "file" and name.endswith(b"/"):
        kind_name = "folder"
    if kind_name != "file":
        size = 0
    mode = _number(header[100:108])
    return Entry(os.fsdecode(name), kind_name, mode, size, os.fsdecode(target))


def _extension(stream: Inflated, size: int) -> bytes:
    if size > _MAX_EXTENSION:
        raise UnpackError(f"a header of {size} bytes")
    data = stream.read(size + -size % BLOCK)
    if len(data) < size:
        raise UnpackError("the archive ends too early")
    return data[:size]


def _pax(data: bytes) -> dict[bytes, bytes]:
    """Parse records of LENGTH, blank, KEY=VALUE and a newline."""
    found = {}
    at = 0
    while at < len(data):
        length, blank, _ = data[at : at + 20].partition(b" ")
        end = at + int(length) if length.isdigit() else 0
        record = data[at + len(length) + 1 : end - 1]
        key, equals, value = record.partition(b"=")
        if not blank or not equals or end > len(data) or data[end - 1 : end] != b"\n":
            raise UnpackError("a damaged pax header")
        if key in _HEEDED:
            found[key] = value
        elif key.startswith(_SPARSE):
            found[_SPARSE] = b""
        at = end
    return found


def _number(field: bytes) -> int:
    """Read an octal number, or GNU's binary one for what is large."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise UnpackError("not a tar archive, or a damaged one") from None
