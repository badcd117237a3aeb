# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write a file that is there whole or not at all, whatever kills us meanwhile."""

from __future__ import annotations

import fcntl
import glob
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self


class Target:
    """A file in the making, beside its place; `commit` puts it there.

    Without `commit` the block leaves nothing. What a process left that was killed is
    removed by the next that makes the same file: a lock tells it from a living one's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        sweep(self.path.parent, f".{glob.escape(self.path.name)}.*.part")
        self.descriptor, self._name = self._create()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._name:
            with suppress(OSError):
                os.unlink(self._name)
        os.close(self.descriptor)

    def allocate(self, size: int) -> None:
        """Take the room that will be needed, or fail now rather than half-way."""
        if size:
            os.posix_fallocate(self.descriptor, 0, size)

    def write(self, pieces: Sequence[bytes], at: int) -> None:
        """Write all the bytes at an offset, without joining them in memory."""
        whole = sum(map(len, pieces))
        written = os.pwritev(self.descriptor, pieces, at)
        if written < whole:  # a full disk, or a signal: the next call will say
            rest = b"".join(pieces)[written:]
            self.write([rest], at + written)

    def commit(self) -> None:
        """Put the file in its place, so that it is there after a power cut, too."""
        os.fsync(self.descriptor)
        os.replace(self._name, self.path)
        self._name = ""
        sync_folder(self.path.parent)

    def _create(self) -> tuple[int, str]:
        while True:
            # Not by tempfile, which alone costs a megabyte.
            name = f"{self.path.parent}/.{self.path.name}.{os.urandom(4).hex()}.part"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Another's sweep may have come between the two.
            if os.fstat(descriptor).st_nlink:
                return descriptor, name
            os.close(descriptor)


def digest_beside(path: Path) -> Path:
    """Return where the SHA-256 of a file is, which is beside it."""
    return path.with_name(f"{path.name}.sha256")


def write_digest(path: Path, sha256: str) -> None:
    """Write the SHA-256 of a file beside it, as sha256sum does."""
    with Target(digest_beside(path)) as target:
        os.fchmod(target.descriptor, 0o644)
        target.write([f"{sha256}  {path.name}\n".encode()], 0)
        target.commit()


def sweep(folder: Path, pattern: str) -> None:
    """Remove what was in the making when its process was killed.

    A lock tells it from what a living one makes.
    """
    # Whoever put a FIFO there shall not make us wait.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for left in folder.glob(pattern):
        with suppress(OSError):
            descriptor = os.open(left, flags)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    import shutil  # which fetching does without

                    shutil.rmtree(left)
                else:
                    left.unlink()
            finally:
                os.close(descriptor)


def make_folders(path: Path) -> None:
    """Make a folder and those above it, so that a power cut does not take them."""
    if path.is_dir():
        return
    make_folders(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename last: it is the folder that has changed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
