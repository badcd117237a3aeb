# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make this process fit for forza's modules, and go where it has to."""

# No `from __future__` here: its stand-in is to come first.

import gc
import os
import sys


def begin(home: "str | None" = None) -> None:
    """Run the command line, or the second stage; either ends the process. The entry
    point of the script `forza`.

    `home` is what was put first on sys.path to find the package, if it was run by path.
    """
    # All our modules import it, for a name that none of them uses: 28 kB.
    if "__future__" not in sys.modules:
        sys.modules["__future__"] = type(sys)("__future__")
        vars(sys.modules["__future__"]).update(annotations=None, __getattr__=_future)
    if home is None:
        # -m looks in the current directory first, the app's own, and a script in the
        # folder it is in: nobody's fcntl.py there shall be taken for the real one.
        if not sys.flags.safe_path:
            sys.path.append(sys.path.pop(0))
        os.environ.pop("_FORZA_STATE", None)
        # No search for garbage while there is none: the app starts half a millisecond
        # sooner. By default one begins with every 700 new objects; whoever stays can
        # do with fewer.
        gc.set_threshold(10_000)
        from forza._bundle import install as first

        first()
    else:
        # The place was needed only until the package was found: in site-packages there
        # may be namesakes of the standard library's modules.
        sys.path.remove(home)
        if "_FORZA_STATE" in os.environ:
            from forza._resident import install

            install()
            from forza._stage import resume

            resume()
        sys.path.append(home)
    from forza.cli import main

    main()


def _future(name: str) -> object:
    """Let the real module take its place again, if more is asked of it."""
    if name[:2] == "__":  # the import system's own questions
        raise AttributeError(name)
    del sys.modules["__future__"]
    return getattr(__import__("__future__"), name)
