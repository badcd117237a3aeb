# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whatever happens between forza and `forza listen`: each line is stored, once, and
the app never waits."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN, PATIENCE
from tests.contract.test_listen import Listener
from tests.proxy import Proxy

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.certificates import Certificates
    from tests.contract.conftest import Forza


FIRST, REST = 200, 20_000
# How long a receiver stalls; the buffers are full before. A minute is worth a try.
STALL = float(os.environ.get("FORZA_TEST_STALL", "1"))


def whole(data: bytes) -> list[bytes]:
    """Return the lines that are events: a kill may leave the torso of one."""
    return [line for line in data.split(b"\n")[:-1] if line.endswith(b"}}")]


class Chain:
    """App, forza, proxy, receiver, file."""

    def __init__(
        self, forza: Forza, folder: Path, way: str, certificates: Certificates
    ) -> None:
        self.forza = forza
        self.folder = folder
        self.path = folder / "events"
        self.spool = folder / "spool"
        tls = ("--tls-cert", str(certificates.good)) if "tls" in way else ()
        self.listener = Listener(forza, "--to", f"file:{self.path}", *tls)
        socket = folder / "socket" if "unix" in way else None
        self.proxy = Proxy(self.listener.port, socket)
        to = f"unix:{socket}" if socket else f"tcp:127.0.0.1:{self.proxy.port}"
        if tls:
            to = f"tls:127.0.0.1:{self.proxy.port}?ca={certificates.ca}"
        self.args = ("--to", to, "--flush-timeout", PATIENCE + STALL)
        self.held = ("--spool", self.spool) if "spool" in way else ("--buffer", "64M")

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the app."""
        return self.forza.start(
            *(*self.args, *(options or self.held), "--", sys.executable, "-S"),
            *(CHILDREN / "paced.py", FIRST, REST, self.folder),
        )

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        """Start the app, and wait until its first lines are stored."""
        program = self.begin(*options)
        self.wait_for(lambda: len(self.lines()) >= FIRST, "first lines")
        return program

    def go(self) -> None:
        """Let the app print the rest."""
        (self.folder / "go").touch()

    def wait_for_the_app(self) -> None:
        """Wait until the app has printed all: it must not need anybody for that."""
        self.wait_for((self.folder / "done").exists, "end of the app")

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"no {what}"
            time.sleep(0.01)

    def lines(self) -> list[str]:
        """Return the app's lines as they are stored."""
        data = self.path.read_bytes() if self.path.exists() else b""
        return [
            event["description"]
            for event in map(orjson.loads, whole(data))
            if event["service"] == "logs/stdout"
        ]

    def finish(self, program: subprocess.Popen[bytes]) -> None:
        """Wait for forza's end, and check that each line is stored once, in order."""
        ended = self.forza.wait(program)
        assert ended.status == 0
        assert "not delivered" not in ended.stderr
        self.listener.stop()
        numbers = [int(line.split()[0]) for line in self.lines()]
        assert numbers == list(range(FIRST + REST))
        last = orjson.loads(self.path.read_bytes().splitlines()[-1])
        assert last["service"] == "health/process/exit"
        if self.spool.exists():
            assert os.listdir(self.spool) == ["lock"]

    def close(self) -> None:
        """End the proxy; the programs are the fixture's."""
        self.proxy.close()


@pytest.fixture(params=["tcp", "tcp spool", "tls", "tls spool", "unix", "unix spool"])
def chain(
    request: pytest.FixtureRequest,
    lean_forza: Forza,
    tmp_path: Path,
    certificates: Certificates,
) -> Iterator[Chain]:
    """A chain whose receiver runs; what the sink has not delivered is in memory, or in
    a spool."""
    chain = Chain(lean_forza, tmp_path, request.param, certificates)
    yield chain
    chain.close()


def test_no_fault(chain: Chain) -> None:
    """The chain itself."""
    program = chain.start()
    chain.go()
    chain.wait_for_the_app()
    chain.finish(program)


@pytest.mark.parametrize("fault", ["refuse", "swallow", "stall", "trickle"])
def test_away(chain: Chain, fault: str) -> None:
    """A receiver that is not there, or as good as not, while the app runs to its end
    and after it."""
    program = chain.start()
    if fault == "trickle":
        chain.proxy.trickle(1.0)
    else:
        getattr(chain.proxy, fault)()
    chain.go()
    chain.wait_for_the_app()
    assert len(chain.lines()) < FIRST + REST
    chain.proxy.come_back()
    chain.finish(program)


@pytest.mark.parametrize("fault", ["refuse", "swallow", "stall"])
def test_away_before_the_start(chain: Chain, fault: str) -> None:
    """The app starts and runs although nobody listens."""
    getattr(chain.proxy, fault)()
    program = chain.begin()
    chain.go()
    chain.wait_for_the_app()
    chain.proxy.come_back()
    chain.finish(program)


@pytest.mark.parametrize("how", ["reset", "close", "half", "deaf"])
def test_cut(chain: Chain, how: str) -> None:
    """Connections that are cut in the middle of lines, again and again."""
    program = chain.start()
    chain.proxy.cut(how, 1, 1001, 50_003, 200_007, 13, 5)
    chain.go()
    chain.wait_for_the_app()
    chain.wait_for(lambda: not chain.proxy.cuts_left, "cuts")
    chain.finish(program)
    assert chain.proxy.made >= 2


def test_receiver_killed(chain: Chain) -> None:
    """The receiver is killed again and again, and started after a while."""
    program = chain.start()
    over = threading.Event()

    def kill() -> None:
        while not over.wait(0.1):
            chain.listener = chain.listener.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        chain.go()
        chain.wait_for_the_app()
    finally:
        over.set()
        killer.join()
    chain.finish(program)


@pytest.mark.parametrize("way", ["tcp", "tls", "unix"])
def test_stall_that_fills_every_buffer(
    lean_forza: Forza, tmp_path: Path, way: str, certificates: Certificates
) -> None:
    """A receiver that is there and takes nothing for long: the app goes on, and what is
    missing in the end was counted."""
    chain = Chain(lean_forza, tmp_path, way, certificates)
    try:
        only = ("--plugin", "logs", "--plugin", "process", "--buffer", "512K")
        program = chain.start(*only)
        chain.proxy.stall()
        chain.go()
        chain.wait_for_the_app()
        time.sleep(STALL)
        assert program.poll() is None
        chain.proxy.come_back()
        assert lean_forza.wait(program).status == 0
        chain.listener.stop()
    finally:
        chain.close()
    events = [orjson.loads(line) for line in whole(chain.path.read_bytes())]
    lines = [int(line.split()[0]) for line in chain.lines()]
    assert lines == sorted(set(lines))
    missing = FIRST + REST - len(lines)
    told = [e for e in events if e["service"] == "telemetry/dropped"]
    assert {event["meta"]["reason"] for event in told} == {"buffer full"}
    # forza's own memory, which is said once a minute, may be among what was dropped.
    spare = 1 + STALL // 60
    assert 0 < missing <= sum(e["metric"] for e in told) <= missing + spare
    assert events[-1]["service"] == "health/process/exit"
    places = [(e["meta"]["boot"], e["meta"]["seq"]) for e in events]
    assert places == sorted(places)


def test_several_sinks(chain: Chain, tmp_path: Path) -> None:
    """What one sink suffers, another does not notice."""
    other = tmp_path / "other"
    program = chain.start(*chain.held, "--to", f"file:{other}")
    chain.proxy.stall()
    chain.go()
    chain.wait_for_the_app()
    chain.wait_for(
        lambda: other.read_bytes().count(b'"logs/stdout"') == FIRST + REST, "other file"
    )
    assert len(chain.lines()) < FIRST + REST
    chain.proxy.come_back()
    chain.finish(program)
    known = {"done", "events", "events.boots", "go", "other", "socket", "spool"}
    assert known.issuperset(os.listdir(tmp_path))
