# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m solenoid`."""

from solenoid.cli import main

if __name__ == "__main__":
    main()
