# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""One run of one thing that is measured: its directory, processes and end."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["Cell", "GaveUpError", "wait_until"]

MARK = "FORZA_BENCHMARK_CELL"
GRACE = 10.0

# Any of these in the caller's environment would change what is measured:
# PYTHONUNBUFFERED and PYTHONDONTWRITEBYTECODE alone shift start-up by a third.
FOREIGN = ("LD_PRELOAD", "PYTHON", "NODE_", "PM2_", "npm_", "FORZA_")


class GaveUpError(Exception):
    """Something did not happen in time."""


def wait_until(ready: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again every few milliseconds; raise GaveUpError after so long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise GaveUpError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.005)


def ram_disk() -> str | None:
    """Name a place for log files that is no slower for one than for another."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Cell:
    """The directory, environment and processes of one run.

    Every process started here carries a mark in its environment, inherited by
    whatever it starts: that finds the daemons that left for a session of their
    own, and nothing that was not started here is ever signalled.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self.grace = grace
        self.path = Path(tempfile.mkdtemp(prefix="forza-benchmark-", dir=ram_disk()))
        self.pids = self.path / "pids"
        self.home = self.path / "home"
        self.pids.mkdir()
        self.home.mkdir()
        name = secrets.token_hex(8)
        self.mark = f"{MARK}={name}"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
        self.env |= {"HOME": str(self.home), "LC_ALL": "C.UTF-8", MARK: name}
        self.children: list[subprocess.Popen[bytes]] = []
        self.gate: int | None = None

    def __enter__(self) -> Cell:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def spawn(
        self,
        argv: Sequence[str | Path],
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process that close() ends; what it prints goes to a file."""
        with (self.path / "output").open("ab") as output:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=stdin,
                stdout=output if stdout is None else stdout,
                stderr=output,
                env={**self.env, **(env or {})},
                cwd=self.path,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def run(
        self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None
    ) -> int:
        """Run a command to its end."""
        return self.spawn(argv, env=env).wait(timeout=120)

    def output(self) -> str:
        """Return the end of what the processes printed."""
        with suppress(FileNotFoundError):
            return (self.path / "output").read_text(errors="replace")[-2000:]
        return ""

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        """Write a configuration file under the cell's directory."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def closed_gate(self) -> Path:
        """Return a fifo that keeps the apps that read it waiting."""
        path = self.path / "gate"
        os.mkfifo(path)
        # Opened for both ends, so that nobody waits for the other to open.
        self.gate = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return path

    def open_gate(self) -> None:
        """Let one app go."""
        if self.gate is not None:
            os.write(self.gate, b"!")

    def apps(self) -> set[int]:
        """Return the pids of the apps that have reported."""
        return {int(file.name) for file in self.pids.iterdir()}

    def wait_for_apps(self, count: int, seconds: float = 60) -> None:
        """Wait until so many apps have reported."""
        try:
            wait_until(lambda: len(self.apps()) >= count, seconds, f"{count} apps")
        except GaveUpError as error:
            raise GaveUpError(f"{error}\n{self.output()}") from None

    def monitors(self) -> list[int]:
        """Return every process of the cell but the apps and their children."""
        parents = dict(self.processes())
        apps = self.apps()
        monitors = []
        for pid in parents:
            ancestor: int | None = pid
            while ancestor in parents and ancestor not in apps:
                ancestor = parents[ancestor]
            if ancestor not in apps:
                monitors.append(pid)
        return monitors

    def processes(self) -> Iterator[tuple[int, int]]:
        """Yield pid and parent of every living process that carries our mark, and of
        forza's guards below them, which forget their environment."""
        needle = self.mark.encode()
        marked: set[int] = set()
        guards: list[tuple[int, int]] = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            with suppress(OSError):
                environment = Path("/proc", entry, "environ").read_bytes()
                status = Path("/proc", entry, "stat").read_bytes()
                end = status.rindex(b")")
                pid, parent = int(entry), int(status[end + 4 :].split()[0])
                if needle in environment.split(b"\0"):
                    marked.add(pid)
                    yield pid, parent
                elif status[:end].endswith(b"(forza-guard"):
                    guards.append((pid, parent))
        yield from (guard for guard in guards if guard[1] in marked)

    def close(self) -> None:
        """End every process of the cell and remove its directory."""
        if not self.pids.exists():
            return
        self.signal_all(signal.SIGTERM)
        with suppress(GaveUpError):
            wait_until(self.is_empty, self.grace, "the end of the processes")
        for _ in range(20):  # a keeper may start another while it is being killed
            if self.is_empty():
                break
            self.signal_all(signal.SIGKILL)
            time.sleep(0.1)
        if self.gate is not None:
            os.close(self.gate)
            self.gate = None
        shutil.rmtree(self.path, ignore_errors=True)

    def is_empty(self) -> bool:
        """Reap our own children and tell whether any process is left."""
        for child in self.children:
            child.poll()
        return not any(True for _ in self.processes())

    def signal_all(self, signum: signal.Signals) -> None:
        """Signal the monitors first, so that none of them restarts an app."""
        apps = self.apps()
        for pid, _ in sorted(self.processes(), key=lambda process: process[0] in apps):
            with suppress(OSError):
                handle = os.pidfd_open(pid)
                try:
                    # Looked up again through the handle: the pid may be another's.
                    environment = Path(f"/proc/{pid}/environ").read_bytes()
                    if self.mark.encode() in environment:
                        signal.pidfd_send_signal(handle, signum)
                finally:
                    os.close(handle)
