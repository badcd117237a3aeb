# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what is in an app's hands, which may try to make us wait, fail or read more."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def open_file(path: str | os.PathLike[str], *, within: Path | None = None) -> int:
    """Return the descriptor of a regular file, to be read. Raises OSError.

    A link there leads to what we may read, not they: it is not followed, but with
    `within` where it stays in that folder. A FIFO is not waited for.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags if within else flags | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file")
        if within is not None:
            # Asked of what is open: the path may lead elsewhere by now.
            found = os.readlink(f"/proc/self/fd/{descriptor}")
            if not found.startswith(f"{os.path.realpath(within)}/"):
                raise OSError(errno.EINVAL, "a link that leads out")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, most: int, *, within: Path | None = None) -> bytes:
    """Return what is in a file, as `open_file` opens it. Raises OSError."""
    with os.fdopen(open_file(path, within=within), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EINVAL, f"larger than {most} bytes")
    return data


def read_tail(path: Path, most: int) -> bytes:
    """Return the end of a file, b"" if there is none."""
    try:
        descriptor = open_file(path)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(0, end - most))
        return file.read(most)


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that this is, an empty one if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # brackets by the thousand
        return {}
    return found if isinstance(found, dict) else {}


def printable(text: str) -> str:
    """Return text that does nothing to a terminal: it may come from any app."""
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else f"\\x{ord(char):02x}"
        if char != "\r"
        else ""
        for char in text
    )
