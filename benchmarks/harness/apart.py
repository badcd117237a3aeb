# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Machines with networks of their own on one switch; they end with their processes.

Nothing has a name in the system, and no network of the machine's own is touched: the
switch is in a namespace, too, and so is whoever is to reach the others.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .cache import UnavailableError

__all__ = ["Switch"]

# Whatever ends us ends them.
WITH_US = ("setpriv", "--pdeathsig", "KILL")
NETWORK, HERE = "10.99", "10.99.255.254"
PATIENCE = 30.0


class Switch:
    """A bridge in a namespace; `words` before a command have it run there."""

    def __init__(self, pid: int) -> None:
        self.words = ["nsenter", f"--net=/proc/{pid}/ns/net"]

    @classmethod
    @contextmanager
    def on(cls) -> Iterator[Switch]:
        """Have one for as long as the block; raises UnavailableError."""
        with namespace(["sleep", "infinity"]) as pid:
            switch = cls(pid)
            ip(
                switch.words,
                "link set lo up",
                "link add switch type bridge",
                f"address add {HERE}/16 dev switch",
                "link set switch up",
            )
            yield switch

    @staticmethod
    def address(number: int) -> str:
        """Return the address of a machine, from 0."""
        return f"{NETWORK}.{number // 250}.{number % 250 + 1}"

    @contextmanager
    def machine(self, number: int, words: Sequence[str]) -> Iterator[None]:
        """Run a command in a network of its own, with a cable to the switch."""
        with namespace(words) as pid:
            ip(
                self.words,
                f"link add port{number} type veth peer name eth0 netns {pid}",
                f"link set port{number} master switch up",
            )
            ip(
                ["nsenter", f"--net=/proc/{pid}/ns/net"],
                "link set lo up",
                f"address add {self.address(number)}/16 dev eth0",
                "link set eth0 up",
            )
            yield


@contextmanager
def namespace(words: Sequence[str]) -> Iterator[int]:
    """Run a command in a new network namespace; yields its pid."""
    try:
        child = subprocess.Popen(
            [*WITH_US, "unshare", "--net", *words], stderr=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{error.filename} is missing") from None
    try:
        ours, deadline = network_of("self"), time.monotonic() + PATIENCE
        # In a moment it has become the command, in its own network.
        while network_of(child.pid) in (None, ours):
            if child.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError("unshare --net is not allowed")
            time.sleep(0.005)
        yield child.pid
    finally:
        child.terminate()
        child.wait()


def network_of(pid: int | str) -> str | None:
    """Return what names a process's network namespace; None if it has ended."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def ip(within: Sequence[str], *lines: str) -> None:
    """Do some lines of `ip`; raises UnavailableError with what it says."""
    try:
        ended = subprocess.run(
            [*within, "ip", "-batch", "-"],
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{error.filename} is missing") from None
    if ended.returncode:
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise UnavailableError(f"ip: {said[0] if said else ended.returncode}")
