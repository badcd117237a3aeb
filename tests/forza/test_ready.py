# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Look at sockets and processes as readiness does, each way against the other."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tracemalloc
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import forza
from forza import _proc, _startlog
from forza._process import Process
from forza.ready import address, sources
from forza.ready._sockets import Diagnosis, holders, listening_by_proc
from forza.ready.log import Log
from forza.ready.port import Ports

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[dict[int, dict[str, object]]]:
    """Sockets of this process that listen, by inode, and some that do not."""
    with ExitStack() as stack:
        expected: dict[int, dict[str, object]] = {}

        def add(
            family: int, place: tuple[str, int] | str, listen: bool = True
        ) -> socket.socket:
            sock = stack.enter_context(socket.socket(family))
            sock.bind(place)
            if listen:
                sock.listen()
            return sock

        for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
            sock = add(family, (host, 0))
            where = {"address": host, "port": sock.getsockname()[1]}
            expected[os.fstat(sock.fileno()).st_ino] = where
        for name in f"\0forza-{os.getpid()}", str(tmp_path / "a b.sock"):
            sock = add(socket.AF_UNIX, name)
            where = {"path": name.replace("\0", "@")}
            expected[os.fstat(sock.fileno()).st_ino] = where
        add(socket.AF_INET, ("127.0.0.1", 0), listen=False)
        add(socket.AF_UNIX, str(tmp_path / "bound"), listen=False)
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        yield expected


def test_both_ways_see_the_same(listeners: dict[int, dict[str, object]]) -> None:
    """netlink and /proc tell of the same sockets, those that listen and no others."""
    diagnosis = Diagnosis()
    for found in diagnosis.where(diagnosis.inodes()), listening_by_proc(os.getpid()):
        ours = holders([os.getpid()], set(found))
        assert {inode: found[inode] for inode in ours} == listeners
        assert set(ours.values()) == {os.getpid()}
    diagnosis.close()


class Deaf(Process):
    """An app that listens nowhere."""

    __slots__ = ()

    def family(self) -> list[int]:
        return []


def test_others_that_listen_cost_little() -> None:
    """A host may have hundreds of apps, and each monitor looks at them all."""
    with ExitStack() as stack:
        for _ in range(400):
            sock = stack.enter_context(socket.socket())
            sock.bind(("127.0.0.1", 0))
            sock.listen()
        ports = Ports(Deaf(1, (), ipc=False), print)
        ports.look()
        tracemalloc.start()
        assert ports.look() == []
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        ports.close()
    assert peak < 400 * 300


def test_without_netlink(listeners: dict[int, dict[str, object]]) -> None:
    """A kernel that refuses in the middle is asked by /proc from then on."""
    ports = Ports(Process(os.getpid(), (), ipc=False), print)
    assert ports._diagnosis is not None
    ports._diagnosis._socket.close()
    found = ports.look()
    assert len(found) == len(listeners)
    assert all(where in listeners.values() for where in found)
    assert ports._diagnosis is None
    assert ports.look() == []
    ports.close()


def test_want_of_descriptors(listeners: dict[int, dict[str, object]]) -> None:
    """What cannot be seen for a while is seen later; that is said once."""
    said: list[str] = []
    ports = Ports(Process(os.getpid(), (), ipc=False), said.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        looks = [ports.look() for _ in range(5)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert looks == [[]] * 5
    assert said == [
        "cannot see where the app listens, trying again: too many open files"
    ]
    assert len(ports.look()) == len(listeners)
    ports.close()


def test_new_sockets_only(listeners: dict[int, dict[str, object]]) -> None:
    """Each socket is told once, TCP first, however many looks there are."""
    ports = Ports(Process(os.getpid(), (), ipc=False), print)
    first = ports.look()
    assert len(first) == len(listeners)
    assert ["port" in where for where in first] == [True, True, False, False]
    assert ports.look() == []
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert [where["port"] for where in ports.look()] == [server.getsockname()[1]]
    assert ports.look() == []
    ports.close()


def test_descends() -> None:
    """A child descends from us, we from our parent, a stranger from neither."""
    script = "import sys; sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, start_new_session=True
    ) as child:
        assert _proc.descends(child.pid, os.getpid()) is True
        assert _proc.descends(child.pid, child.pid) is True
        assert _proc.descends(os.getpid(), child.pid) is False
        assert _proc.descends(1, child.pid) is False
        child.communicate()
    assert _proc.descends(child.pid, os.getpid()) is None


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("http", "localhost", ("localhost", 80)),
        ("http", "localhost/", ("localhost", 80)),
        ("http", "a.example:81/x/y?z=1:2", ("a.example", 81)),
        ("http", "[::1]:82", ("::1", 82)),
        ("http", "[::1]/x", ("::1", 80)),
        ("tcp", "127.0.0.1:5432", ("127.0.0.1", 5432)),
        ("tcp", "[fe80::1]:22", ("fe80::1", 22)),
    ],
)
def test_address(kind: str, value: str, expected: tuple[str, int]) -> None:
    """Host and port of a probe, in each form."""
    assert address(kind, value) == expected


def test_sources() -> None:
    """One a line; what follows the first `=` is the value, whatever it has in it."""
    text = "port\nlog=a=b\nexec=test -e x\nhttp://a/b=c\nnotify=/run/x"
    assert sources(text) == [
        *(("port", ""), ("log", "a=b"), ("exec", "test -e x")),
        *(("http", "a/b=c"), ("notify", "/run/x")),
    ]
    with pytest.raises(forza.PluginError):
        sources("port\n")


def test_plain_text_needs_no_module() -> None:
    """A text without special characters does not load `re`, a pattern does."""
    program = (
        "import sys; from forza.ready.log import pattern; pattern('ready on 80');"
        "assert 're' not in sys.modules; pattern('ready.*'); assert 're' in sys.modules"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", PATH + program], check=True)


PATH = f"import sys; sys.path[:0] = {sys.path!r};"


def test_log_over_the_cap() -> None:
    """A line without end is kept to its last 64 KiB, and is a line when it ends."""
    log = Log(["end$"])
    assert not log.data("stdout", b"x" * 200_000)
    assert len(log._tails["stdout"]) == 65536
    assert not log.data("stderr", b"end")
    assert log.data("stdout", b"end\n")


def test_start_log_on_a_full_disk(tmp_path: Path) -> None:
    """If the line cannot be written whole, nothing of it is there, and nothing else."""
    log = tmp_path / "start.log"
    _startlog.prepare(str(log))
    program = (
        "import resource, signal, sys; from forza import _startlog;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY));"
        f"_startlog.write({str(log)!r}, b'x' * 100 + b'\\n')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", PATH + program], capture_output=True, check=False
    )
    assert b"File too large" in ended.stderr
    assert log.read_bytes() == b""
    assert os.listdir(tmp_path) == ["start.log"]
