# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know after a restart which events a file has.

`PATH.boots` says it for the file up to some offset; what was appended since is read.
So it need not be written often, and may be lost.
"""

from __future__ import annotations

import os
from binascii import crc32

from orjson import JSONDecodeError, dumps, loads

from forza._errors import SinkError
from forza.listen._boots import Boots, Sifter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PIECE = 1024 * 1024
# Of a file that nothing is known about, so much is read: a second's work.
_TAIL = 256 * 1024 * 1024
_MOST_FILES = 1000


def note(fd: int, boots: Boots) -> bytes:
    """Return what `PATH.boots` should say: `fd`, as it is now, has these.

    A checksum follows: a single wrong digit might pass events for repeats.
    """
    found = os.fstat(fd)
    text = dumps(
        {
            "forza": "boots",
            "version": 1,
            "file": [found.st_dev, found.st_ino],
            "offset": found.st_size,
            "boots": boots.dump(),
        }
    )
    return b"%b\n%08x\n" % (text, crc32(text))


def save(path: str, text: bytes) -> None:
    """Write `PATH.boots`, so that there is the old or the new one at any time.

    A failure costs some reading at the next start, and is not worth a word.
    """
    try:
        fd = os.open(
            f"{path}.boots.new",
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o644,
        )
        try:
            if os.write(fd, text) < len(text):
                return
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(f"{path}.boots.new", f"{path}.boots")
    except OSError:
        pass


def recall(path: str) -> tuple[Boots, bytes]:
    """Return which events the file has, and what should end its last line.

    Raises SinkError if there is a file that can't be read.
    """
    boots = Boots()
    try:
        noted = _load(f"{path}.boots")
        parts = _since(path, noted)
        if noted and parts:
            boots.load(noted["boots"])
        sifter = Sifter(boots, stored=True)
        tail = end = b""
        for name, offset in parts or _last_part(path):
            tail = _read(name, offset, sifter)
        if tail:
            end = b"\n" if _is_whole(tail) else b" \n"
            sifter.sift(tail + end)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SinkError(f"cannot read {path}: {reason}") from error
    return boots, end


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text, _, checksum = file.read().partition(b"\n")
    except FileNotFoundError:
        return {}
    if checksum != b"%08x\n" % crc32(text):  # damaged, or no note of ours
        return {}
    noted = loads(text)
    return dict(noted) if noted["version"] == 1 else {}


def _since(path: str, noted: dict[str, Any]) -> list[tuple[str, int]]:
    """Return which files have what came after the note, oldest first, from where on."""
    files: list[tuple[str, int]] = []
    for name in _rotated(path):
        try:
            found = os.stat(name)
        except FileNotFoundError:
            if files:
                break
            continue
        is_noted = [found.st_dev, found.st_ino] == noted.get("file")
        if is_noted and noted["offset"] <= found.st_size:
            return [*files, (name, noted["offset"])][::-1]
        files.append((name, 0))
    return []


def _rotated(path: str) -> Iterator[str]:
    yield path
    for number in range(1, _MOST_FILES):
        yield f"{path}.{number}"


def _last_part(path: str) -> list[tuple[str, int]]:
    try:
        return [(path, max(0, os.stat(path).st_size - _TAIL))]
    except FileNotFoundError:
        return []


def _read(name: str, offset: int, sifter: Sifter) -> bytes:
    """Let the sifter see a file's lines; return what follows the last one's end."""
    tail = b""
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.lseek(fd, offset, os.SEEK_SET)
        while piece := os.read(fd, _PIECE):
            end = piece.rfind(b"\n") + 1
            if end:
                sifter.sift(tail + piece[:end])
                tail = b""
            tail += piece[end:]
        # Whoever wrote it may have died before it was safe, and repeats of it will be
        # acknowledged.
        os.fsync(fd)
    finally:
        os.close(fd)
    return tail


def _is_whole(line: bytes) -> bool:
    """Say whether only the line's end is missing, or it would not pass for an event.

    An event that was cut off is none, and its repeat is kept. What must not happen is
    that it looks like one, should it have been cut where two braces end.
    """
    try:
        loads(line)
    except JSONDecodeError:
        return not line.endswith(b"}}")
    return True
