# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Print numbered lines: some, and the rest once a file is there; then make another."""

import os
import sys
import time

first, rest, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
for number in range(first):
    os.write(1, b"%d\n" % number)
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.005)
for number in range(first, first + rest):
    os.write(1, b"%d %s\n" % (number, b"x" * 50))
    if number % 100 == 0:
        time.sleep(0.002)
with open(f"{folder}/done", "w"):
    pass
