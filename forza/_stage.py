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

# What glibc's malloc keeps of freed memory for each thread: 45 kB that nothing asks
# for again, and that no trimming gives back.
_TUNABLES, _NO_CACHE = "GLIBC_TUNABLES", "glibc.malloc.tcache_count=0"


def command(*, bare: bool = True) -> list[str] | None:
    """Return how to start the second stage, or None if that can't be.

    `bare` is without `site`; else a user's interpreter will do if a bare one will not.
    """
    main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    if not _is_ourselves(sys.executable) or not os.access(main, os.R_OK):  # in a zip
        return None
    if os.environ.get("FORZA_RUNTIME") != "plain" and (
        "PYTHONHOME" not in os.environ  # needed to start, and ignored with -I
    ):
        return [sys.executable, "-I", "-S", main]
    return None if bare else [sys.executable, "-P", main]


def describe(role: str, *state: Any) -> str:
    """Return what the second stage, in this role, has to know."""
    path = list(dict.fromkeys(filter(None, sys.path)))
    return dumps((path, role, state)).hex()


def replace(role: str, *state: Any) -> None:
    """Become the second stage, in this role; return if that can't be."""
    starts = command()
    if starts is None:
        return
    told = {_TUNABLES: _NO_CACHE, **os.environ, STATE: describe(role, *state)}
    try:
        os.execve(starts[0], [*starts, *sys.argv[1:]], told)
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
    if os.environ.get(_TUNABLES) == _NO_CACHE:  # it is not for those whom we start
        del os.environ[_TUNABLES]
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

        _keeper.resume(*state)
    if role == "listen":
        from forza import listen

        listen.serve(*state)
    from forza import _program

    _program.leave(*state)
