# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Give an app a user and its files, and say how far it is restricted."""

from __future__ import annotations

import asyncio
import grp
import hashlib
import os
import pwd
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from solenoid._errors import RestrictError
from solenoid._policy import Policy

SHARED_USER = "solenoid"
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_EXISTS = 9


@dataclass(frozen=True, slots=True)
class User:
    """Whom an app runs as."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Measure:
    """One way an app is restricted: whether it is in force, and how, or why not."""

    name: str
    in_force: bool
    detail: str


def user_of(app_user: str, app_name: str) -> str:
    """Return the system user's name of one app, short enough and unlike all others."""
    digest = hashlib.sha256(f"{app_user}\0{app_name}".encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", f"{app_user}-{app_name}".lower())
    return f"app-{readable.strip('-')[:18].strip('-')}-{digest}"


async def ensure_user(name: str = SHARED_USER) -> User:
    """Return the user, after making it as a system user if it is missing.

    Without root it is the user we are, whatever the name. Raises RestrictError.
    """
    return await asyncio.to_thread(_ensure_user, name)


def _ensure_user(name: str) -> User:
    if os.geteuid() != 0:
        try:
            own = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            own = str(os.geteuid())
        return User(own, os.geteuid(), os.getegid())
    if not _NAME.fullmatch(name):
        raise RestrictError(f"{name!r} cannot be a user's name")
    found = _known(name)
    if found is None:
        _useradd(name)
        found = _known(name)
    if found is None:
        raise RestrictError(f"user {name} is not there after useradd has made it")
    if found.uid == 0:
        raise RestrictError(f"user {name} is root, which no app runs as")
    return found


def _known(name: str) -> User | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    try:  # as the original's; a group of its own gives away no more
        group = grp.getgrnam("nogroup").gr_gid if name == SHARED_USER else entry.pw_gid
    except KeyError:
        group = entry.pw_gid
    return User(name, entry.pw_uid, group)


def _useradd(name: str) -> None:
    words = ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent"]
    words += ["--shell", "/usr/sbin/nologin", "--user-group", name]
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise RestrictError(f"cannot run useradd: {error.strerror}") from error
    if ended.returncode not in (0, _EXISTS):  # another solenoid may have been quicker
        said = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        raise RestrictError(f"cannot make user {name}: {said[-1]}")


async def restrict_filesystem(
    release: str | os.PathLike[str], user: User, *, tmp: str = ".tmp"
) -> Path:
    """Give a release to its app alone, and return its private folder for temporaries.

    The folder and all in it become the user's, and nobody else may read or write it:
    do this before anything of the app has run there. Links are not followed. Raises
    RestrictError.
    """
    path = Path(release)
    try:
        await asyncio.to_thread(_give, path, user, tmp)
    except OSError as error:
        raise RestrictError(
            f"cannot give {error.filename or path} to {user.name}: {error.strerror}"
        ) from error
    return path / tmp


def _give(path: Path, user: User, tmp: str) -> None:
    made = path / tmp
    if made.is_symlink():
        made.unlink()
    made.mkdir(mode=0o700, exist_ok=True)
    # Only root can give away; whoever is not has made it, and has it.
    give = os.geteuid() == 0
    for _, folders, files, at in os.fwalk(path, follow_symlinks=False):
        for name in (*folders, *files):
            _give_one(name, at, user if give else None)
    if give:
        os.chown(path, user.uid, user.gid)
    path.chmod(0o700)


def _give_one(name: str, at: int, user: User | None) -> None:
    # Held, and not by its name: a process of that user's, as another app of theirs, may
    # put a link there meanwhile, and chmod would follow it.
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    held = os.open(name, flags, dir_fd=at)
    try:
        mode = os.fstat(held).st_mode
        if not stat.S_ISLNK(mode):
            place = f"/proc/self/fd/{held}"
            if user is not None:
                os.chown(place, user.uid, user.gid)
            os.chmod(place, mode & 0o700)
        elif user is not None:
            os.chown(name, user.uid, user.gid, dir_fd=at, follow_symlinks=False)
    finally:
        os.close(held)


def explain(policy: Policy, user: User) -> list[Measure]:
    """Say which measures are in force for such an app here, and why others are not."""
    from solenoid import _landlock  # with ctypes, which to bring an app takes not

    own = user.uid != os.geteuid()
    root_needed = "needs root: the app runs as the user we are"
    off = policy.level == "off"
    version = _landlock.version()
    kernel = f"Landlock version {version}" if version else "the kernel has no Landlock"

    def measure(name: str, able: bool, how: str, why_not: str = "") -> Measure:
        if off:
            return Measure(name, False, "restriction is off")
        return Measure(name, able, how if able else why_not)

    def ports(given: tuple[int, ...] | None) -> str:
        return "any" if given is None else ", ".join(map(str, given)) or "none"

    network = f"listen: {ports(policy.bind)}; connect: {ports(policy.connect)}"
    limited = policy.bind is not None or policy.connect is not None
    scoped = version >= _landlock.SCOPES_SINCE
    old = f"{kernel}, not {_landlock.SCOPES_SINCE}" if version else kernel
    return [
        Measure(
            "user",
            own,
            f"{user.name} ({user.uid}:{user.gid})" if own else root_needed,
        ),
        measure("files", version > 0, f"writes {', '.join(policy.write)}", kernel),
        measure("signals", scoped, "only its own processes", old),
        measure(
            "abstract sockets",
            scoped and policy.level == "strict",
            "only its own",
            old if policy.level == "strict" else "only in strict",
        ),
        measure(
            "network",
            limited and version >= _landlock.NETWORK_SINCE,
            network,
            kernel if limited else "no ports are given",
        ),
        measure("privileges", True, "no_new_privs, no capabilities"),
        measure(
            "limits",
            True,
            f"{policy.descriptors} descriptors, no core files, processes: "
            f"{policy.processes if policy.processes is not None else 'as ours'}",
        ),
        measure("umask", True, "077"),
        Measure("descriptors", True, "closed but 0 to 3"),
    ]
