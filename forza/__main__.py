# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m forza`, or, as forza runs itself a second time, by path."""

import os
import sys

if not __package__:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

if __name__ == "__main__":
    if "_FORZA_STATE" in os.environ:
        from forza._stage import resume

        resume()
    from forza.cli import main

    main()
