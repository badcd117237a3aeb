# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell the hosts that are known from new ones and from those whose key has changed."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHKey

# Where ssh looks; `none`, for no file at all, is an empty list.
USER = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
SYSTEM = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


class KnownHosts:
    """The keys in known_hosts files, read once; new ones are added to the first."""

    def __init__(self, user: Sequence[str], system: Sequence[str]) -> None:
        self.files = [Path(name).expanduser() for name in user]
        shared = [Path(name).expanduser() for name in system]
        self._known = asyncssh.SSHKnownHosts()
        for path in (*self.files, *shared):
            for line in _lines(path):
                # One that cannot be understood is passed over, as ssh does.
                with suppress(ValueError):
                    self._known.load(line)
        self._accepted: dict[str, SSHKey] = {}

    def match(
        self, host: str, addr: str, port: int | None
    ) -> tuple[Sequence[SSHKey], Sequence[SSHKey], Sequence[SSHKey]]:
        """Return the trusted keys, authorities and revoked keys, as asyncssh asks.

        Not by address: that a name's key has changed is no less so when another
        host's is at the same address.
        """
        trusted, authorities, revoked, *_ = self._known.match(host, "", port)
        accepted = self._accepted.get(self.name(host, port))
        return [*trusted, *([accepted] if accepted else [])], authorities, revoked

    def is_new(self, host: str, port: int | None) -> bool:
        """Say whether nothing at all is known of this host at this port."""
        name = self.name(host, port)
        trusted, _, revoked, *_ = self._known.match(name, "", None)
        return not (trusted or revoked or name in self._accepted)

    def add(self, host: str, port: int | None, key: SSHKey) -> None:
        """Write a key down. Raises OSError."""
        name = self.name(host, port)
        if not self.files:
            raise OSError("there is no known_hosts file to write it to")
        path = self.files[0]
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = name.encode() + b" " + key.export_public_key("openssh").strip() + b"\n"
        handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line
            # One write: another deployer may be writing, too.
            os.write(handle, line)
        finally:
            os.close(handle)
        self._accepted[name] = key

    def name(self, host: str, port: int | None) -> str:
        """Return what a host is called in the file."""
        return f"[{host}]:{port}" if port not in (None, 22) else host


def _lines(path: Path) -> list[str]:
    """Return a file's lines: none of one that is not there, or not ours to read."""
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
