# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run forza as its users do: as a program, in each of its two runtimes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza import _native
from tests.certificates import Certificates
from tests.conftest import PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.conftest import Event

# In the environment of every program a test starts: what still has it after the test
# was left behind.
_MARK = "FORZA_TEST_RUN"

_PR_CAPBSET_DROP, _CAP_NET_BIND_SERVICE = 24, 10
_prctl = ctypes.CDLL(None).prctl


def _drop() -> None:
    assert _prctl(_PR_CAPBSET_DROP, _CAP_NET_BIND_SERVICE, 0, 0, 0) == 0


# Takes from forza what lets root have any port, so that it may not have 80.
PLAIN: dict[str, Any] = {"preexec_fn": _drop} if os.getuid() == 0 else {}

_PR_SET_KEEPCAPS, _PR_CAP_AMBIENT, _RAISE, _CAP_DAC_READ_SEARCH = 8, 47, 2, 2
_CAPABILITY_VERSION_3 = 0x20080522
NOBODY = 65534


def become_user(uid: int = NOBODY) -> None:
    """Be an ordinary user, between fork and exec; who may read what root may, though:
    the tests may be in root's own folder."""
    assert _prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    one = 1 << _CAP_DAC_READ_SEARCH
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted, inheritable: the lower halves, then the upper.
    data = (ctypes.c_uint32 * 6)(one, one, one, 0, 0, 0)
    assert ctypes.CDLL(None).capset(header, data) == 0
    assert _prctl(_PR_CAP_AMBIENT, _RAISE, _CAP_DAC_READ_SEARCH, 0, 0) == 0


_FIRST = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()
needs_hook = pytest.mark.skipif(
    _native.path("libbind.so") is None or int(_FIRST) < 1024,
    reason="the bind hook was not built, or low ports are anybody's here",
)


class Forza:
    """Start forza by its command line, and leave nothing of it behind."""

    def __init__(self, runtime: str) -> None:
        self.runtime = runtime
        self.mark = uuid.uuid4().hex
        self._programs: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        *args: str | Path | float,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.PIPE,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.Popen[bytes]:
        """Start forza with these arguments; what it says is piped to the test."""
        environ = {**os.environ, _MARK: self.mark, **(env or {})}
        environ.pop("FORZA_RUNTIME", None)
        if self.runtime == "plain":
            environ["FORZA_RUNTIME"] = "plain"
        program = subprocess.Popen(
            [sys.executable, "-m", "forza", *map(str, args)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environ,
            cwd=ROOT,
            **options,
        )
        self._programs.append(program)
        return program

    def run(self, *args: str | Path | float, **options: Any) -> Ended:
        """Run forza to its end."""
        return self.wait(self.start(*args, **options))

    def wait(self, program: subprocess.Popen[bytes]) -> Ended:
        """Wait for forza's end; its stdin, if the test holds it, is closed."""
        stdout, stderr = program.communicate(timeout=PATIENCE)
        return Ended(program.returncode, stdout or b"", stderr or b"")

    def close(self) -> None:
        """End what the test started, and fail if forza itself should have."""
        for program in self._programs:
            if program.poll() is None:
                program.terminate()
        for program in self._programs:
            try:
                program.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                program.communicate()
        left = self._wait_for_none_left()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"left behind: {list(left.values())}"

    def _wait_for_none_left(self) -> dict[int, str]:
        # Whoever is killed together with forza may take a moment to be gone.
        deadline = time.monotonic() + 5
        while (left := dict(self.descendants())) and time.monotonic() < deadline:
            time.sleep(0.01)
        return left

    def descendants(self) -> Iterable[tuple[int, str]]:
        """Find the live processes that this test has to answer for."""
        wanted = f"{_MARK}={self.mark}".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environ = (folder / "environ").read_bytes().split(b"\0")
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if wanted in environ:
                yield int(folder.name), command.replace(b"\0", b" ").decode()


class Ended:
    """What is left of a program: its status and its words."""

    def __init__(self, status: int, stdout: bytes, stderr: bytes) -> None:
        self.status = status
        self.stdout = stdout
        self.stderr = stderr.decode()

    @property
    def events(self) -> list[Event]:
        """Parse stdout, which has nothing but events, one a line."""
        assert self.stdout.endswith(b"\n") or not self.stdout
        return [orjson.loads(line) for line in self.stdout.splitlines()]

    def of(self, service: str) -> list[Event]:
        """Return the events of one service."""
        return [event for event in self.events if event["service"] == service]

    def text(self, service: str) -> str:
        """Return the joined descriptions of one service."""
        return "".join(event["description"] for event in self.of(service))


@pytest.fixture(params=["lean", "plain"])
def forza(request: pytest.FixtureRequest) -> Iterator[Forza]:
    """Forza as a program, once lean and once plain."""
    program = Forza(request.param)
    yield program
    program.close()


@pytest.fixture
def lean_forza() -> Iterator[Forza]:
    """Forza as it runs by default, for what no runtime can change."""
    program = Forza("lean")
    yield program
    program.close()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of every kind."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
