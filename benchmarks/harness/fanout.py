# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Drones to connect to, and the programs that run a command on all of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .apart import Switch
from .cache import (
    BENCHMARKS,
    REPOSITORY,
    UnavailableError,
    pip_install,
    python_package,
    virtual_environment,
)
from .results import note

__all__ = ["PEERS", "Drones", "asyncssh_drones", "prepared", "real_drones"]

PARALLEL = 64
USER = "root" if os.geteuid() == 0 else os.environ.get("USER", "nobody")
SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SERVERS = 2  # processes that play drones: as many as there are cores to begin with


@dataclass(frozen=True)
class Drones:
    """Where servers listen, and what a client needs to be let in.

    `within` are words before a command that can reach them, and `network` says what is
    between.
    """

    folder: Path
    places: Sequence[tuple[str, int]]
    within: Sequence[str] = ()
    network: str = "loopback"

    @property
    def key(self) -> Path:
        """The client's private key."""
        return self.folder / "client"

    @property
    def known_hosts(self) -> Path:
        """What the client knows the servers by."""
        return self.folder / "known_hosts"


def keys(folder: Path) -> None:
    """Make the keys of both sides."""
    for name in ("client", "host"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", ""]
        subprocess.run([*command, "-f", str(folder / name)], check=True)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")


def known(folder: Path, places: Sequence[tuple[str, int]]) -> None:
    """Write down the servers' keys."""
    host_key = (folder / "host.pub").read_text().strip()
    lines = (
        f"{host if port == 22 else f'[{host}]:{port}'} {host_key}\n"
        for host, port in places
    )
    (folder / "known_hosts").write_text("".join(lines))


@contextmanager
def asyncssh_drones(folder: Path, count: int) -> Iterator[Drones]:
    """Run many servers in a few processes."""
    keys(folder)
    server = BENCHMARKS / "python" / "ssh_drones.py"
    ports: list[int] = []
    with ExitStack() as stack:
        python = solenoid_python()
        waiting = []
        for number in range(SERVERS):
            share = count // SERVERS + (number < count % SERVERS)
            words = [python, server, str(share)]
            words += [folder / "host", folder / "authorized_keys"]
            child = subprocess.Popen(
                [str(word) for word in words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(ended, child)
            waiting.append(child)
        for child in waiting:
            assert child.stdout is not None
            ports += json.loads(child.stdout.readline())
        places = [("127.0.0.1", port) for port in ports]
        known(folder, places)
        yield Drones(folder, places)


def ended(child: subprocess.Popen[str]) -> None:
    """Let a server end."""
    child.communicate()


@contextmanager
def real_drones(folder: Path, count: int) -> Iterator[Drones]:
    """Run OpenSSH servers, each in a network of its own, where that is allowed."""
    if SSHD is None:
        raise UnavailableError("OpenSSH's server is not installed")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    keys(folder)
    with ExitStack() as stack:
        try:
            switch = stack.enter_context(Switch.on())
        except UnavailableError as error:
            note(f"no networks of their own, but ports of loopback: {error}")
            drones = on_ports(folder, count, stack)
        else:
            places = [(switch.address(number), 22) for number in range(count)]
            for number in range(count):
                words = sshd(folder, "0.0.0.0", 22)
                stack.enter_context(switch.machine(number, words))
            drones = Drones(folder, places, switch.words, "namespaces")
        known(folder, drones.places)
        for host, port in drones.places:
            listening(host, port, drones.within)
        yield drones


def on_ports(folder: Path, count: int, stack: ExitStack) -> Drones:
    """Run them side by side."""
    import socket

    ports = []
    for _ in range(count):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    for port in ports:
        child = subprocess.Popen(sshd(folder, "127.0.0.1", port))
        stack.callback(child.wait)
        stack.callback(child.terminate)
    return Drones(folder, [("127.0.0.1", port) for port in ports])


def sshd(folder: Path, address: str, port: int) -> list[str]:
    """Return the command of a server."""
    settings = {
        "Port": port,
        "ListenAddress": address,
        "HostKey": folder / "host",
        "PidFile": "none",
        "AuthorizedKeysFile": folder / "authorized_keys",
        "StrictModes": "no",
        "UsePAM": "no",
        "LogLevel": "FATAL",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    return [str(SSHD), "-D", "-e", "-f", os.devnull, *options]


def listening(host: str, port: int, within: Sequence[str]) -> None:
    """Wait until somebody listens."""
    script = f"exec 3<>/dev/tcp/{host}/{port}"
    words = [
        *within,
        "timeout",
        "30",
        "bash",
        "-c",
        f"until ({script}); do sleep 0.05; done",
    ]
    subprocess.run(words, stderr=subprocess.DEVNULL, check=True)


def solenoid_python() -> Path:
    """Return the python of an environment with this solenoid and asyncssh."""
    where = virtual_environment("drones")
    stamp, digest = where / "installed", hashlib.sha256()
    for package in ("solenoid", "forza"):
        for source in sorted((REPOSITORY / package).rglob("*.py")):
            digest.update(source.read_bytes())
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        pip_install(where, f"{REPOSITORY}[ssh]")
        again = ("--force-reinstall", "--no-deps", str(REPOSITORY))
        pip_install(where, *again)
        stamp.write_text(digest.hexdigest())
    return where / "bin" / "python"


def solenoid(drones: Drones) -> list[str]:
    """Return the command of ours."""
    config = drones.folder / "config"
    config.write_text(f"IdentityFile {drones.key}\nIdentitiesOnly yes\n")
    lines = ["[defaults]", f'user = "{USER}"', "[drones]"]
    lines += [
        f'd{number} = {{host = "{host}", port = {port}}}'
        for number, (host, port) in enumerate(drones.places)
    ]
    inventory = drones.folder / "drones.toml"
    inventory.write_text("\n".join(lines) + "\n")
    words = [solenoid_python(), "-m", "solenoid", "run", "--drones", inventory]
    words += ["--known-hosts", drones.known_hosts, "--ssh-config", config]
    words += ["--parallel", str(PARALLEL), "--", "true"]
    return [str(word) for word in words]


def parallel_ssh(drones: Drones) -> list[str]:
    """Return the command of parallel-ssh: a program by its documentation."""
    python = python_package("parallel-ssh") / "python"
    words = [python, BENCHMARKS / "python" / "parallel_ssh.py", str(PARALLEL), USER]
    places = [f"{host}:{port}" for host, port in drones.places]
    return [str(word) for word in (*words, drones.key, *places, "--", "true")]


def ansible(drones: Drones) -> list[str]:
    """Return the command of ansible, without its Python on the other side."""
    program = python_package("ansible-core") / "ansible"
    common = f"-F none -o UserKnownHostsFile={drones.known_hosts}"
    lines = [
        f"d{number} ansible_host={host} ansible_port={port}"
        for number, (host, port) in enumerate(drones.places)
    ]
    lines += ["[all:vars]", f"ansible_user={USER}"]
    lines += [f"ansible_ssh_private_key_file={drones.key}"]
    lines += [f"ansible_ssh_common_args='{common}'"]
    inventory = drones.folder / "ansible.ini"
    inventory.write_text("\n".join(lines) + "\n")
    words = [program, "all", "-i", inventory, "-m", "raw", "-a", "true"]
    return [str(word) for word in (*words, "-f", PARALLEL)]


def pyinfra(drones: Drones) -> list[str]:
    """Return the command of pyinfra."""
    program = python_package("pyinfra") / "pyinfra"
    about = {
        "ssh_user": USER,
        "ssh_key": str(drones.key),
        "ssh_known_hosts_file": str(drones.known_hosts),
        "ssh_strict_host_key_checking": "yes",
    }
    hosts = [
        (f"d{number}", {**about, "ssh_hostname": host, "ssh_port": port})
        for number, (host, port) in enumerate(drones.places)
    ]
    inventory = drones.folder / "pyinfra_inventory.py"
    inventory.write_text(f"drones = {hosts!r}\n")
    words = [program, "-y", inventory, "--parallel", PARALLEL, "exec", "--", "true"]
    return [str(word) for word in words]


def openssh(drones: Drones) -> list[str]:
    """Return the command that needs nothing: xargs and ssh."""
    places = drones.folder / "places"
    lines = (f"ssh://{USER}@{host}:{port}\n" for host, port in drones.places)
    places.write_text("".join(lines))
    ssh = f"ssh -F none -n -i {drones.key} -o BatchMode=yes -o UserKnownHostsFile="
    line = f"xargs -a {places} -P {PARALLEL} -I% {ssh}{drones.known_hosts} % true"
    return ["sh", "-c", line]


PEERS: dict[str, Callable[[Drones], list[str]]] = {
    "solenoid": solenoid,
    "parallel-ssh": parallel_ssh,
    "ansible": ansible,
    "pyinfra": pyinfra,
    "xargs ssh": openssh,
}


def prepared(name: str, drones: Drones) -> tuple[list[str], dict[str, str]]:
    """Return a command and its environment; what is missing is installed."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environ.pop("SSH_AUTH_SOCK", None)
    environ.pop("LD_PRELOAD", None)
    environ["HOME"] = str(drones.folder)
    environ["ANSIBLE_LOCALHOST_WARNING"] = "False"
    environ["PATH"] = f"{environ['PATH']}:{os.path.dirname(sys.executable)}"
    return [*drones.within, *PEERS[name](drones)], environ
