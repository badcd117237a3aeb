# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Show a person at a terminal what happens, in words and not in JSON."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.conftest import Forza


class Terminal:
    """A terminal whose screen the test reads."""

    def __init__(self) -> None:
        self.screen, self.fd = pty.openpty()
        self.text = ""

    def read_until(self, text: str) -> None:
        """Read until `text` is on the screen."""
        while text not in self.text:
            ready, _, _ = select.select([self.screen], [], [], PATIENCE)
            assert ready, f"no {text!r} in {self.text!r}"
            self.text += os.read(self.screen, 4096).decode()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """A terminal of one's own."""
    terminal = Terminal()
    yield terminal
    os.close(terminal.screen)
    os.close(terminal.fd)


def test_readable(forza: Forza, terminal: Terminal) -> None:
    """At a terminal an event is a line with a time, in colour."""
    ended = forza.run("--", "sh", "-c", "echo hello; exit 3", stdout=terminal.fd)
    assert ended.status == 3
    terminal.read_until("status 3")
    lines = terminal.text.splitlines()
    (hello,) = (line for line in lines if "hello" in line and "out" in line)
    assert "{" not in hello
    assert "\033[" in terminal.text


@pytest.mark.parametrize("value", ["1", "anything"])
def test_no_color(forza: Forza, terminal: Terminal, value: str) -> None:
    """NO_COLOR is honoured; the app's own colours are its own affair."""
    forza.run(
        *("--", "printf", r"\033[32mgreen\033[39m\n"),
        stdout=terminal.fd,
        env={"NO_COLOR": value},
    )
    terminal.read_until("status 0")
    assert "\033[32mgreen\033[39m" in terminal.text
    rest = terminal.text.replace("\033[32mgreen\033[39m", "")
    assert "\033" not in rest


def test_interrupt_key(forza: Forza, terminal: Terminal) -> None:
    """Ctrl-C at the terminal ends the app in its own way, and then forza."""
    program = forza.start(
        *("--", "node", CHILDREN / "stops.js"),
        stdin=terminal.fd,
        stdout=terminal.fd,
        preexec_fn=take_terminal,
    )
    terminal.read_until("listening")
    os.write(terminal.screen, b"\x03")
    ended = forza.wait(program)
    terminal.read_until("status 3")
    assert "got SIGINT" in terminal.text
    assert "closed" in terminal.text
    assert ended.status == 3


def test_hang_up(forza: Forza) -> None:
    """A terminal that goes away takes the app with it."""
    terminal = Terminal()
    program = forza.start(
        *("--", "sleep", 1000),
        stdin=terminal.fd,
        stdout=terminal.fd,
        stderr=subprocess.DEVNULL,
        preexec_fn=take_terminal,
    )
    os.close(terminal.fd)
    terminal.read_until("spawn")
    os.close(terminal.screen)
    assert forza.wait(program).status == 128 + signal.SIGHUP


def take_terminal() -> None:
    """Be the leader of a session whose terminal stdin is."""
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
