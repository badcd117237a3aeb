# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Frame a batch on disk, so that what is damaged is noticed, and its neighbours not."""

from __future__ import annotations

from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct

    # Of a batch: its length, its events, its ordinal (which counts the batches of a
    # lane, both kinds together), the events of its kind before it, and its checksum.
    Header = tuple[int, int, int, int, int]
else:
    from _struct import Struct

# 0xFE is in no UTF-8: what looks like the beginning of a record is hardly ever text.
MAGIC = b"\xfe\xfdF1"
_FIELDS = Struct("<4sIIQQI")
_CHECKSUM = Struct("<I")
SIZE = _FIELDS.size + _CHECKSUM.size


def header(batch: bytes, events: int, ordinal: int, before: int) -> bytes:
    """Return what stands before a batch on disk.

    It has a checksum of its own: with a length that can be trusted, a damaged batch
    costs only itself.
    """
    fields = _FIELDS.pack(MAGIC, len(batch), events, ordinal, before, crc32(batch))
    return fields + _CHECKSUM.pack(crc32(fields))


def parse(data: bytes, start: int) -> Header | None:
    """Return the header at `start`, if an intact one is there."""
    end = start + _FIELDS.size
    if data[start : start + len(MAGIC)] != MAGIC or len(data) < start + SIZE:
        return None
    fields = data[start:end]
    if _CHECKSUM.unpack_from(data, end)[0] != crc32(fields):
        return None
    _, length, events, ordinal, before, checksum = _FIELDS.unpack(fields)
    return length, events, ordinal, before, checksum


def is_intact(batch: bytes, checksum: int) -> bool:
    """Say whether a batch is the one that its header was made for."""
    return crc32(batch) == checksum
