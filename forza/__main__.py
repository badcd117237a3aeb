# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run as `python -m forza`, or, as forza runs itself a second time, by path."""

import os
import sys


def _future(name: str) -> object:
    """Let the real module take its place again, if more is asked of it."""
    if name[:2] == "__":  # the import system's own questions
        raise AttributeError(name)
    del sys.modules["__future__"]
    return getattr(__import__("__future__"), name)


if __name__ == "__main__":
    # All our modules import it, for a name that none of them uses: 28 kB.
    if "__future__" not in sys.modules:
        sys.modules["__future__"] = type(sys)("__future__")
        vars(sys.modules["__future__"]).update(annotations=None, __getattr__=_future)
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
