# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say who the operator is, for locks and audit logs."""

from __future__ import annotations

import getpass
import os
import socket


def operator() -> str:
    """Return who we are, as others are told: USER@MACHINE."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
