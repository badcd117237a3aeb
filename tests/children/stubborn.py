# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take no notice of polite signals, and say so for each."""

import signal


def ignore(signum: int, frame: object) -> None:
    print("ignored", signal.Signals(signum).name, flush=True)


for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(signum, ignore)
print("ready", flush=True)
while True:
    signal.pause()
