# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the few small programs in C, built when forza is installed if that can be.

Each does what Python cannot: live in other programs, or in a tenth of a megabyte.
Where there was no compiler they are missing, and whoever asks has another way.
"""

from __future__ import annotations

import os


def path(name: str) -> str | None:
    """Return where `name` is, or None if it was not built."""
    if os.environ.get("FORZA_NATIVE") == "no":
        return None
    built = os.path.join(os.path.dirname(__file__), name)
    return built if os.access(built, os.X_OK) else None
