# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""An app that numbers its lines, and keeps on record how far it got.

    numbered.py FOLDER LINES_PER_SECOND

The record, a file of FOLDER named for this run, survives a SIGKILL.
"""

import os
import signal
import sys
import time

BURSTS_PER_SECOND = 50
PADDING = "GET /api/v1/things/4711 200 in 12 ms from 10.0.0.5 agent=ab"

folder, rate = sys.argv[1], float(sys.argv[2])
run = f"{os.getpid()}-{time.monotonic_ns()}"
record = os.open(f"{folder}/{run}", os.O_WRONLY | os.O_CREAT, 0o644)
stopping = False


def stop(signum: int, frame: object) -> None:
    """End after the burst that is being written."""
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
number = 0
begun = time.monotonic()
while not stopping:
    due = int((time.monotonic() - begun) * rate)
    if number < due:
        lines = "".join(f"{run} {n} {PADDING}\n" for n in range(number, due)).encode()
        while lines:
            lines = lines[os.write(1, lines) :]
        number = due
        os.pwrite(record, b"%20d" % number, 0)
    time.sleep(1 / BURSTS_PER_SECOND)
