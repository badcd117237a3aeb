# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Where events go: a receiver that counts, and three that misbehave."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .cache import compiled
from .cell import GaveUpError

__all__ = ["Counts", "Receiver", "black_hole", "refusing_port"]


@dataclass(frozen=True)
class Counts:
    """What had arrived, and when on the monotonic clock, in seconds."""

    marks: int
    bytes: int
    connections: int
    when: float


class Receiver:
    """native/sink.c on a loopback port, in a process of its own."""

    def __init__(self, target: int = 0, port: int = 0, probe: bool = False) -> None:
        self.process = subprocess.Popen(
            [str(compiled("sink")), str(port), str(target), str(int(probe))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.pipe = self.process.stdout.fileno()
        self.rest = b""
        self.last: Counts | None = None
        self.ages: dict[str, list[float]] = {"probe": [], "age": []}
        word, number = self.line(time.monotonic() + 10).split()
        assert word == "port", word
        self.port = int(number)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def line(self, deadline: float) -> str:
        """Return its next line."""
        while b"\n" not in self.rest:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self.pipe], [], [], left)[0]:
                raise GaveUpError("the receiver did not get all of it in time")
            data = os.read(self.pipe, 65536)
            if not data:
                raise GaveUpError("the receiver has died")
            self.rest += data
        line, _, self.rest = self.rest.partition(b"\n")
        return line.decode()

    def wait(self, seconds: float) -> Counts:
        """Wait until the target has come, collecting the probes before it."""
        deadline = time.monotonic() + seconds
        while True:
            word, *values = self.line(deadline).split()
            if word in self.ages:
                self.ages[word].append(float(values[0]))
            elif word == "marks":
                return Counts(
                    int(values[0]), int(values[2]), int(values[4]), int(values[6]) / 1e9
                )

    def counts(self) -> Counts:
        """Return what has arrived until now; not before wait() has returned."""
        self.process.send_signal(signal.SIGUSR2)
        return self.wait(10)

    def forget_probes(self) -> None:
        """Drop the ages that have been reported so far."""
        try:
            while True:
                self.line(time.monotonic())
        except GaveUpError:
            pass

    def toggle_stall(self) -> None:
        """Stop reading from the connections, or go on."""
        self.process.send_signal(signal.SIGUSR1)

    def close(self) -> Counts | None:
        """End it and return the final counts; None if it had died before."""
        if self.process.returncode is not None:
            return self.last
        try:
            self.process.terminate()
            while True:
                self.last = self.wait(10)
        except GaveUpError:  # its output has ended
            return self.last
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


def refusing_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
    return port


@contextmanager
def black_hole() -> Iterator[int]:
    """Yield a port whose connection attempts get no answer at all.

    The queue of a listener that never accepts is filled; Linux then drops
    further SYNs without a word.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
