# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m forza`, or, as forza runs itself, by its path."""

import sys

if not __package__:
    from os.path import abspath, dirname

    sys.path.insert(0, dirname(dirname(abspath(__file__))))

from forza.cli import main

if __name__ == "__main__":
    main()
