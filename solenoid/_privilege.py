# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Become a user that may read everything, if it must, and do nothing else of root's.

Python and forza may be installed where only root can read, in /root above all. Keeper
and monitor run as the app's user, who could not load them; they keep one capability for
that, which is taken from the app before it is run: see _confine.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from solenoid._restrict import User

DAC_READ_SEARCH = 2
_KEEP_CAPS, _AMBIENT, _RAISE = 8, 47, 2
_CAPABILITIES_V3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def can_read_all() -> bool:
    """Say whether we have that capability, to hand it on."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapPrm:"):
                return bool(int(line.split()[1], 16) >> DAC_READ_SEARCH & 1)
    return False


def become(user: User, keep: bool) -> None:
    """Be this user for ever, without further groups; `keep` the capability or not.

    Between fork and exec. Raises OSError.
    """
    os.setgroups([])
    os.setresgid(user.gid, user.gid, user.gid)
    if keep:
        _prctl(_KEEP_CAPS, 1)
    os.setresuid(user.uid, user.uid, user.uid)
    if keep:
        bits = 1 << DAC_READ_SEARCH
        header = struct.pack("=Ii", _CAPABILITIES_V3, 0)
        if _libc.capset(header, struct.pack("=6I", bits, bits, bits, 0, 0, 0)):
            raise OSError(ctypes.get_errno(), "capset")
        _prctl(_AMBIENT, _RAISE, DAC_READ_SEARCH)


def _prctl(*args: int) -> None:
    given = [ctypes.c_ulong(arg) for arg in (*args, 0, 0, 0, 0)[:5]]
    if _libc.prctl(*given):
        raise OSError(ctypes.get_errno(), f"prctl {args[0]}")
