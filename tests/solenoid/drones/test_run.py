# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A change on its way to drones over real SSH: gates, failures, undoing, stopping."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from solenoid.drones import _visit
from solenoid.drones._actions import Command, Restart, Rollback, Stop
from solenoid.drones._connect import Reached
from solenoid.drones._hooks import Hooked
from solenoid.drones._inventory import Drone, Probe
from solenoid.drones._place import Place
from solenoid.drones._rollout import Strategy
from solenoid.drones._run import Run
from solenoid.drones._snapshot import Stored
from solenoid.drones._ssh import Ssh
from solenoid.drones._start import Start
from tests.conftest import PATIENCE
from tests.solenoid.drones.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from pathlib import Path

    from solenoid.drones._result import Result, Step
    from solenoid.drones._visit import Action

WEB = ("web1", "web2", "web3", "web4", "web5", "web6")


def wait(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine, not for ever."""
    asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


PLACE = Place("/run/shop", solenoid=("solenoid",))


def start(probe: Probe | None = None, environ: bytes | None = None) -> Start:
    """Start what is at a URL that needs no signature."""
    snapshot = Stored("http://snapshots.invalid/shop.tgz", sha256="ab" * 32)
    return Start(PLACE, snapshot, probe=probe, environ=environ)


class Field:
    """Drones, the way to them, and what was done with them."""

    def __init__(self, drones: dict[str, Scripted], ssh: Ssh) -> None:
        self.drones, self.ssh = drones, ssh
        self.steps: list[Step] = []
        self.batches: list[tuple[str, ...]] = []

    def __getitem__(self, name: str) -> Scripted:
        return self.drones[name]

    @asynccontextmanager
    async def connect(
        self, drone: Drone, step: Callable[[str, str], None]
    ) -> AsyncIterator[Reached]:
        """Connect, without a lock."""
        async with self.ssh.session(drone) as session:
            yield Reached(session)

    def run(
        self,
        action: Action,
        strategy: Strategy | None = None,
        *,
        more: Sequence[Drone] = (),
        parallel: int = 64,
    ) -> Run:
        """Carry an action to all of them."""
        return Run(
            [*(drone.drone() for drone in self.drones.values()), *more],
            action,
            strategy or Strategy(),
            connect=self.connect,
            parallel=parallel,
            on_step=self.steps.append,
            on_batch=lambda number, of, names: self.batches.append(names),
        )


@asynccontextmanager
async def field(folder: Path, *names: str) -> AsyncIterator[Field]:
    """Have drones, and connections to them that trust what they see first."""
    config = folder / "config"
    config.write_text("")
    ssh = Ssh(
        config=str(config),
        known_hosts=str(folder / "known_hosts"),
        accept_new=True,
        connect_timeout=PATIENCE,
    )
    async with scripted(*(names or WEB)) as drones, ssh:
        yield Field(drones, ssh)


def states(run: Run) -> dict[str, str]:
    """Return the last word on each drone."""
    return {name: run.results[name].state for name in run.drones}


async def all_of(run: Run) -> list[Result]:
    """Return all results, as they came."""
    return [result async for result in run]


def test_success(tmp_path: Path) -> None:
    """All get it: one connection each, and the URL only over standard input."""

    async def main() -> None:
        async with field(tmp_path) as web:
            run = web.run(start(environ=b"TOKEN=secret\n"))
            results = await all_of(run)
            assert {result.drone for result in results} == set(WEB)
            for drone in web.drones.values():
                assert drone.release == "2"
                assert drone.connected == 1
                assert drone.verbs("start") == ["start"]
                words = next(words for words in drone.words if "start" in words)
                assert words[:6] == [
                    *("solenoid", "start", "--from", "-"),
                    *("--sha256", "ab" * 32),
                ]
                assert "--env-file" in words
                assert not any("http" in word or "secret" in word for word in words)
                assert "http://snapshots.invalid/shop.tgz\nTOKEN=secret\n" in (
                    drone.inputs
                )
            for result in results:
                assert (result.state, result.ok, result.changed) == ("done", True, True)
                assert (result.before, result.release) == ("1", "2")
                assert result.reply["service"] == "health/process/start"
            steps = [step.step for step in web.steps if step.drone == "web1"]
            assert steps == ["connect", "look", "send", "start"]

    wait(main())


def test_a_failure_stops_and_takes_back(tmp_path: Path) -> None:
    """Canary, batches; one fails its gate: the others go back, the rest never begin."""

    async def main() -> None:
        async with field(tmp_path) as web:
            web["web3"].fail_start = "Error: no database\n"
            run = web.run(start(), Strategy(canary=1, batch=2))
            results = await all_of(run)
            assert web.batches == [("web1",), ("web2", "web3")]
            assert states(run) == {
                **{"web1": "undone", "web2": "undone", "web3": "failed"},
                **{"web4": "untouched", "web5": "untouched", "web6": "untouched"},
            }
            assert run.rollout.stopped == "1 failed, and none may"
            failed = run.results["web3"]
            assert failed.output == "Error: no database\n"
            assert (failed.step, failed.blame) == ("start", "user")
            assert failed.error == "no port within 15 s"
            undone = [result.drone for result in results if result.state == "undone"]
            assert undone == ["web2", "web1"]
            for name in ("web1", "web2", "web3"):
                assert web[name].release == "1"
                assert web[name].connected == 1
            for name in ("web4", "web5", "web6"):
                assert web[name].connected == 0
            assert run.results["web1"].before == "2"
            assert run.results["web1"].release == "1"

    wait(main())


def test_all_at_once_goes_on(tmp_path: Path) -> None:
    """Without batches each drone is on its own: a dead one costs no other."""

    async def main() -> None:
        async with field(tmp_path) as web:
            web["web2"].fail_start = "no\n"
            closed = Drone("web7", "127.0.0.1", web["web6"].port)
            web.drones.pop("web6").server.close()  # type: ignore[union-attr]
            run = web.run(start(), more=[closed])
            await all_of(run)
            assert states(run) == {
                **dict.fromkeys(WEB[:5], "done"),
                **{"web2": "failed", "web7": "failed"},
            }
            assert run.results["web7"].step == "connect"
            assert not run.rollout.broken

    wait(main())


def test_nothing_is_taken_back_if_not_wanted(tmp_path: Path) -> None:
    """Without undo what is done stays, though the change stops."""

    async def main() -> None:
        async with field(tmp_path) as web:
            web["web2"].fail_start = "no\n"
            run = web.run(start(), Strategy(batch=1, undo=False))
            await all_of(run)
            assert [*states(run).values()] == ["done", "failed"] + ["untouched"] * 4

    wait(main())


def test_first_start_is_taken_back_by_stopping(tmp_path: Path) -> None:
    """Where nothing ran before, nothing runs afterwards."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:
            web["web1"].release = None
            web["web2"].fail_start = "no\n"
            run = web.run(start(), Strategy(batch=1))
            await all_of(run)
            assert states(run) == {"web1": "undone", "web2": "failed"}
            assert web["web1"].verbs("stop", "rollback") == ["stop"]
            assert not web["web1"].running
            assert run.results["web1"].release is None

    wait(main())


@asynccontextmanager
async def app(status: int, body: bytes = b"hello\n") -> AsyncIterator[int]:
    """Answer HTTP with a status; yields the port."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Said\r\n\r\n%s" % (status, body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


def test_probe(tmp_path: Path) -> None:
    """Who starts and then answers 500 goes back; the answer is in the result."""

    async def main() -> None:
        names = ("web1", "web2")
        async with (
            field(tmp_path, *names) as web,
            app(200) as well,
            app(500, b"no database\n") as ill,
        ):
            web["web1"].app_port, web["web2"].app_port = well, ill
            run = web.run(start(probe=Probe("/health", timeout=0)))
            await all_of(run)
            assert states(run) == {"web1": "done", "web2": "failed"}
            assert [drone.release for drone in web.drones.values()] == ["2", "1"]
            failed = run.results["web2"]
            assert failed.step == "probe"
            assert failed.error == f"http://localhost:{ill}/health: 500 Said"
            assert failed.output == "no database\n"

    wait(main())


def test_probe_of_nobody(tmp_path: Path) -> None:
    """A port where nobody listens is no healthy app, by the connection or directly."""

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            async with app(200) as port:
                pass
            through = Probe("/", port, 0)
            run = web.run(start(probe=through))
            await all_of(run)
            assert "nobody listens" in run.results["web1"].error
            direct = Probe(f"http://{{host}}:{port}/", None, 0)
            run = web.run(start(probe=direct))
            await all_of(run)
            assert run.results["web1"].error.startswith(f"http://127.0.0.1:{port}/: ")
            assert web["web1"].release == "1"

    wait(main())


def test_interrupted(tmp_path: Path) -> None:
    """Stopped in the middle: who has begun ends, and nobody else begins."""

    async def main() -> None:
        async with field(tmp_path) as web:
            web["web2"].hold = asyncio.Event()
            run = web.run(start(), Strategy(batch=2))

            async def interrupt() -> None:
                await web["web2"].begun.wait()
                run.stop("interrupted")
                web["web2"].hold.set()  # type: ignore[union-attr]

            interrupting = asyncio.create_task(interrupt())
            await all_of(run)
            await interrupting
            assert [*states(run).values()] == ["done"] * 2 + ["untouched"] * 4
            assert web["web2"].release == "2"
            assert run.results["web3"].error == "interrupted"

    wait(main())


def test_interrupted_while_waiting(tmp_path: Path) -> None:
    """Who waits for another's lock when it is stopped does not begin any more."""

    async def main() -> None:
        async with field(tmp_path) as web:
            waiting = asyncio.Event()

            @asynccontextmanager
            async def connect(
                drone: Drone, tell: Callable[[str, str], None]
            ) -> AsyncIterator[Reached]:
                if drone.name == "web2":
                    tell("lock", "waits for al@a")
                    waiting.set()
                    await asyncio.Event().wait()
                async with web.connect(drone, tell) as reached:
                    yield reached

            drones = [drone.drone() for drone in web.drones.values()]
            run = Run(drones, start(), Strategy(batch=2), connect=connect)
            web["web1"].hold = asyncio.Event()

            async def interrupt() -> None:
                await asyncio.gather(waiting.wait(), web["web1"].begun.wait())
                run.stop()
                assert run.busy == ["web1"]
                assert web["web1"].hold is not None
                web["web1"].hold.set()

            interrupting = asyncio.create_task(interrupt())
            await all_of(run)
            await interrupting
            found = run.results["web2"]
            assert (found.state, found.step) == ("failed", "lock")
            assert found.error == "interrupted"
            assert states(run)["web1"] == "done"
            assert not web["web2"].asked

    wait(main())


def test_abandoned(tmp_path: Path) -> None:
    """The second time one leaves at once, and knows who was where in the middle."""

    async def main() -> None:
        async with field(tmp_path) as web:
            web["web2"].hold = asyncio.Event()
            run = web.run(start(), Strategy(batch=2))
            left: list[Step] = []

            async def abandon() -> None:
                await asyncio.gather(web["web2"].begun.wait(), web1_done.wait())
                run.stop("interrupted")
                left.extend(run.abandon())

            web1_done = asyncio.Event()
            leaving = asyncio.create_task(abandon())
            async for result in run:
                if result.drone == "web1":
                    web1_done.set()
            await leaving
            assert [(step.drone, step.step) for step in left] == [("web2", "start")]
            found = states(run)
            assert found["web1"] == "done"
            assert found["web2"] == "unclear"
            assert {found[name] for name in WEB[2:]} == {"untouched"}

    wait(main())


def test_leaving_the_loop(tmp_path: Path) -> None:
    """A library's user who breaks off lets nobody begin, and waits for the others."""

    async def main() -> None:
        async with field(tmp_path) as web:
            run = web.run(start(), Strategy(batch=2))
            async for result in run:
                assert result.ok
                break
            # The generator is closed when it is forgotten, or by the loop.
            await run.close()
            assert sorted(run.results) == ["web1", "web2"]
            assert {web[name].release for name in WEB[:2]} == {"2"}
            assert {web[name].release for name in WEB[2:]} == {"1"}

    wait(main())


def test_cut_in_the_middle_of_a_start(tmp_path: Path) -> None:
    """The connection breaks, the start goes on: its end is found out, and counts."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:
            for name in ("web1", "web2"):
                web[name].hold = asyncio.Event()
            web["web2"].fail_start = "no\n"
            run = web.run(start())

            async def cut() -> None:
                for drone in web.drones.values():
                    await drone.begun.wait()
                    drone.cut()
                    await drone.returned.wait()
                    assert drone.hold is not None
                    drone.hold.set()

            cutting = asyncio.create_task(cut())
            await all_of(run)
            await cutting
            assert states(run) == {"web1": "done", "web2": "failed"}
            assert run.results["web2"].error.endswith("; no port")
            assert [drone.release for drone in web.drones.values()] == ["2", "1"]

    wait(main())


@pytest.mark.parametrize("verb", ["stop", "restart", "rollback", "rollback 2"])
@pytest.mark.parametrize("fails", [False, True])
def test_cut_in_the_middle_of(verb: str, fails: bool, tmp_path: Path) -> None:
    """Whatever was going on when the connection broke, its end is known."""
    name, _, to = verb.partition(" ")

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            drone = web["web1"]
            await all_of(web.run(start()))
            if to:
                drone.release = "3"
            begun = drone.release

            async def script(
                words: list[str], said: str
            ) -> tuple[int, str, str] | None:
                if fails and words[1] == name:
                    drone.begun.set()
                    assert drone.hold is not None
                    await drone.hold.wait()
                    return 1, "", ""
                return None

            drone.hold, drone.script = asyncio.Event(), script
            drone.begun.clear()
            drone.returned.clear()
            actions: dict[str, Action] = {}
            actions |= {"stop": Stop(PLACE), "restart": Restart(PLACE)}
            run = web.run(actions.get(name, Rollback(PLACE, to or None)))

            async def cut() -> None:
                await drone.begun.wait()
                drone.cut()
                await drone.returned.wait()
                assert drone.hold is not None
                drone.hold.set()

            cutting = asyncio.create_task(cut())
            await all_of(run)
            await cutting
            found = run.results["web1"]
            assert drone.verbs(name) == [name]
            assert found.state == ("failed" if fails else "done"), found
            assert found.release == (drone.release if drone.running else None)
            if fails:
                assert found.error.endswith(f"; {begun} runs")
            else:
                assert drone.running == (name != "stop")
                assert begun == {"stop": "2", "restart": "2"}.get(name, found.before)

    wait(main())


def test_another_one_in_a_cut(tmp_path: Path) -> None:
    """What another deployer has started meanwhile is not taken for ours."""

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            drone = web["web1"]
            run = web.run(start())

            async def script(
                words: list[str], said: str
            ) -> tuple[int, str, str] | None:
                if words[1] == "start":
                    drone.release, drone.digest, drone.boots = "7", "cd" * 32, 1
                    drone.cut()
                return None if words[1] == "status" else (1, "", "")

            drone.script = script
            await all_of(run)
            found = run.results["web1"]
            assert (found.state, found.release) == ("failed", "7")
            assert found.error.endswith("; 7 runs")

    wait(main())


def test_cut_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drone that cannot be reached again is unclear, and that is said."""
    monkeypatch.setattr(_visit, "PATIENCE", 3.0)

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            drone = web["web1"]
            drone.hold = asyncio.Event()
            run = web.run(Stop(PLACE))

            async def cut() -> None:
                await drone.begun.wait()
                assert drone.server is not None
                drone.server.close()
                drone.cut()

            cutting = asyncio.create_task(cut())
            await all_of(run)
            await cutting
            found = run.results["web1"]
            assert found.state == "unclear"
            assert "; what has become of it cannot be found out: cannot" in found.error
            drone.hold.set()

    wait(main())


def test_the_way_back_survives_a_cut(tmp_path: Path) -> None:
    """Who was changed goes back, though its connection broke while it waited."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:
            web["web2"].hold = asyncio.Event()
            web["web2"].fail_start = "no\n"
            run = web.run(start(), Strategy(batch=1))

            async def cut() -> None:
                await web["web2"].begun.wait()
                web["web1"].cut()
                web["web2"].hold.set()  # type: ignore[union-attr]

            cutting = asyncio.create_task(cut())
            await all_of(run)
            await cutting
            assert states(run) == {"web1": "undone", "web2": "failed"}
            assert web["web1"].release == "1"
            assert web["web1"].connected == 2

    wait(main())


def test_a_drone_that_cannot_go_back_is_unclear(tmp_path: Path) -> None:
    """What fails while it is taken back is said, and is not called undone."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:

            async def script(
                words: list[str], said: str
            ) -> tuple[int, str, str] | None:
                refused = '{"ok": false, "step": "activate", "error": "disk full"}'
                return (19, refused, "") if "rollback" in words else None

            web["web1"].script = script
            web["web2"].fail_start = "no\n"
            run = web.run(start(), Strategy(batch=1))
            await all_of(run)
            assert states(run) == {"web1": "unclear", "web2": "failed"}
            assert (
                run.results["web1"].error
                == "cannot be taken back: disk full; 2 runs now"
            )

    wait(main())


def test_other_verbs(tmp_path: Path) -> None:
    """Stop, restart and rollback, each what its name says."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:
            await all_of(web.run(start()))
            await all_of(run := web.run(Restart(PLACE)))
            assert states(run) == {"web1": "done", "web2": "done"}
            await all_of(run := web.run(Rollback(PLACE)))
            assert run.results["web1"].before == "2"
            assert run.results["web1"].release == "1"
            await all_of(run := web.run(Rollback(PLACE, "2")))
            assert [drone.release for drone in web.drones.values()] == ["2", "2"]
            web["web2"].release = None
            await all_of(run := web.run(Stop(PLACE)))
            assert states(run) == {"web1": "done", "web2": "done"}
            assert run.results["web1"].changed
            assert not run.results["web2"].changed
            assert web["web2"].verbs("stop") == []

    wait(main())


@pytest.mark.parametrize("wait_for", [0.0, PATIENCE])
def test_another_solenoid_at_work(wait_for: float, tmp_path: Path) -> None:
    """One that holds the run directory is waited for, if that is wanted."""

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            at_work = ["pid 7"]

            async def script(
                words: list[str], said: str
            ) -> tuple[int, str, str] | None:
                if words[1] == "stop" and at_work:
                    why = f"another solenoid is at work ({at_work.pop()})"
                    refused = {"ok": False, "step": "lock", "error": why}
                    return 23, json.dumps(refused), ""
                return None

            web["web1"].script = script
            place = Place("/run/shop", solenoid=("solenoid",), wait=wait_for)
            await all_of(run := web.run(Stop(place)))
            found = run.results["web1"]
            assert found.state == ("done" if wait_for else "failed")
            if not wait_for:
                assert found.step == "lock"
                assert found.error == "another solenoid is at work (pid 7)"
                assert found.release == "1"

    wait(main())


def test_command(tmp_path: Path) -> None:
    """Any command; its status and its words are the result."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:

            async def script(words: list[str], said: str) -> tuple[int, str, str]:
                return 3, said.upper(), "bad"

            web["web2"].script = script
            run = web.run(Command(["greet", "a b"], input=b"hello"))
            await all_of(run)
            assert states(run) == {"web1": "done", "web2": "failed"}
            assert run.results["web2"].error == "greet: status 3"
            assert run.results["web2"].output == "HELLO\nbad"

    wait(main())


def test_no_more_than_so_many(tmp_path: Path) -> None:
    """At most `parallel` drones are in the middle of something."""

    async def main() -> None:
        async with field(tmp_path) as web:
            now: set[str] = set()
            most = 0

            async def script(words: list[str], said: str) -> tuple[int, str, str]:
                nonlocal most
                now.add(words[1])
                most = max(most, len(now))
                await asyncio.sleep(0.02)
                now.discard(words[1])
                return 0, "", ""

            for drone in web.drones.values():
                drone.script = script
            drones = [drone.drone() for drone in web.drones.values()]
            run = Run(
                drones,
                Command(["greet", "you"]),
                Strategy(),
                connect=web.connect,
                parallel=2,
            )
            results = await all_of(run)
            assert len(results) == 6
            assert sum(bool(drone.asked) for drone in web.drones.values()) == 6

    wait(main())


@pytest.mark.parametrize("drones", [0, 1])
def test_hardly_any(tmp_path: Path, drones: int) -> None:
    """None, or one, are no special cases."""

    async def main() -> None:
        async with field(tmp_path, "web1") as web:
            if not drones:
                web.drones.clear()
            run = web.run(start(), Strategy(canary=3, batch="50%"))
            assert len(await all_of(run)) == drones

    wait(main())


def test_hooks_that_fail(tmp_path: Path) -> None:
    """A hook before it keeps a drone as it is; one after it is only told."""

    async def main() -> None:
        async with field(tmp_path, "web1", "web2") as web:
            before = "test $SOLENOID_DRONE = web1 || exit 4"
            action = Hooked(start(), before, "exit 5", {})
            await all_of(run := web.run(action))
            assert states(run) == {"web1": "done", "web2": "failed"}
            told = "the hook after-each ended with status 5: exit 5"
            assert run.results["web1"].error == told
            assert run.results["web2"].step == "before-each"
            assert [drone.release for drone in web.drones.values()] == ["2", "1"]
            # Going back is not for a hook to prevent, nor what failed for it to hide.
            web["web2"].fail_start = "no\n"
            undoing = "test $(cat count | wc -l) -lt 2 && echo >> count"
            action = Hooked(start(), f"cd {tmp_path}; {undoing}", "exit 5", {})
            (tmp_path / "count").touch()
            await all_of(run := web.run(action, Strategy(batch=1)))
            assert states(run) == {"web1": "undone", "web2": "failed"}
            assert run.results["web2"].step == "start"
            assert run.results["web2"].error == "no port within 15 s"
            assert [drone.release for drone in web.drones.values()] == ["2", "1"]

    wait(main())


def test_a_probe_that_fails_and_no_way_back(tmp_path: Path) -> None:
    """Who is not well and cannot go back either is not told to be as before."""

    async def main() -> None:
        async with field(tmp_path, "web1") as web, app(500) as ill:

            async def script(
                words: list[str], said: str
            ) -> tuple[int, str, str] | None:
                refused = '{"ok": false, "step": "activate", "error": "disk full"}'
                return (19, refused, "") if "rollback" in words else None

            web["web1"].app_port, web["web1"].script = ill, script
            run = web.run(start(probe=Probe("/", timeout=0)))
            await all_of(run)
            found = run.results["web1"]
            assert found.state == "unclear"
            assert found.error.endswith(
                "500 Said; and it cannot be taken back: disk full"
            )

    wait(main())


def test_abandoned_before_anything(tmp_path: Path) -> None:
    """Who leaves before the first step of all is not waited for."""

    async def main() -> None:
        async with field(tmp_path) as web:
            run = web.run(start())
            results = asyncio.create_task(all_of(run))
            await asyncio.sleep(0)  # they are about to begin
            assert len(run.abandon()) == 6
            assert {result.state for result in await results} == {"failed"}
            assert not any(drone.asked for drone in web.drones.values())

    wait(main())
