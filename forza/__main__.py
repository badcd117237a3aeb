# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m forza`, or, as forza runs itself a second time, by path."""

import os
import sys

if __name__ == "__main__":
    if __package__:
        # -m looks in the current directory first, the app's own: nobody's fcntl.py
        # there shall be taken for the real one.
        if not sys.flags.safe_path:
            sys.path.append(sys.path.pop(0))
        os.environ.pop("_FORZA_STATE", None)
    else:
        # The place is needed only until the package is found: in site-packages there
        # may be namesakes of the standard library's modules.
        home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        sys.path.insert(0, home)
        import forza  # noqa: F401

        sys.path.remove(home)
        if "_FORZA_STATE" in os.environ:
            from forza._stage import resume

            resume()
        sys.path.append(home)
    from forza.cli import main

    main()
