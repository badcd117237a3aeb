# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Write down on the drone who has done what, when, and how it went."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import sys
import time

# Of these bytes there are two at most: the file, and the one before it.
SIZE = 1 << 20
_LONGEST = 2000


def place(base: str) -> str:
    """Return the folder that is solenoid's: as told, else by who we are."""
    if base:
        return base
    if os.geteuid() == 0:
        return "/opt/solenoid"
    return os.path.expanduser("~/.local/share/solenoid")


def write(base: str, who: str, what: str, result: str, **more: object) -> None:
    """Add one line to BASE/audit.log. A disk that is full stops nothing else."""
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "who": who[:_LONGEST],
        "from": os.environ.get("SSH_CONNECTION", "").partition(" ")[0],
        "as": _user(),
        "what": what[:_LONGEST],
        "result": result[:_LONGEST],
        **{k: v[:_LONGEST] if isinstance(v, str) else v for k, v in more.items()},
    }
    data = json.dumps({k: v for k, v in line.items() if v != ""}).encode() + b"\n"
    path = os.path.join(place(base), "audit.log")
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        _append(path, data)
    except OSError as error:
        sys.stderr.write(f"cannot write {path}: {error.strerror}\n")


def _append(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    while True:
        log = os.open(path, flags, 0o640)
        try:
            fcntl.flock(log, fcntl.LOCK_EX)
            about = os.fstat(log)
            # Renamed while we waited for it: the line belongs into the new one.
            if not is_still(path, about):
                continue
            if about.st_size and about.st_size + len(data) > SIZE:
                os.rename(path, f"{path}.1")
                continue
            os.write(log, data)
            return
        finally:
            os.close(log)


def is_still(path: str, about: os.stat_result) -> bool:
    """Say whether a path still leads to the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), about)
    except FileNotFoundError:
        return False


def _user() -> str:
    # sudo tells who has become root.
    by = os.environ.get("SUDO_USER", "")
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = str(os.geteuid())
    return f"{name} ({by})" if by and by != name else name
