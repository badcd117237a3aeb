# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Files that grow full, are moved away or were cut off lose no line."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forza
from forza.sinks import _logfile
from forza.sinks._logfile import LogFile

if TYPE_CHECKING:
    from pathlib import Path

MOST = 100


def open_log(path: Path, most: int = 0, keep: int = 99) -> tuple[LogFile, list[str]]:
    """Open a file, and what it says."""
    said: list[str] = []
    return LogFile(str(path), most, keep, said.append), said


def all_of(path: Path) -> list[bytes]:
    """Return what the files have, the oldest first."""
    count = len(list(path.parent.glob(f"{path.name}.*")))
    names = [path.with_name(f"{path.name}.{n}") for n in range(count, 0, -1)]
    return [name.read_bytes() for name in [*names, path]]


@given(batches=st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=8)))
def test_rotation(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]]
) -> None:
    """No line is lost, cut or moved; a file is too large only for a line that is."""
    path = tmp_path_factory.mktemp("rotation") / "log"
    log, said = open_log(path, MOST)
    sent = b""
    for sizes in batches:
        batch = b"".join(b"x" * (size - 1) + b"\n" for size in sizes)
        assert log.write(log.fd, batch) == len(batch)
        sent += batch
    log.close()
    found = all_of(path)
    assert b"".join(found) == sent
    for data in found:
        assert data.endswith(b"\n") or not data
        assert len(data) <= MOST or data.count(b"\n") == 1
    assert said == []


def test_rotation_goes_on(tmp_path: Path) -> None:
    """What was there before counts, and the same descriptor stays in use."""
    path = tmp_path / "log"
    path.write_bytes(b"a" * 79 + b"\n")
    path.chmod(0o600)
    log, _ = open_log(path, MOST, keep=2)
    fd = log.fd
    for letter in b"bcd":
        log.write(fd, bytes([letter]) * 79 + b"\n")
    assert log.fd == fd
    assert [data[:1] for data in all_of(path)] == [b"b", b"c", b"d"]
    assert path.stat().st_mode & 0o777 == 0o600
    log.close()


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced"])
def test_moved_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A file of that name is made anew, or found."""
    monkeypatch.setattr(_logfile, "_LOOK_SECONDS", -1.0)
    path = tmp_path / "log"
    log, _ = open_log(path)
    log.write(log.fd, b"one\n")
    if how == "removed":
        path.unlink()
    else:
        path.rename(tmp_path / "moved")
    if how == "replaced":
        path.write_bytes(b"new\n")
    log.write(log.fd, b"two\n")
    log.write(log.fd, b"three\n")
    assert (
        path.read_bytes() == (b"new\n" if how == "replaced" else b"") + b"two\nthree\n"
    )
    if how != "removed":
        assert (tmp_path / "moved").read_bytes() == b"one\n"
    log.close()


def test_full_and_moved_at_once(tmp_path: Path) -> None:
    """Somebody else's rotation is not done a second time."""
    path = tmp_path / "log"
    log, _ = open_log(path, MOST)
    log.write(log.fd, b"a" * 79 + b"\n")
    path.rename(tmp_path / "log.1")
    log.write(log.fd, b"b" * 79 + b"\n")
    assert [data[:1] for data in all_of(path)] == [b"a", b"b"]
    log.close()


def test_folder_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file can be made, the old one is written to, and it is said once."""
    monkeypatch.setattr(_logfile, "_LOOK_SECONDS", -1.0)
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "log"
    log, said = open_log(path, MOST)
    folder.rename(tmp_path / "other")
    for _ in range(5):
        log.write(log.fd, b"x" * 79 + b"\n")
    assert (tmp_path / "other" / "log").read_bytes() == (b"x" * 79 + b"\n") * 5
    assert len(said) == 1
    assert "no such file or directory" in said[0]
    log.close()


@pytest.mark.parametrize("text", [b"", b"whole\n", b"torn", b"whole\ntorn"])
def test_cut_off(tmp_path: Path, text: bytes) -> None:
    """A last line without an end gets one; what is whole stays as it is."""
    path = tmp_path / "log"
    path.write_bytes(text)
    log, _ = open_log(path)
    log.write(log.fd, b"next\n")
    end = b"" if text.endswith(b"\n") or not text else b"\n"
    assert path.read_bytes() == text + end + b"next\n"
    log.close()


def test_cut_off_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end that there was no room for comes before anything else that is written."""
    path = tmp_path / "log"
    path.write_bytes(b"torn")
    real, room = os.write, [0, 1, 1, 100]

    def write(fd: int, data: bytes) -> int:
        if not (left := room.pop(0)):
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data[:left])

    monkeypatch.setattr(os, "write", write)
    log = LogFile(str(path), 0, 5, print, end=b" \n")
    assert log.write(log.fd, b"next\n") == 0
    assert path.read_bytes() == b"torn "
    assert log.write(log.fd, b"next\n") == 5
    assert path.read_bytes() == b"torn \nnext\n"
    monkeypatch.undo()
    log.close()


def test_moved_and_torn_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same if such a file takes the place of the one that is written to."""
    monkeypatch.setattr(_logfile, "_LOOK_SECONDS", -1.0)
    path = tmp_path / "log"
    log, _ = open_log(path)
    path.rename(tmp_path / "old")
    path.write_bytes(b"torn")
    real, full = os.write, [True]

    def write(fd: int, data: bytes) -> int:
        if full[0]:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="no space"):
        log.write(log.fd, b"next\n")
    full[0] = False
    assert log.write(log.fd, b"next\n") == 5
    assert path.read_bytes() == b"torn\nnext\n"
    monkeypatch.undo()
    log.close()


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of which a part was written is finished before the file is changed."""
    room = [50]
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, "no space left on device")
        written = real(fd, data[: room[0]])
        room[0] -= written
        return written

    path = tmp_path / "log"
    log, _ = open_log(path, MOST)
    monkeypatch.setattr(os, "write", write)
    data = (b"a" * 39 + b"\n") + (b"b" * 79 + b"\n") + (b"c" * 39 + b"\n")
    done = 0
    while done < len(data):
        try:
            done += log.write(log.fd, data[done:])
        except OSError:
            room[0] = 25
    assert b"".join(all_of(path)) == data
    assert all(found.endswith(b"\n") for found in all_of(path))
    log.close()


def test_refused(tmp_path: Path) -> None:
    """What can't be opened is an error that names it, and why."""
    with pytest.raises(forza.SinkError, match="is a directory"):
        open_log(tmp_path)
