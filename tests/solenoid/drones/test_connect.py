# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The way to a drone: whom we trust, how we are let in, and what is in between."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from solenoid import drones
from tests.solenoid.sshd import keygen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.solenoid.sshd import Fleet


def reach(drone: drones.Drone, **settings: object) -> bytes:
    """Connect, and return what a command there says."""

    async def main() -> bytes:
        ssh = drones.Ssh(**settings)  # type: ignore[arg-type]
        async with ssh, ssh.session(drone) as session:
            return (await session.run(["echo", "here"], check=True)).stdout

    return asyncio.run(main())


def refused(drone: drones.Drone, **settings: object) -> drones.SessionError:
    """Connect in vain."""
    with pytest.raises(drones.SessionError) as caught:
        reach(drone, **settings)
    assert caught.value.drone is drone
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{drone.name}: ")
    return caught.value


# --- Ciphers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "ours", "expected"),
    [
        ("", "", "aes256-gcm@openssh.com"),
        ("Ciphers aes128-gcm@openssh.com,aes128-ctr", "", "aes128-gcm@openssh.com"),
        ("Ciphers aes192-ctr", "", "aes192-ctr"),
        (
            "Ciphers chacha20-poly1305@openssh.com",
            "",
            "chacha20-poly1305@openssh.com",
        ),
        ("", "Ciphers aes256-ctr,aes128-gcm@openssh.com\n", "aes256-ctr"),
    ],
)
def test_ciphers(server: str, ours: str, expected: str, fleet: Fleet) -> None:
    """The cheapest that both know; nobody is refused; who has chosen is heeded."""
    drone = fleet.add("web", *filter(None, [server])).drone
    fleet.config.write_text(ours)

    async def main() -> str:
        async with drones.Ssh() as ssh:
            connection = await ssh.connect(drone)
            connection.close()
            return str(connection.get_extra_info("send_cipher"))

    assert asyncio.run(main()) == expected


# --- Host keys --------------------------------------------------------------------


def test_a_new_host(fleet: Fleet) -> None:
    """A host that is not known is refused, unless new ones shall be trusted."""
    server = fleet.add("web", known=False)
    error = refused(server.drone)
    assert error.kind == "host-key"
    assert "is not known (SHA256:" in str(error)
    assert "--accept-new" in str(error)
    assert not fleet.known_hosts.exists()

    assert reach(server.drone, accept_new=True) == b"here\n"
    host = f"[127.0.0.1]:{server.port}"
    found = subprocess.run(["ssh-keygen", "-F", host, "-f", str(fleet.known_hosts)])
    assert found.returncode == 0
    assert reach(server.drone) == b"here\n"
    assert reach(server.drone, accept_new=True) == b"here\n"
    assert len(fleet.known_hosts.read_text().splitlines()) == 1


def test_a_changed_host(fleet: Fleet) -> None:
    """A host with another key than known is always refused."""
    server = fleet.add("web", known=False)
    other = keygen(fleet.folder / "other")
    # Without a newline at the end, as an editor may leave it.
    fleet.known_hosts.write_text(f"[127.0.0.1]:{server.port} {other}")
    for accept_new in (False, True):
        error = refused(server.drone, accept_new=accept_new)
        assert error.kind == "host-key"
        assert "has CHANGED" in str(error)
        assert f"ssh-keygen -R '[127.0.0.1]:{server.port}'" in str(error)
    assert len(fleet.known_hosts.read_text().splitlines()) == 1


def test_what_else_is_not_trusted(fleet: Fleet) -> None:
    """No file at all is no trust, and `StrictHostKeyChecking no` is not heeded."""
    server = fleet.add("web")
    fleet.config.write_text("UserKnownHostsFile none\nGlobalKnownHostsFile none\n")
    assert refused(server.drone).kind == "host-key"
    error = refused(server.drone, accept_new=True)
    assert "no known_hosts file to write it to" in str(error)
    fleet.config.write_text(
        f"UserKnownHostsFile {fleet.folder / 'none'}\nStrictHostKeyChecking no\n"
    )
    assert refused(server.drone).kind == "host-key"

    fleet.config.write_text("")
    with fleet.known_hosts.open("a") as file:
        file.write(f"@revoked * {server.public_key}\n")
    for accept_new in (False, True):
        error = refused(server.drone, accept_new=accept_new)
        assert error.kind == "host-key"
        assert "revoked" in str(error)


def test_hashed_names_and_aliases(fleet: Fleet) -> None:
    """Names in known_hosts may be hashed, and HostKeyAlias stands for a host."""
    server = fleet.add("web")
    hashed = ["ssh-keygen", "-q", "-H", "-f", str(fleet.known_hosts)]
    subprocess.run(hashed, check=True, stderr=subprocess.DEVNULL)
    assert fleet.known_hosts.read_text().startswith("|1|")
    # Lines that make no sense are passed over.
    text = fleet.known_hosts.read_text()
    fleet.known_hosts.write_text(f"@what ever\nnonsense\n{text}a b c\n")
    assert reach(server.drone) == b"here\n"

    fleet.known_hosts.write_text("")
    fleet.config.write_text("HostKeyAlias the-web\n")
    assert refused(server.drone).kind == "host-key"
    assert reach(server.drone, accept_new=True) == b"here\n"
    assert fleet.known_hosts.read_text().startswith("the-web ssh-ed25519 ")
    assert reach(server.drone) == b"here\n"


def test_new_hosts_at_once(fleet: Fleet) -> None:
    """Several deployers that trust several new hosts lose none of their keys."""
    servers = [fleet.add(f"web{number}", known=False) for number in range(3)]

    async def reach_all() -> None:
        async with drones.Ssh(accept_new=True) as ssh:
            await asyncio.gather(*(touch(ssh, server.drone) for server in servers))

    asyncio.run(reach_all())
    names = {line.split()[0] for line in fleet.known_hosts.read_text().splitlines()}
    assert names == {f"[127.0.0.1]:{server.port}" for server in servers}


async def touch(ssh: drones.Ssh, drone: drones.Drone) -> None:
    """Connect, do something, and leave."""
    async with ssh.session(drone) as session:
        await session.run(["true"], check=True)


# --- Who we are ---------------------------------------------------------------------


def test_a_key_that_is_refused(fleet: Fleet) -> None:
    """Who is not let in is told so, with the user that it was tried as."""
    server = fleet.add("web", "AuthorizedKeysFile none")
    error = refused(server.drone)
    assert error.kind == "auth"
    assert f"{server.address} takes none of our keys" in str(error)


def test_more_keys_than_are_tried(fleet: Fleet) -> None:
    """A server that has seen enough keys is not taken for one that is away."""
    server = fleet.add("web", "MaxAuthTries 1", "AuthorizedKeysFile none")
    keygen(fleet.home / ".ssh" / "id_ecdsa", "-t", "ecdsa")
    error = refused(server.drone)
    assert error.kind == "auth"
    assert server.log.read_text().count("Connection from") == 2


@contextmanager
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an agent."""
    path = home / "agent"
    running = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE
    )
    try:
        assert running.stdout is not None
        running.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield
    finally:
        running.terminate()
        running.communicate()


def test_an_agent(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that only the agent can use, since its file is encrypted or has gone."""
    server = fleet.add("web")
    with agent(fleet.home, monkeypatch):
        assert reach(server.drone) == b"here\n"
        subprocess.run(["ssh-add", "-q", str(fleet.key)], check=True)
        change = ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(fleet.key)]
        subprocess.run(change, check=True, stdout=subprocess.DEVNULL)
        assert reach(server.drone) == b"here\n"
        fleet.config.write_text(f"IdentityFile {fleet.key}\nIdentitiesOnly yes\n")
        assert reach(server.drone) == b"here\n"
        fleet.key.unlink()
        assert reach(server.drone) == b"here\n"
        # Of an agent full of keys, none but those that are named.
        fleet.config.write_text("IdentityFile ~/.ssh/other\nIdentitiesOnly yes\n")
        assert refused(server.drone).kind == "auth"
    assert refused(server.drone).kind == "auth"


def test_certificates(fleet: Fleet) -> None:
    """An authority vouches for the operator to the drone, and the other way round."""
    authority = fleet.folder / "authority"
    public = keygen(authority)
    server = fleet.make(
        "web",
        "AuthorizedKeysFile none",
        f"TrustedUserCAKeys {authority}.pub",
        f"HostCertificate {fleet.folder}/web/host-cert.pub",
    )
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-I", "test"]
    host = ["-h", "-n", "127.0.0.1", str(server.folder / "host.pub")]
    subprocess.run([*sign, *host], check=True)
    with server.running():
        fleet.known_hosts.write_text(f"@cert-authority [127.0.0.1]:* {public}\n")
        assert refused(server.drone).kind == "auth"
        user = ["-n", server.drone.user or "", f"{fleet.key}.pub"]
        subprocess.run([*sign, *user], check=True)
        assert reach(server.drone) == b"here\n"
        fleet.known_hosts.write_text("")
        error = refused(server.drone, accept_new=True)
        assert error.kind == "host-key"


# --- ~/.ssh/config --------------------------------------------------------------------


def test_the_configuration(fleet: Fleet) -> None:
    """Names, ports, users and keys are those that ssh would take."""
    server = fleet.add("web")
    hidden = fleet.home / "hidden"
    fleet.key.rename(hidden)
    included = fleet.home / ".ssh" / "more"
    included.write_text(
        f"Host w?b\n  HostName 127.0.0.1\n  Port {server.port}\n"
        f"  IdentityFile ~/.ssh/nosuch\n  IdentityFile %d/hidden\n"
        f"  CertificateFile ~/.ssh/nosuch-cert.pub\n  ForwardAgent yes\n"
        f"  RemoteCommand echo never\n  RequestTTY force\n"
        f"Match user {server.drone.user}\n  ServerAliveInterval 7\n"
    )
    user = server.drone.user
    fleet.config.write_text(f"Include more\nHost *\n  User {user}\n  Bogus yes\n")
    assert reach(drones.Drone("shop", "web")) == b"here\n"
    # What the inventory says goes first.
    error = refused(drones.Drone("shop", "web", port=1))
    assert error.kind == "unreachable"
    assert "127.0.0.1:1: Connection refused" in str(error)

    fleet.config.write_text("Port many\n")
    error = refused(drones.Drone("shop", "web"))
    assert f"{fleet.config} line 1" in str(error)

    other = fleet.home / "other-config"
    included.rename(other)
    drone = drones.Drone("shop", "web", user=user)
    assert reach(drone, config=str(other)) == b"here\n"


def test_jump_hosts(fleet: Fleet) -> None:
    """All drones behind a jump host share one connection to it."""
    bastion = fleet.add("bastion")
    servers = [fleet.add(f"web{number}") for number in range(3)]
    fleet.config.write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {bastion.port}\n"
        f"  HostKeyAlias [127.0.0.1]:{bastion.port}\n"
        "Host *\n  ProxyJump bastion\n"
    )

    async def main() -> None:
        async with drones.Ssh() as ssh:
            await asyncio.gather(*(touch(ssh, server.drone) for server in servers))

    asyncio.run(main())
    assert bastion.log.read_text().count("Accepted publickey") == 1
    for server in servers:
        assert server.log.read_text().count("Accepted publickey") == 1

    # Through one to the other, and by addresses.
    fleet.config.write_text(
        f"Host web\n  HostName 127.0.0.1\n  Port {servers[0].port}\n"
        f"  ProxyJump {bastion.address},ssh://{servers[1].address}\n"
    )
    assert reach(drones.Drone("web", "web")) == b"here\n"
    assert bastion.log.read_text().count("Accepted publickey") == 2
    assert servers[1].log.read_text().count("Accepted publickey") == 2


def test_jump_hosts_that_will_not_do(fleet: Fleet) -> None:
    """It is said which host is in the way; a jump host has to be trusted, too."""
    bastion = fleet.add("bastion", known=False)
    server = fleet.add("web")
    fleet.config.write_text(
        f"Host web\n HostName 127.0.0.1\n Port {server.port}\n"
        f" ProxyJump {bastion.address}\n"
    )
    drone = drones.Drone("shop", "web")
    error = refused(drone)
    assert error.kind == "host-key"
    assert f"jump host {bastion.address}: the host key of" in str(error)
    assert reach(drone, accept_new=True) == b"here\n"

    error = refused(replace(drone, port=1))
    assert error.kind == "unreachable"
    assert "the jump host cannot reach 127.0.0.1:1" in str(error)

    fleet.config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    assert "behind itself" in str(refused(drones.Drone("a", "a")))

    async def both() -> list[BaseException | None]:
        async with drones.Ssh() as ssh:
            ways = (touch(ssh, drones.Drone(name, name)) for name in "ab")
            return await asyncio.gather(*ways, return_exceptions=True)

    assert all("behind itself" in str(error) for error in asyncio.run(both()))
    fleet.config.write_text("Host a\n ProxyJump b:port\n")
    assert "ProxyJump: 'b:port': port is not a port" in str(
        refused(drones.Drone("a", "a"))
    )


# --- Hosts that are not well --------------------------------------------------------


def test_hosts_that_are_not_there(ssh_home: Path) -> None:
    """No such name, nobody who listens, or one who hangs up."""
    error = refused(drones.Drone("web", "no-such-host.invalid"))
    assert error.kind == "unreachable"
    assert "cannot find no-such-host.invalid" in str(error)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = refused(drones.Drone("web", "127.0.0.1", port))
    assert error.kind == "unreachable"
    assert f"127.0.0.1:{port}: Connection refused" in str(error)


def test_a_host_that_is_silent(ssh_home: Path) -> None:
    """One that accepts and says nothing is given up after the time for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        drone = drones.Drone("web", "127.0.0.1", listener.getsockname()[1])
        error = refused(drone, connect_timeout=0.2)
    assert error.kind == "timeout"
    assert "does not answer within 0.2 s" in str(error)


def test_more_than_the_server_takes(fleet: Fleet) -> None:
    """A server that hangs up on every other is called again, until it has time."""
    server = fleet.add("web", "MaxStartups 2:100:2")

    async def main() -> None:
        async with drones.Ssh(at_once=6) as ssh:
            await asyncio.gather(*(touch(ssh, server.drone) for _ in range(6)))

    asyncio.run(main())
    assert server.log.read_text().count("Accepted publickey") == 6
    assert "MaxStartups" in server.log.read_text()


# --- Root ---------------------------------------------------------------------------


def test_sudo(fleet: Fleet) -> None:
    """With sudo, what runs is root's, without it the user's; input comes through."""
    server = fleet.add("web", sudoers="deploy ALL=(ALL) NOPASSWD: ALL")

    async def main() -> None:
        async with drones.Ssh() as ssh:
            async with ssh.session(server.drone) as session:
                assert (await session.run(["id", "-un"])).stdout == b"deploy\n"
            async with ssh.session(replace(server.drone, sudo=True)) as session:
                assert (await session.run(["id", "-un"])).stdout == b"root\n"
                ended = await session.run(["sh", "-c", "cat; exit 3"], input=b"in")
                assert (ended.status, ended.stdout) == (3, b"in")

    asyncio.run(main())


def test_no_sudo(fleet: Fleet) -> None:
    """Who may not is told so; nobody waits for a password."""
    server = fleet.add("web", sudoers="")

    async def main() -> drones.Completed:
        drone = replace(server.drone, sudo=True)
        async with drones.Ssh() as ssh, ssh.session(drone) as session:
            return await session.run(["id"])

    ended = asyncio.run(main())
    assert ended.status == 1
    assert b"sudo: a password is required" in ended.stderr
