# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Replace the user's interpreter by a bare one, which takes less memory.

The first stage is whatever interpreter the user started. It understands the command
line, spawns the child if there is one to spawn, and becomes, by exec, the second: an
interpreter that has loaded nothing, no `site`, no `.pth` files, no environment's
PYTHON variables. The pid stays, and so do children and open descriptors.
"""

from __future__ import annotations

import os
import sys
from marshal import dumps, loads

from forza._errors import EXIT_SETUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

# How the first stage tells the second what it knows. Not for users.
STATE = "_FORZA_STATE"


def replace(role: str, *state: Any) -> None:
    """Become the second stage, in this role; return if that can't be."""
    main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    if (
        os.environ.get("FORZA_RUNTIME") == "plain"
        or "PYTHONHOME" in os.environ  # needed to start, and ignored with -I
        or not _is_ourselves(sys.executable)
        or not os.access(main, os.R_OK)  # inside a zip file
    ):
        return
    path = list(dict.fromkeys(filter(None, sys.path)))
    told = dumps((path, role, state)).hex()
    command = [sys.executable, "-I", "-S", main, *sys.argv[1:]]
    try:
        os.execve(sys.executable, command, {**os.environ, STATE: told})
    except OSError:  # no memory, say, or too many arguments: stay what we are
        return


def _is_ourselves(executable: str) -> bool:
    """Say whether this is the interpreter that runs: Python guesses it from argv[0],
    which is up to the caller."""
    try:
        return os.path.samefile(executable, "/proc/self/exe")
    except OSError:
        return False


def resume() -> NoReturn:
    """Be the second stage."""
    path, role, state = loads(bytes.fromhex(os.environ.pop(STATE)))
    sys.path[:] = path
    try:
        _resume(role, state)
    except BaseException as error:  # a package that is being replaced, say
        if role == "monitor" and state[-1] is not None:
            os.killpg(int(state[-1].partition(":")[0]), 9)
        sys.excepthook(type(error), error, error.__traceback__)
        os._exit(EXIT_SETUP)


def _resume(role: str, state: tuple[Any, ...]) -> NoReturn:
    if role == "keeper":
        from forza import _keeper

        _keeper.keep(*state)
    if role == "listen":
        from forza import listen

        listen.serve(*state)
    from forza import _program

    _program.leave(*state)
