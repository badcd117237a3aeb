# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m forza`, or, as forza runs itself a second time, by path."""

import os
import sys

# As long as it runs, Python keeps the syntax tree of the file that it was given by
# path: 60 kB, if what is in _begin.py were here.
if __name__ == "__main__":
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if not __package__:
        sys.path.insert(0, home)
    from forza._begin import begin

    begin(None if __package__ else home)
