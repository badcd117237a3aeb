# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Share a terminal with the app: it is in the foreground, and we stop when it stops."""

from __future__ import annotations

import os
from stat import S_ISFIFO

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal

    from forza._process import Process
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members


def is_ours() -> bool:
    """Say whether we are a job of our own in the foreground of a terminal.

    Not if others are part of it: the next in a pipeline may read the terminal, too,
    and a script that runs us has to see the Ctrl-C that ends us both.
    """
    try:
        return os.tcgetpgrp(0) == os.getpgrp() == os.getpid() and not S_ISFIFO(
            os.fstat(1).st_mode
        )
    except OSError:  # stdin is no terminal, or not that of our session
        return False


class Terminal:
    """Between us, the app in the foreground, and the shell whose job we are."""

    def __init__(self, process: Process) -> None:
        self._process = process
        # We write to the terminal and hand it back while the app has it, which stops
        # others.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        process.stop_cb = self.suspend

    def suspend(self) -> None:
        """The app was stopped, by Ctrl-Z most likely: so are we, and the shell is
        told."""
        self.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)

    def resume(self) -> None:
        """The shell goes on with its job: in the foreground (`fg`), or not (`bg`)."""
        try:
            if os.tcgetpgrp(0) == os.getpgrp():
                os.tcsetpgrp(0, self._process.pid)
        except OSError:  # it has hung up
            pass

    def give_back(self) -> None:
        """Be in the foreground ourselves again, if the app was."""
        try:
            if os.tcgetpgrp(0) == self._process.pid:
                os.tcsetpgrp(0, os.getpgrp())
        except OSError:
            pass
