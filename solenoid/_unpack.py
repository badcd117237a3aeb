# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Unpack a snapshot that is not trusted, into a folder that is there whole or not."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import UnpackError
from solenoid._inflate import Inflated
from solenoid._tar import BLOCK, Entry, entries
from solenoid._thread import in_thread
from solenoid._tree import Tree, refused

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    Progress = Callable[[int, int], None]

_PIECE = 1 << 17
_PROGRESS_EVERY = 256  # entries


@dataclass(frozen=True, slots=True)
class Limits:
    """What a snapshot may be at most; more is refused before it has done harm.

    `entries` counts files, folders and links, and as often folders that are but part of
    a name; `bytes` is the archive's size when decompressed; `ratio` how many times that
    is the compressed one (from 32 MiB on); `name` the bytes of one path.
    """

    entries: int = 200_000
    bytes: int = 4 << 30
    ratio: int = 200
    name: int = 1024


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A snapshot on disk: the folder, how many entries, how many bytes in files."""

    path: Path
    entries: int
    bytes: int


async def unpack(
    archive: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
    top: str | None = "package",
) -> Unpacked:
    """Unpack a .tgz into the new folder `into`, which appears when it is complete.

    The folders above it are made if need be.
    The app is in its folder `package`, whatever the one folder at the archive's top
    is called; with `top=None` what is in that folder is in `into` itself. Refused,
    with the name of the entry, is what is absolute or leads out, devices and FIFOs,
    setuid and setgid bits, and whatever exceeds the `limits`.
    `progress` is told, in another thread, the compressed bytes so far and in all.

    Raises UnpackError; nothing is left then, nor when it is cancelled. What a process
    left that was killed is removed by the next.
    """
    source, target = Path(archive), Path(into)
    given = limits or Limits()
    return await in_thread(
        lambda stop: _unpack(source, target, given, progress, top, stop)
    )


def _unpack(
    source: Path,
    into: Path,
    limits: Limits,
    progress: Progress | None,
    top: str | None,
    stop: threading.Event,
) -> Unpacked:
    try:
        if os.path.lexists(into):
            raise UnpackError(f"{into} exists already", blame="system")
        with source.open("rb") as file, Tree(into) as tree:
            stream = Inflated(file, limits.bytes, limits.ratio)
            try:
                size = os.fstat(file.fileno()).st_size
                report = _reporter(progress, lambda: file.tell(), size)
                count, total = _all(stream, tree, limits, report, stop)
                while stream.some(_PIECE):
                    pass  # to the end, where gzip has its checksum
            finally:
                stream.close()
            tree.call_the_top(top)
            tree.commit()
            report(0)
        return Unpacked(into, count, total)
    except UnpackError as error:
        why = f"cannot unpack {source.name}: {error}"
        raise UnpackError(why, blame=error.blame, entry=error.entry) from error
    except OSError as error:
        # Beside the archive it can but be what is being made, under another name.
        at = source if error.filename == str(source) else into
        why = f"cannot unpack {source.name}: {at}: {error.strerror}"
        raise UnpackError(why, blame="system") from error


def _reporter(
    progress: Progress | None, position: Callable[[], int], size: int
) -> Callable[[int], None]:
    def report(count: int) -> None:
        if progress is not None and count % _PROGRESS_EVERY == 0:
            progress(position(), size)

    return report


def _all(
    stream: Inflated,
    tree: Tree,
    limits: Limits,
    report: Callable[[int], None],
    stop: threading.Event,
) -> tuple[int, int]:
    count = total = 0
    for entry in entries(stream):
        if stop.is_set():
            raise UnpackError("cancelled")
        count += 1
        if count > limits.entries:
            raise refused(entry.name, f"one of more than {limits.entries} entries")
        if len(os.fsencode(entry.name)) > limits.name:
            raise refused(entry.name, f"a name of more than {limits.name} bytes")
        if entry.size > limits.bytes:
            raise refused(entry.name, f"larger than {limits.bytes} bytes")
        if entry.mode & (stat.S_ISUID | stat.S_ISGID):
            raise refused(entry.name, "setuid or setgid")
        try:
            _one(stream, tree, entry)
        except UnpackError as error:
            if error.entry is not None:
                raise
            raise UnpackError(f"{error}, in {entry.name!r}", entry=entry.name) from None
        if tree.folders > count + limits.entries:
            why = f"names with more than {limits.entries} folders in them"
            raise refused(entry.name, why)
        total += entry.size
        report(count)
    tree.check_links()
    return count, total


def _one(stream: Inflated, tree: Tree, entry: Entry) -> None:
    if entry.kind == "file":
        left = entry.size
        padding = -left % BLOCK
        descriptor = tree.file(entry.name, executable=bool(entry.mode & 0o111))
        try:
            while left:
                data = stream.some(min(left, _PIECE))
                if not data:
                    raise UnpackError("the archive ends too early", entry=entry.name)
                left -= len(data)
                while data:
                    data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        stream.read(padding)
    elif entry.kind == "folder":
        tree.folder(entry.name)
    elif entry.kind == "link":
        tree.link(entry.name, entry.target)
    elif entry.kind == "hard link":
        tree.hard_link(entry.name, entry.target)
    else:
        raise refused(entry.name, f"a {entry.kind}")
