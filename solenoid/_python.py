# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a module in an interpreter of its own, which heeds nothing of the user's."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

_PACKAGES = ("solenoid", "forza", "uvloop", "orjson")


def isolated(module: str) -> list[str]:
    """Return the words that call a module's `main`; its own words come after them.

    PYTHONPATH is not handed on, since an app's variables travel through some of these
    interpreters; but what we were found by, be it that, they find, too.
    """
    places = list(dict.fromkeys(filter(None, map(_place_of, _PACKAGES))))
    # Not before the standard library, unless nobody else knows the place.
    text = (
        f"import sys; sys.path[:0] = [p for p in {places} if p not in sys.path];"
        f" from {module} import main; main()"
    )
    return [sys.executable, "-I", "-c", text]


def _place_of(package: str) -> str | None:
    found = find_spec(package)
    if found is None or found.origin is None:
        return None  # who starts it says that it is missing
    return os.path.dirname(os.path.dirname(os.path.abspath(found.origin)))
