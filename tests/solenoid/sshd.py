# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run real OpenSSH servers on loopback ports, each with keys and a home of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from solenoid import drones
from tests.solenoid.servers import free_port, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def keygen(path: Path, *more: str) -> str:
    """Make a key pair; return the public key."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name]
    subprocess.run([*command, "-f", str(path), *more], check=True)
    return path.with_name(f"{path.name}.pub").read_text().strip()


# What a server finds in /etc, and where the home of its user is, is its own affair.
_PRIVATE = """
cd "$1" && for file in passwd group shadow sudoers; do
  mount --bind "etc/$file" "/etc/$file" || exit
done
mount --bind home /mnt && shift && exec "$@"
"""


@dataclass
class Sshd:
    """A server that plays a drone; `home` is where its commands find themselves.

    `user` is one that this machine does not have: it is in the server's own /etc.
    """

    folder: Path
    port: int
    log: Path
    home: Path
    options: list[str] = field(default_factory=list)
    user: str = ""

    @property
    def address(self) -> str:
        """Return how an operator names it."""
        return f"{self.user or getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def drone(self) -> drones.Drone:
        """Return it as a drone whose solenoid is below its home."""
        user = self.user or getpass.getuser()
        base = "/mnt/solenoid" if self.user else str(self.home / "solenoid")
        return drones.Drone(self.folder.name, "127.0.0.1", self.port, user, base=base)

    @property
    def public_key(self) -> str:
        """Return its host key."""
        return (self.folder / "host.pub").read_text().strip()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let it listen, again if need be, as long as the block."""
        assert SSHD is not None
        config = self.folder / "config"
        config.write_text("\n".join(self.options) + "\n")
        command = [SSHD, "-D", "-e", "-f", str(config)]
        if self.user:
            private = ["sh", "-c", _PRIVATE, "sh", str(self.folder)]
            command = ["unshare", "--mount", *private, *command]
        with running(command, self.port, self.log):
            yield


@dataclass
class Fleet:
    """The operator's ~/.ssh, and servers to which its key is known.

    Servers are made by `add`, with lines for their sshd_config.
    """

    folder: Path
    home: Path
    stack: contextlib.ExitStack

    @property
    def key(self) -> Path:
        """Return the operator's private key."""
        return self.home / ".ssh" / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Return the operator's list of host keys."""
        return self.home / ".ssh" / "known_hosts"

    @property
    def config(self) -> Path:
        """Return the operator's ~/.ssh/config."""
        return self.home / ".ssh" / "config"

    def add(
        self, name: str, *options: str, known: bool = True, sudoers: str | None = None
    ) -> Sshd:
        """Start a server; `known` writes its key down.

        With `sudoers` it lets in the user `deploy` alone, who is not root; its own
        base is in /mnt.
        """
        server = self.make(name, *options)
        if sudoers is not None:
            self._add_user(server, sudoers)
        if known:
            self.know(server)
        self.stack.enter_context(server.running())
        return server

    def make(self, name: str, *options: str) -> Sshd:
        """Return a server that is not started yet."""
        folder = self.folder / name
        home = folder / "home"
        home.mkdir(parents=True)
        keygen(folder / "host")
        port = free_port()
        lines = [
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder / 'host'}",
            "PidFile none",
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            # The folders of tests belong to whoever runs them.
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            f"SetEnv HOME={home}",
            "LogLevel VERBOSE",
        ]
        # Of two lines that differ, sshd takes the first.
        return Sshd(folder, port, folder / "log", home, [*options, *lines])

    def _add_user(self, server: Sshd, sudoers: str) -> None:
        if os.geteuid() or not shutil.which("unshare"):
            pytest.skip("needs root and unshare, for an /etc of the server's own")
        server.user = "deploy"
        etc = server.folder / "etc"
        etc.mkdir()
        lines = {
            "passwd": "deploy:x:4242:4242::/mnt:/bin/sh",
            "group": "deploy:x:4242:",
            "shadow": "deploy:*:19000:0:99999:7:::",
        }
        for name, line in lines.items():
            (etc / name).write_text(f"{Path('/etc', name).read_text()}{line}\n")
        (etc / "sudoers").write_text(f"root ALL=(ALL:ALL) ALL\n{sudoers}\n")
        (etc / "sudoers").chmod(0o440)
        shutil.copy(self.folder / "authorized_keys", server.home / "authorized_keys")
        os.chown(server.home, 4242, 4242)
        server.options[:0] = [
            "AuthorizedKeysFile /mnt/authorized_keys",
            "SetEnv HOME=/mnt",
            "AllowUsers deploy",
        ]

    def know(self, server: Sshd) -> None:
        """Write a server's key down."""
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{server.port} {server.public_key}\n")


@contextlib.contextmanager
def fleet(folder: Path, home: Path) -> Iterator[Fleet]:
    """Make the operator's keys; end all servers at the end."""
    # sshd as root wants its empty folder, which Debian makes when it is started.
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    folder.mkdir(exist_ok=True)
    (folder / "authorized_keys").write_text(keygen(home / ".ssh" / "id_ed25519") + "\n")
    with contextlib.ExitStack() as stack:
        yield Fleet(folder, home, stack)
