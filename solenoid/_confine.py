# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Confine this process to what an app needs, then become the app.

    python -I -m solenoid._confine POLICY ENVIRON COMMAND [ARG...]

stands between the monitor and the app, so that the monitor itself is free, and out of
the app's reach. ENVIRON is a file, {"environ": {NAME: VALUE}}, with its variables:
nobody above has them for others to read. `-` leaves the environment as it is.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import resource
import sys
from typing import NoReturn

from solenoid import _landlock
from solenoid._policy import Policy
from solenoid._privilege import DAC_READ_SEARCH

# Files in the folder of ENVIRON: the first has the path of the state file of the keeper
# whose end the app is to wait for; it becomes the second once that is done.
AFTER, WAITING = "after", "waiting"

_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")

_CAPBSET_DROP, _NO_NEW_PRIVS, _CAP_AMBIENT = 24, 38, 47
_CLEAR_ALL, _CAP_AMBIENT_LOWER = 4, 3
_CAPABILITIES_V3 = 0x20080522
_IPC_FD = 3  # the monitor's; node's process.send goes there
_FROM_THE_MONITOR = (
    *("NODE_CHANNEL_FD", "NODE_CHANNEL_SERIALIZATION_MODE", "NOTIFY_SOCKET"),
    *("WATCHDOG_USEC", "FORZA_BIND"),
)

_libc = ctypes.CDLL(None, use_errno=True)


def confine(policy: Policy) -> None:
    """Confine this process, and all that come of it, for ever. Raises OSError."""
    # Ours, to be read from where only root may: it is not for the app.
    _libc.prctl(_CAP_AMBIENT, _CAP_AMBIENT_LOWER, DAC_READ_SEARCH, 0, 0)
    if policy.level == "off":
        return
    if policy.level == "strict" and policy.lacking:
        raise OSError(f"this kernel has no {policy.lacking[0]}, which strict needs")
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)  # a core file is full of secrets
    _limit(resource.RLIMIT_NOFILE, policy.descriptors)
    if policy.processes is not None:
        _limit(resource.RLIMIT_NPROC, policy.processes)
    # The bounding set is root's to shrink; given the next, nobody else gains from it.
    for capability in range(64):
        _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if _landlock.version():
        _landlock.restrict(
            read=policy.readable,
            write=(*_DEVICES, *policy.write),
            bind=policy.bind,
            connect=policy.connect,
            signals=True,
            abstract=policy.level == "strict",
        )
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_V3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "cannot drop capabilities")


def _limit(which: int, most: int) -> None:
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


def _policy(text: str) -> Policy:
    found = json.loads(text)
    lists = {k: tuple(v) for k, v in found.items() if isinstance(v, list)}
    # What the monitor preloads, the app's loader has to find.
    hooks = (word for word in os.environ.get("LD_PRELOAD", "").split(":") if word)
    return Policy(**{**found, **lists, "read": (*lists["read"], *hooks)})


def _environ(path: str) -> dict[str, str]:
    """Return the app's environment: what the file has, and what the monitor adds."""
    if path == "-":
        return dict(os.environ)
    with open(path, encoding="utf-8") as file:
        found: dict[str, str] = json.load(file)["environ"]
    for name in _FROM_THE_MONITOR:
        if name in os.environ:
            found[name] = os.environ[name]
    # The app's own libraries come after the monitor's. What only the monitor can read,
    # the loader would complain of.
    preload = [
        path
        for path in os.environ.get("LD_PRELOAD", "").split(":")
        if os.access(path, os.R_OK)
    ]
    if preload:
        own = found.get("LD_PRELOAD")
        found["LD_PRELOAD"] = ":".join([*preload, *([own] if own else [])])
    return found


def _take_turns(environ: str) -> None:
    """Wait until the release before has ended, if we are told to, this once.

    Its keeper holds a lock until then, so that there is no moment when neither this app
    nor that one is on its way, whoever else is killed.
    """
    folder = os.path.dirname(environ)
    try:
        with open(f"{folder}/{AFTER}", encoding="utf-8") as file:
            state = file.read()
        os.rename(f"{folder}/{AFTER}", f"{folder}/{WAITING}")
    except FileNotFoundError:
        return
    while True:
        try:
            held = os.open(state, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            # If it was replaced, the lock has moved on to the new one.
            if os.path.samestat(os.fstat(held), os.stat(state)):
                return
        finally:
            os.close(held)


def _become(words: list[str], environ: dict[str, str]) -> NoReturn:
    """Do what os.execvpe does, which may import what cannot be read any more."""
    name = words[0]
    if "/" in name:
        os.execve(name, words, environ)
    why: OSError | None = None
    for folder in environ.get("PATH", os.defpath).split(":"):
        try:
            os.execve(f"{folder or '.'}/{name}", words, environ)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # another of that name may do
            why = why or error
    raise why or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def main() -> None:
    """Become the app, or say why not: 125, or 126 and 127 as a shell would."""
    policy, path, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    os.closerange(_IPC_FD + 1, 1 << 20 if most == resource.RLIM_INFINITY else most)
    try:
        environ = _environ(path)
        if path != "-":
            _take_turns(path)
        confine(_policy(policy))
    except (OSError, ValueError, KeyError) as error:
        print(f"solenoid: cannot confine the app: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(125) from None
    try:
        _become(words, environ)
    except OSError as error:
        print(f"solenoid: {words[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        raise SystemExit(126 if isinstance(error, PermissionError) else 127) from None


if __name__ == "__main__":
    main()
