# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say each argument by sd_notify, then wait for the end of stdin.

`wait` waits for a line of stdin, `child` lets a child say the next argument, `barrier`
waits until all was heard.
"""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import sys

name = os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1)
words = iter(sys.argv[1:])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.connect(name)
    for word in words:
        if word == "wait":
            sys.stdin.readline()
        elif word == "child":
            command = [sys.executable, __file__, next(words), "barrier"]
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
        elif word == "barrier":
            readable, writable = os.pipe()
            rights = array.array("i", [writable])
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            sock.sendmsg([b"BARRIER=1"], control)
            os.close(writable)
            select.select([readable], [], [])
            print("heard", flush=True)
        else:
            sock.send(word.encode().replace(b"\\n", b"\n"))
sys.stdin.read()
