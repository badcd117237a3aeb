# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The deploy lock: never two in, free when its deployer is gone, and told about."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from solenoid import AbsentError, drones
from solenoid.drones import _lock
from solenoid.drones.remote import audit
from solenoid.drones.remote import lock as remote_lock
from tests.conftest import PATIENCE, ROOT
from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from multiprocessing.synchronize import Barrier
    from pathlib import Path

    from tests.solenoid.sshd import Fleet, Sshd

TRIALS = 10_000


def audited(server: Sshd) -> list[dict[str, Any]]:
    """Return what the drone has written down."""
    text = (server.home / "solenoid" / "audit.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


# --- The drone's half, in many processes ----------------------------------------------


def enter(folder: str) -> bool:
    """Try to be in, and see to it that nobody else is; say whether we were."""
    inside = os.path.join(folder, "inside")
    file = remote_lock.take(folder)
    if file is None:
        return False
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(inside)
    os.close(file)
    return True


def contend(folder: str, barrier: Barrier, wins: Any, index: int) -> None:
    """Race so many times; to be in with another is an error."""
    try:
        for _ in range(TRIALS):
            barrier.wait(PATIENCE)
            wins[index] += enter(folder)
    except BaseException:
        barrier.abort()
        raise


def test_two_racing_deployers(tmp_path: Path) -> None:
    """In 10,000 races of two, two were never in, and now and then each has won."""
    forks = multiprocessing.get_context("fork")
    barrier = forks.Barrier(2)
    wins: Any = forks.Array("i", 2)
    racers = [
        forks.Process(target=contend, args=(str(tmp_path), barrier, wins, index))
        for index in range(2)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert sum(wins) >= TRIALS
    assert all(wins)


def hold_until_killed(folder: str, tells: Any) -> None:
    """Be in again and again, and say if another is, until SIGKILL comes."""
    # Opened first, and so closed before the lock is freed when we are killed.
    check = os.open(os.path.join(folder, "check"), os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        file = remote_lock.take(folder)
        if file is not None:
            try:
                fcntl.lockf(check, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                tells.send("two are in")
            fcntl.lockf(check, fcntl.LOCK_UN)
            os.close(file)


def test_killed_at_any_instant(tmp_path: Path) -> None:
    """Holders that are killed leave a lock that the others can have, one at a time."""
    forks = multiprocessing.get_context("fork")
    receives, tells = forks.Pipe(duplex=False)

    def start() -> multiprocessing.process.BaseProcess:
        racer = forks.Process(target=hold_until_killed, args=(str(tmp_path), tells))
        racer.start()
        return racer

    racers = [start() for _ in range(3)]
    for _ in range(300):
        time.sleep(random.uniform(0, 0.004))
        victim = racers.pop(0)
        victim.kill()
        victim.join()
        racers.append(start())
    for racer in racers:
        racer.kill()
        racer.join()
    assert not receives.poll()
    assert enter(str(tmp_path))


def test_a_folder_that_is_made_anew(tmp_path: Path) -> None:
    """A lock on a file that was removed is no lock."""
    folder = tmp_path / "app"
    first = remote_lock.take(str(folder))
    assert first is not None
    (folder / remote_lock.FILE).unlink()
    second = remote_lock.take(str(folder))
    assert second is not None
    assert os.fstat(first).st_ino != os.fstat(second).st_ino
    os.close(first)
    os.close(second)


def test_the_audit_log_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two files of so many bytes at most; the oldest lines go first, and whole."""
    monkeypatch.setattr(audit, "SIZE", 4000)
    forks = multiprocessing.get_context("fork")

    def write(index: int) -> None:
        for number in range(200):
            audit.write(str(tmp_path), f"op{index}", "x" * 9000, f"number {number}")

    writers = [forks.Process(target=write, args=(index,)) for index in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "audit.log",
        "audit.log.1",
    ]
    for path in tmp_path.iterdir():
        assert path.stat().st_size <= 4000
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines
        assert all(len(line["what"]) == 2000 for line in lines)
    # Nowhere to write to: that is said, and nothing else happens.
    audit.write(str(tmp_path / "audit.log"), "op", "what", "result")
    assert "cannot write" in capfd.readouterr().err


# --- Both halves ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def two(server: Sshd) -> AsyncIterator[tuple[drones.Session, drones.Session]]:
    """Two deployers, each with a connection of its own."""
    async with (
        drones.Ssh() as ssh,
        ssh.session(server.drone) as first,
        ssh.session(server.drone) as second,
    ):
        yield first, second


def test_lock(fleet: Fleet) -> None:
    """One is in; the other is told who, since when and what for, and waits."""
    server = fleet.add("web")
    app = str(server.home / "run" / "shop")
    waiting: asyncio.Queue[drones.Holder] = asyncio.Queue()

    async def wait_for_it(session: drones.Session) -> None:
        held = drones.lock(
            session, app, "second", wait=60, owner="bob@b", on_wait=waiting.put_nowait
        )
        async with held as lock:
            lock.check()
            await lock.log("start shop", "failed: gate", release="1.2.0")

    async def main() -> None:
        async with two(server) as (one, other):
            async with drones.lock(one, app, "deploy shop", owner="al@a") as lock:
                assert not lock.lost
                with pytest.raises(drones.LockedError, match="locked by al@a") as e:
                    async with drones.lock(other, app, "second"):
                        raise AssertionError("both are in")
                assert e.value.holder is not None
                assert e.value.holder.what == "deploy shop"
                assert e.value.holder.since.endswith("Z")
                # That of another app is another lock.
                async with drones.lock(other, f"{app}2", "another app"):
                    pass
                waiter = asyncio.create_task(wait_for_it(other))
                assert (await waiting.get()).owner == "al@a"
                assert not waiter.done()
            assert lock.lost
            await waiter
            # Who has waited in vain is in nobody's way.
            async with drones.lock(one, app, "third", wait=0):
                pass

    asyncio.run(main())
    said = [(line["who"], line["what"], line["result"]) for line in audited(server)]
    assert said[0] == ("al@a", "deploy shop", "lock taken")
    assert said.index(("al@a", "deploy shop", "lock given back")) < said.index(
        ("bob@b", "second", "lock taken")
    )
    (line,) = (line for line in audited(server) if line["what"] == "start shop")
    assert line["result"] == "failed: gate"
    assert line["release"] == "1.2.0"
    assert line["app_dir"] == app
    assert line["from"] == "127.0.0.1"


def test_one_machine_by_two_names(fleet: Fleet) -> None:
    """Our own run has the lock already, by another name: that is said, at once."""
    server = fleet.add("web")
    app = str(server.home / "shop")

    async def main() -> None:
        again = replace(server.drone, name="web-again")
        async with (
            drones.Ssh() as ssh,
            ssh.session(server.drone) as one,
            ssh.session(again) as other,
        ):
            async with drones.lock(one, app, "deploy"):
                with pytest.raises(
                    drones.LockedError, match="same machine as web,"
                ) as e:
                    async with drones.lock(other, app, "deploy", wait=3600):
                        raise AssertionError("both are in")
            assert e.value.holder is not None
            assert e.value.holder.drone == "web"
            # Afterwards, too: else it would all be done twice.
            with pytest.raises(drones.LockedError, match="same machine as web,"):
                async with drones.lock(other, app, "deploy"):
                    raise AssertionError("it is in twice")

    asyncio.run(main())


def test_nothing_to_lock(fleet: Fleet) -> None:
    """Who does not want a folder made gets none, nor a line in the audit log."""
    server = fleet.add("web")
    app = server.home / "run" / "shop"

    async def main() -> None:
        async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
            with pytest.raises(AbsentError):
                async with drones.lock(session, str(app), "stop", make=False):
                    raise AssertionError("in nothing")
            assert [*server.home.iterdir()] == []
            app.mkdir(parents=True)
            async with drones.lock(session, str(app), "stop", make=False):
                pass

    asyncio.run(main())


def test_who_was_before(fleet: Fleet) -> None:
    """A lock knows whether another has had it since its own run had it last."""
    server = fleet.add("web")
    app = str(server.home / "shop")

    async def main() -> None:
        async with two(server) as (one, _), drones.Ssh() as ssh:
            async with drones.lock(one, app, "first") as lock:
                assert not lock.resumed
            async with drones.lock(one, app, "again") as lock:
                assert lock.resumed
            async with (
                ssh.session(server.drone) as other,
                drones.lock(other, app, "another") as lock,
            ):
                assert not lock.resumed
            async with drones.lock(one, app, "once more") as lock:
                assert not lock.resumed

    asyncio.run(main())


def test_break_lock(fleet: Fleet) -> None:
    """A lock that is broken is free at once; its holder notices; it is written down."""
    server = fleet.add("web")
    app = str(server.home / "shop")

    async def main() -> None:
        async with two(server) as (one, other):
            assert await drones.break_lock(other, app) is None
            async with drones.lock(one, app, "deploy shop", owner="al@a") as lock:
                broken = await drones.break_lock(other, app, owner="bob@b")
                assert broken is not None
                assert (broken.owner, broken.what) == ("al@a", "deploy shop")
                async with drones.lock(other, app, "mine now"):
                    with pytest.raises(drones.LockLostError):
                        await lock.log("start", "ok")
                    with pytest.raises(drones.LockLostError):
                        lock.check()

    asyncio.run(main())
    (line,) = (line for line in audited(server) if line["what"] == "break-lock")
    assert line["who"] == "bob@b"
    assert line["result"].startswith("of al@a since ")
    assert not [line for line in audited(server) if line["what"] == "start"]


def test_a_connection_that_only_we_know_is_broken(fleet: Fleet) -> None:
    """Our own lock, held on by a drone that has heard nothing, is waited for."""
    server = fleet.add("web")
    app = str(server.home / "shop")
    fleet.config.write_text(f"HostKeyAlias [127.0.0.1]:{server.port}\n")

    async def main() -> None:
        drone = replace(server.drone, port=proxy.port)
        held = AsyncExitStack()
        async with drones.Ssh(keepalive=0.2) as ssh:
            with contextlib.suppress(drones.SessionError):
                session = await held.enter_async_context(ssh.session(drone))
                await held.enter_async_context(
                    drones.lock(session, app, "deploy", owner="al@a", lease=10)
                )
                proxy.stall()
                await session.run(["true"])
            await held.aclose()
            async with ssh.session(server.drone) as again:
                waited: list[drones.Holder] = []
                async with drones.lock(
                    again, app, "deploy", on_wait=waited.append, lease=10
                ):
                    assert waited[0].owner == "al@a"
            # The next is told at once, as ever.
            async with (
                ssh.session(server.drone) as one,
                drones.lock(one, app, "deploy"),
            ):
                with pytest.raises(drones.LockedError):
                    async with drones.lock(one, app, "other"):
                        raise AssertionError("both are in")

    with Proxy(server.port) as proxy:
        asyncio.run(main())


def test_a_drone_that_says_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no answer comes, that is an error after a while."""
    server = fleet.add("web")
    python = server.home / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *-S*) exit 0;; esac\nsleep 600\n')
    python.chmod(0o755)
    monkeypatch.setattr(_lock, "ANSWER", 1.0)

    async def main() -> None:
        drone = replace(server.drone, python=str(python))
        async with drones.Ssh() as ssh, ssh.session(drone) as session:
            with pytest.raises(drones.LockedError, match="no word of the lock in 1 s"):
                async with drones.lock(session, str(server.home), "x"):
                    raise AssertionError("it said nothing")

    asyncio.run(main())


DEPLOYER = """
import asyncio, sys
from solenoid import drones
async def main(port, base, app, lease):
    drone = drones.Drone("web", "127.0.0.1", int(port), base=base)
    async with drones.Ssh() as ssh, ssh.session(drone) as session:
        async with drones.lock(session, app, "deploy", lease=float(lease)) as lock:
            print("in", flush=True)
            await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_deployer_that_is_gone(fleet: Fleet, how: signal.Signals) -> None:
    """Killed, its lock is free at once; without a sign of life, after the lease."""
    server = fleet.add("web")
    app = str(server.home / "shop")
    # The lease of one that is killed plays no part.
    lease = "1" if how == signal.SIGSTOP else "3600"
    args = [str(server.port), str(server.drone.base), app, lease]
    deployer = subprocess.Popen(
        [sys.executable, "-c", DEPLOYER, *args], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert deployer.stdout is not None
    try:
        assert deployer.stdout.readline() == b"in\n"

        async def main() -> None:
            async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
                with pytest.raises(drones.LockedError):
                    async with drones.lock(session, app, "other"):
                        raise AssertionError("both are in")
                deployer.send_signal(how)
                async with drones.lock(session, app, "other", wait=PATIENCE):
                    pass

        asyncio.run(main())
    finally:
        deployer.kill()
        deployer.communicate()
    results = [line["result"] for line in audited(server)]
    freed = "lock lease over" if how == signal.SIGSTOP else "lock given back"
    assert results.index(freed) < results.index("lock taken", 1)


def test_the_lease_goes_on(fleet: Fleet) -> None:
    """A deployer that lives keeps its lock for many times the lease."""
    server = fleet.add("web")

    async def main() -> None:
        app = str(server.home / "shop")
        async with (
            two(server) as (one, other),
            drones.lock(one, app, "deploy", lease=8) as lock,
        ):
            await asyncio.sleep(9)
            lock.check()
            with pytest.raises(drones.LockedError):
                async with drones.lock(other, app, "other"):
                    raise AssertionError("both are in")

    asyncio.run(main())


def test_where_no_lock_can_be(fleet: Fleet) -> None:
    """A folder that cannot be is an error in one line."""
    server = fleet.add("web")
    (server.home / "file").touch()

    async def main() -> None:
        async with drones.Ssh() as ssh, ssh.session(server.drone) as session:
            with pytest.raises(drones.LockedError, match="web: cannot lock: ") as e:
                async with drones.lock(session, f"{server.home}/file/shop", "x"):
                    raise AssertionError("in nothing")
            assert e.value.holder is None
            assert "\n" not in str(e.value)

    asyncio.run(main())
