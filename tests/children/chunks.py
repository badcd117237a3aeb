# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write the chunks on stdin (a JSON list of [fd, hex]), each once the last was read."""

import fcntl
import json
import os
import sys
import termios
import time

for fd, text in json.load(sys.stdin):
    data = bytes.fromhex(text)
    while data:
        data = data[os.write(fd, data) :]
    # The pipe is empty when the reader has had this chunk, so that the next is one
    # more read. Its end is not waited for: the last chunk meets the exit.
    for _ in range(200):
        unread = fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0")
        if unread == b"\0\0\0\0":
            break
        time.sleep(0.0005)
