# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write so many numbered lines as fast as can be, in large writes, and end at once."""

import os
import sys

count = int(sys.argv[1])
for start in range(0, count, 10_000):
    lines = range(start, min(start + 10_000, count))
    data = b"".join(b"line %d of the flood\n" % n for n in lines)
    while data:
        data = data[os.write(1, data) :]
os._exit(0)
