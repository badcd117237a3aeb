# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""At a terminal: the app reads it, is interrupted once, and is stopped with forza."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forza import _native as native
from tests.conftest import CHILDREN, PATIENCE, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    native.path("guard") is None, reason="there is no guard: it needs a C compiler"
)


class Shell:
    """A real shell with job control, at a terminal of its own."""

    def __init__(self) -> None:
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            environ = {**os.environ, "PS1": "$ ", "NO_COLOR": "1"}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environ)
        self.text = ""

    def type(self, text: str) -> None:
        """Type at the keyboard."""
        os.write(self.screen, text.encode())

    def read_until(self, text: str) -> None:
        """Read until `text` is on the screen; forget what came before and it."""
        while text not in self.text:
            ready, _, _ = select.select([self.screen], [], [], PATIENCE)
            assert ready, f"no {text!r} in {self.text!r}"
            self.text += os.read(self.screen, 4096).decode(errors="replace")
        self.text = self.text.partition(text)[2]

    def close(self) -> None:
        """Hang up."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.screen)


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell that ends with the test."""
    shell = Shell()
    yield shell
    shell.close()


def forza(*command: str) -> str:
    words = " ".join(command)
    return f"{sys.executable} -m forza --plugin logs -- {words}; echo status=$?\n"


def test_reads_the_terminal(shell: Shell) -> None:
    """What is typed is the app's to read, and the shell's again when it has ended."""
    shell.type(forza("sh -c", "'read line; echo heard $line; exit 4'"))
    shell.read_until("status=$?")
    shell.type("hello\n")
    shell.read_until("heard hello")
    shell.read_until("status=4")
    shell.type("echo $((6 * 7))\n")
    shell.read_until("42")


def test_interrupted_once(shell: Shell) -> None:
    """Ctrl-C reaches the app, once, from the terminal."""
    child = CHILDREN / "signals.py"
    shell.type(forza(sys.executable, "-S", str(child), "TSTP"))
    shell.read_until("ready")
    shell.type("\x03")
    shell.read_until("got 2")
    shell.type("\x1c")
    shell.read_until("got 3")
    assert "got 2" not in shell.text
    shell.type("\x1a")
    shell.read_until("status=5")


def test_stopped_and_continued(shell: Shell) -> None:
    """Ctrl-Z gives the terminal back to the shell, `fg` gives it to the app again."""
    shell.type(
        forza("sh -c", "'echo app=$$; read a; echo first $a; read b; echo got $a $b'")
    )
    shell.read_until("  app=")
    while "\n" not in shell.text:
        shell.text += os.read(shell.screen, 4096).decode()
    app = int(shell.text.split()[0])
    shell.type("one\n")
    shell.read_until("first one")  # what is not read yet is lost by Ctrl-Z
    shell.type("\x1a")
    shell.read_until("Stopped")
    stat = Path(f"/proc/{app}/stat").read_text()
    assert stat.rpartition(") ")[2][0] == "T"
    shell.type("echo $((6 * 7))\n")
    shell.read_until("42")
    shell.type("fg\n")
    shell.type("two\n")
    shell.read_until("got one two")
