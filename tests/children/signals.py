# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say which signals come, and go on; end, with status 5, on those that are named."""

import os
import signal
import sys

last = {signal.Signals[f"SIG{name}"] for name in sys.argv[1:]}
catchable = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}
signal.pthread_sigmask(signal.SIG_BLOCK, catchable)
os.write(1, b"ready\n")
while True:
    got = signal.sigwait(catchable)
    os.write(1, f"got {int(got)}\n".encode())
    if got in last:
        sys.exit(5)
