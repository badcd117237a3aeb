# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write numbered lines without end, each named and in a write of its own."""

import os
import sys

name, at_once = sys.argv[1], int(sys.argv[2])
number = 0
while True:
    lines = [f"{name} {n}\n" for n in range(number, number + at_once)]
    os.write(1, "".join(lines).encode())
    number += at_once
