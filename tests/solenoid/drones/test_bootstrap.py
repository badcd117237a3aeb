# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A drone that has only sshd and python3 gets solenoid, whole, beside what it runs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from solenoid import drones
from solenoid.drones import _bootstrap
from solenoid.drones._target import Target
from solenoid.drones._wheelhouse import Archive
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.solenoid.sshd import Fleet, Sshd


# What only an installation can have compiled for monitors of other users.
RESIDENT = "solenoid/current/lib/*/*/forza/__pycache__/_monitor.*.opt-resident.pyc"


def on(
    drone: drones.Drone, act: Callable[[drones.Session], Awaitable[object]]
) -> object:
    """Do something in a session with a drone."""

    async def main() -> object:
        async with drones.Ssh() as ssh, ssh.session(drone) as session:
            return await act(session)

    return asyncio.run(main())


def inside(server: Sshd) -> list[str]:
    """Return what is in the folder that is solenoid's."""
    base = server.home / "solenoid"
    return sorted(path.name for path in base.iterdir()) if base.exists() else []


def made_of(**files: str) -> Archive:
    """Return an archive that passes for one, with another name each time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("uvloop", "orjson"):
            archive.writestr(f"{name}.py", files.get(name, ""))
    data = stream.getvalue()
    return Archive(f"1.0-{os.urandom(4).hex()}", data, hashlib.sha256(data).hexdigest())


def test_install(fleet: Fleet) -> None:
    """A drone gets it once, with all its programs; the next time is one command."""
    server = fleet.add("web")

    async def act(session: drones.Session) -> None:
        wheelhouse = drones.Wheelhouse()
        words = await drones.ensure_solenoid(session, wheelhouse)
        assert list(server.home.glob(RESIDENT))
        ended = await session.run([*words, "--version"], check=True)
        assert ended.stdout.startswith(b"solenoid ")
        programs = server.home / "solenoid" / "current" / "bin"
        for name in ("solenoid", "forza", "aeternum"):
            await session.run([str(programs / name), "--help"], check=True)
        forza = str(programs / "forza")
        ended = await session.run([forza, "--", "echo", "hello"], check=True)
        assert b'"description":"hello\\n"' in ended.stdout
        # The guard came along, and so did what is compiled in advance.
        (native,) = server.home.glob("solenoid/current/lib/*/*/forza/_native")
        assert os.access(native / "guard", os.X_OK) == os.access(
            "forza/_native/guard", os.X_OK
        )
        assert list(native.parent.glob("__pycache__/_monitor.*.pyc"))

        commands = "Starting session: command"
        before = server.log.read_text().count(commands)
        assert await drones.ensure_solenoid(session, wheelhouse) == words
        assert server.log.read_text().count(commands) == before + 1

    on(server.drone, act)
    (line,) = (server.home / "solenoid" / "audit.log").read_text().splitlines()
    assert json.loads(line)["what"] == "install"


def test_two_installers(fleet: Fleet) -> None:
    """Two deployers at once, and there is one solenoid, which both use."""
    server = fleet.add("web")

    async def main() -> None:
        wheelhouse = drones.Wheelhouse()
        async with (
            drones.Ssh() as ssh,
            ssh.session(server.drone) as one,
            ssh.session(server.drone) as other,
        ):
            first, second = await asyncio.gather(
                drones.ensure_solenoid(one, wheelhouse),
                drones.ensure_solenoid(other, wheelhouse),
            )
        assert first == second

    asyncio.run(main())
    assert [name for name in inside(server) if name[0] != "."] == [
        os.readlink(server.home / "solenoid" / "current"),
        "audit.log",
        "current",
    ]


def test_without_root(fleet: Fleet) -> None:
    """An ordinary user has it below its own home, and it runs there."""
    server = fleet.add("web", sudoers="")

    async def act(session: drones.Session) -> None:
        words = await drones.ensure_solenoid(session, drones.Wheelhouse())
        assert words[0].startswith("/mnt/.local/share/solenoid/")
        await session.run([*words, "--version"], check=True)

    on(replace(server.drone, base=None), act)


def test_versions_side_by_side(fleet: Fleet) -> None:
    """An upgrade leaves what runs alone; what nothing runs any more is removed."""
    server = fleet.add("web")
    base = server.home / "solenoid"

    async def install(session: drones.Session, archive: Archive) -> None:
        await _bootstrap._install(session, archive, send=True)
        assert os.readlink(base / "current") == archive.id
        # All were installed long ago.
        for path in base.glob("1.0-*"):
            os.utime(path, (1, 1))

    async def act(session: drones.Session) -> None:
        first, second, third, fourth, fifth = (made_of() for _ in range(5))
        await install(session, first)
        python = base / first.id / "bin" / "python"
        # As apps do: found by its command line.
        app = await asyncio.create_subprocess_exec(
            python, "-c", "input()", stdin=asyncio.subprocess.PIPE
        )
        await install(session, second)
        await install(session, third)
        # The one before stays, too: somebody may be about to use it.
        assert {first.id, second.id, third.id} <= set(inside(server))
        await install(session, fourth)
        assert second.id not in inside(server)
        assert first.id in inside(server)
        assert app.returncode is None
        await app.communicate(b"end\n")
        await install(session, fifth)
        assert {fourth.id, fifth.id} == {
            name for name in inside(server) if name.startswith("1.0-")
        }
        # Going back sends nothing.
        await _bootstrap._install(session, fourth, send=False)
        assert os.readlink(base / "current") == fourth.id
        with pytest.raises(drones.BootstrapError, match="has just been removed"):
            await _bootstrap._install(session, first, send=False)

    on(server.drone, act)


def test_new_ones_are_not_removed(fleet: Fleet) -> None:
    """What another deployer has just installed stays for a day, used or not."""
    server = fleet.add("web")

    async def act(session: drones.Session) -> None:
        archives = [made_of() for _ in range(3)]
        for archive in archives:
            await _bootstrap._install(session, archive, send=True)
        assert {archive.id for archive in archives} <= set(inside(server))

    on(server.drone, act)


def test_cut_in_the_middle(fleet: Fleet) -> None:
    """Of a transfer that was cut there is nothing, and the next one succeeds."""
    server = fleet.add("web")
    fleet.config.write_text(f"HostKeyAlias [127.0.0.1]:{server.port}\n")
    wheelhouse = drones.Wheelhouse()

    async def cut(session: drones.Session) -> None:
        # Made before, so that nothing but the transfer is in time for the cut.
        facts = await _bootstrap._ask(session, "facts", {})
        archive = await wheelhouse.archive(Target.of(facts))
        proxy.cut("reset", len(archive.data) // 2)
        with pytest.raises(drones.SessionError) as caught:
            await _bootstrap._install(session, archive, send=True)
        assert caught.value.kind == "lost"

    with Proxy(server.port) as proxy:
        on(replace(server.drone, port=proxy.port), cut)

    async def again(session: drones.Session) -> None:
        assert not [name for name in inside(server) if name[0] != "."]
        words = await drones.ensure_solenoid(session, wheelhouse)
        await session.run([*words, "--version"], check=True)

    on(server.drone, again)


def test_left_by_a_killed_installer(fleet: Fleet) -> None:
    """What an installer has left that was killed is removed by the next."""
    server = fleet.add("web")
    part = server.home / "solenoid" / ".1.0-abc.77.part"
    part.mkdir(parents=True, mode=0o755)
    (part / "half").touch()
    on(server.drone, lambda s: _bootstrap._install(s, made_of(), send=True))
    assert not part.exists()


@pytest.mark.parametrize(
    ("archive", "error"),
    [
        (replace(made_of(), sha256="0" * 64), "what has come is damaged"),
        (made_of(orjson="import no_such"), "does not run here: ModuleNotFoundError"),
        (Archive("1.0-x", b"zip", hashlib.sha256(b"zip").hexdigest()), "cannot unpack"),
    ],
)
def test_archives_that_will_not_do(fleet: Fleet, archive: Archive, error: str) -> None:
    """What is damaged or does not run here is not installed; what was there stays."""
    server = fleet.add("web")

    async def act(session: drones.Session) -> None:
        good = made_of()
        await _bootstrap._install(session, good, send=True)
        before = inside(server)
        with pytest.raises(drones.BootstrapError, match=error) as caught:
            await _bootstrap._install(session, archive, send=True)
        assert str(caught.value).startswith("web: ")
        assert inside(server) == before
        assert os.readlink(server.home / "solenoid" / "current") == good.id

    on(server.drone, act)


def test_drones_that_will_not_do(fleet: Fleet) -> None:
    """No Python, one that is too old, or a folder that others can write to."""
    server = fleet.add("web")
    old = server.home / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)

    async def ensure(session: drones.Session) -> None:
        await drones.ensure_solenoid(session, drones.Wheelhouse())

    for python in ("no-such-python", str(old)):
        with pytest.raises(drones.BootstrapError) as caught:
            on(replace(server.drone, python=python), ensure)
        assert str(caught.value) == f"web: no Python of 3.11 or newer ({python})"
    (server.home / "solenoid").mkdir()
    (server.home / "solenoid").chmod(0o777)
    with pytest.raises(drones.BootstrapError, match="can be written by others"):
        on(server.drone, ensure)
    (server.home / "solenoid").rmdir()
    (server.home / "solenoid").touch()
    with pytest.raises(drones.BootstrapError, match=r"(File exists|Not a dir)"):
        on(server.drone, ensure)
