# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give up, by Landlock, all files but some, and what else the kernel can take."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on all machines
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1  # what version 1 knows
_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV}
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_BIND, _CONNECT = 1 << 0, 1 << 1
_ABSTRACT, _SIGNALS = 1 << 0, 1 << 1

NETWORK_SINCE, SCOPES_SINCE = 4, 6

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Return the kernel's version of Landlock, 0 if it has none or it is off."""
    try:
        return _call(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def restrict(
    *,
    read: Iterable[str] = (),
    write: Iterable[str] = (),
    bind: Iterable[int] | None = None,
    connect: Iterable[int] | None = None,
    signals: bool = False,
    abstract: bool = False,
) -> None:
    """Keep this process, and all that come of it, from everything else, for ever.

    `read` and `write` are files, or folders with all below; those that are missing are
    left out. `bind` and `connect` are TCP ports, None for all of them. `signals` keeps
    it from signalling, and `abstract` from the abstract unix sockets of, whoever is
    not restricted with it. What the kernel's version does not know is not in force;
    `version` tells. Raises OSError.
    """
    known = version()
    files = _FIRST
    for since, right in _SINCE.items():
        files |= right if known >= since else 0
    ports = {_BIND: bind, _CONNECT: connect}
    network = sum(right for right, given in ports.items() if given is not None)
    scopes = _ABSTRACT * abstract | _SIGNALS * signals
    handled = struct.pack("=Q", files)
    if known >= NETWORK_SINCE:
        handled += struct.pack("=Q", network)
    if known >= SCOPES_SINCE:
        handled += struct.pack("=Q", scopes)
    ruleset = _call(_CREATE_RULESET, handled, len(handled), 0)
    try:
        # Whoever may write may not make devices, which only root could anyway.
        everything = files & ~(_MAKE_CHAR | _MAKE_BLOCK)
        for paths, rights in ((read, _READ), (write, everything)):
            for path in paths:
                _allow_path(ruleset, path, rights & files)
        for right, given in ports.items() if known >= NETWORK_SINCE else ():
            for port in given or ():
                rule = struct.pack("=QQ", right, port)
                _call(_ADD_RULE, ruleset, _NET_PORT, rule, 0)
        # Without this, or CAP_SYS_ADMIN, the kernel refuses.
        if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise _error()
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # what cannot be reached needs no leave
    try:
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(number: int, *args: int | bytes | None) -> int:
    given = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    done: int = _libc.syscall(ctypes.c_long(number), *given)
    if done < 0:
        raise _error()
    return done


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
