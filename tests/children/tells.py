# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell, as JSON on stdout, what a child can see of how it was started."""

import json
import os
import stat
import sys

KINDS = {
    "character device": stat.S_ISCHR,
    "file": stat.S_ISREG,
    "pipe": stat.S_ISFIFO,
    "socket": stat.S_ISSOCK,
}

descriptors = {}
for name in os.listdir("/proc/self/fd"):
    try:
        mode = os.fstat(int(name)).st_mode
    except OSError:  # the one that listed the folder
        continue
    descriptors[name] = next(kind for kind, test in KINDS.items() if test(mode))
with open(f"/proc/{os.getppid()}/stat") as file:
    grandparent = int(file.read().rpartition(")")[2].split()[1])
seen = {
    "argv": sys.argv[1:],
    "environ": dict(os.environ),
    "cwd": os.getcwd(),
    "descriptors": descriptors,
    "leads_session": os.getsid(0) == os.getpid(),
    "pid": os.getpid(),
    "parent": os.getppid(),
    "grandparent": grandparent,
    "stdin": sys.stdin.read(),
}
print(json.dumps(seen))
