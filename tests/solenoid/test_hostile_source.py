# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Snapshots and servers that mean harm: one error, and neither memory nor disk gone."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

import solenoid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 512
# Prints by how many kilobytes its peak has grown.
_UNPACK = """
import asyncio, resource, sys, solenoid
solenoid.unpack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(solenoid.unpack(sys.argv[1], sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def header(name: str, kind: bytes, size: int = 0) -> bytes:
    """Return an entry's header."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def pax(key: bytes, value: bytes) -> bytes:
    """Return what says one thing of the next entry."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    data = str(length).encode() + rest
    return header("x", tarfile.XHDTYPE, len(data)) + data.ljust(
        -(-length // 512) * 512, b"\0"
    )


def packed(path: Path, *pieces: bytes) -> Path:
    """Write an archive of these pieces and one file."""
    with gzip.open(path, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.write(header("package/a", tarfile.REGTYPE) + bytes(2 * _BLOCK))
    return path


def refused(path: Path, into: Path, **options: int) -> str:
    """Unpack; return why it was refused."""
    with pytest.raises(solenoid.UnpackError) as caught:
        asyncio.run(solenoid.unpack(path, into, limits=solenoid.Limits(**options)))
    assert not into.exists()
    return str(caught.value)


def test_a_size_of_many_digits(tmp_path: Path) -> None:
    """More than Python turns into a number."""
    bad = packed(tmp_path / "a.tgz", pax(b"size", b"9" * 5000))
    assert "a damaged pax header" in refused(bad, tmp_path / "a")


def test_names_that_are_all_folders(tmp_path: Path) -> None:
    """A few entries, and hundreds of folders in each one's name."""
    deep = [
        pax(b"path", f"package/{n}/{'a/' * 400}f".encode())
        + header("f", tarfile.REGTYPE)
        for n in range(20)
    ]
    bad = packed(tmp_path / "a.tgz", *deep)
    assert "more than 1000 folders in them" in refused(
        bad, tmp_path / "a", entries=1000
    )


def test_headers_without_end(tmp_path: Path) -> None:
    """What pax says of nothing is not kept, however much it is."""
    bad = packed(
        tmp_path / "a.tgz",
        *(pax(b"k%d" % n, os.urandom(1000) * 900) for n in range(150)),
    )
    # In a process of its own: its peak is what counts.
    words = [sys.executable, "-c", _UNPACK, str(bad), str(tmp_path / "a")]
    ended = subprocess.run(words, check=True, capture_output=True, text=True)
    assert int(ended.stdout) < 40_000


@contextmanager
def serving(answer: bytes) -> Iterator[str]:
    """Give this answer to all who ask; yields the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, suppress(OSError):
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/a.tgz"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


_MANY = b"9" * 5000


@pytest.mark.parametrize(
    "answer",
    [
        b"200 OK\r\nContent-Length: " + _MANY + b"\r\n\r\nabc",
        b"200 OK\r\nContent-Length: -4\r\n\r\nabc",
        b"206 OK\r\nContent-Range: bytes 0-2/" + _MANY + b"\r\n\r\nabc",
        b"302 Found\r\nLocation: http://[\r\n\r\n",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"a" * 200_000,
        b"200 OK\r\nContent-Length: 99999999999999\r\n\r\nabc",
    ],
    ids=["length", "negative", "range", "location", "chunk", "huge"],
)
def test_answers(tmp_path: Path, answer: bytes) -> None:
    """Each is a FetchError, and leaves nothing."""
    with serving(b"HTTP/1.1 " + answer) as url, pytest.raises(solenoid.FetchError):
        asyncio.run(solenoid.fetch(url, tmp_path / "a", attempts=2, max_bytes=1 << 30))
    assert not list(tmp_path.iterdir())
