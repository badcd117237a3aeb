# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what an app may do, and by which words it is held to that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["strict", "default", "off"]
LEVELS: tuple[Level, ...] = ("strict", "default", "off")

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc"),
    # node counts CPUs and memory there; what other processes keep is closed by ptrace's
    # rules, which Landlock sharpens.
    *("/proc", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm"),
    *("/run/systemd/resolve", "/run/resolvconf", "/dev/random", "/dev/urandom"),
)
# All of /etc that a program needs to find a host, a user and a certificate.
_NEEDED = tuple(
    f"/etc/{name}"
    for name in (
        *("alternatives", "ca-certificates", "ca-certificates.conf", "gai.conf"),
        *("group", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
        *("localtime", "mime.types", "nsswitch.conf", "passwd", "pki", "protocols"),
        *("resolv.conf", "services", "ssl", "timezone"),
    )
)


@dataclass(frozen=True, slots=True)
class Policy:
    """What an app may do.

    It may read, and execute, the system's programs and libraries and `read`; write
    `write` and what is below; listen at the TCP ports `bind` and connect to `connect`
    (None: to all); and have so many `descriptors` and `processes` (of its user, with
    all other apps of that user; None: as many as we).

    `default` does what the kernel can, `strict` all of it or nothing, with less of
    /etc and no abstract unix sockets of others; `off` nothing but to close descriptors.
    """

    level: Level = "default"
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    bind: tuple[int, ...] | None = None
    connect: tuple[int, ...] | None = None
    descriptors: int = 16384
    processes: int | None = None

    def words(self, environ: str = "-") -> list[str]:
        """Return the words to put in front of an app's own.

        `environ` is a file with the app's environment: {"environ": {NAME: VALUE}}.
        """
        from solenoid._python import isolated  # before it is confined, not in it

        policy = json.dumps(asdict(self), separators=(",", ":"))
        return [*isolated("solenoid._confine"), policy, environ]

    @property
    def readable(self) -> tuple[str, ...]:
        """Return all that may be read but not written."""
        if self.level != "strict":
            return (*_SYSTEM, *self.read)
        return (*(path for path in _SYSTEM if path != "/etc"), *_NEEDED, *self.read)

    @property
    def lacking(self) -> list[str]:
        """Return what this kernel cannot do of it."""
        from solenoid import _landlock  # with ctypes, which to bring an app takes not

        known = _landlock.version()
        if not known:
            return ["Landlock"]
        lacks = []
        if known < _landlock.SCOPES_SINCE:
            lacks.append("scopes for signals and abstract unix sockets")
        limited = self.bind is not None or self.connect is not None
        if limited and known < _landlock.NETWORK_SINCE:
            lacks.append("rules for TCP ports")
        return lacks
