# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Download, go back, make room and clean up, by the program and real apps."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import BROKEN, Drone, ask, event_of, lives, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def releases(drone: Drone) -> list[dict[str, Any]]:
    """Return what `releases --json` says."""
    ended = drone.run("releases", "--json")
    assert ended.returncode == 0, ended.stderr
    found: list[dict[str, Any]] = json.loads(ended.stdout)["releases"]
    return found


def test_rollback(drone: Drone, place: Path) -> None:
    """To the last that was good, with the variables it had; twice is one further."""
    drone.start(snapshot(place / "a.tgz", "1.0.0"), "-e", '{"NAME": "one"}')
    drone.start(snapshot(place / "b.tgz", "1.1.0"), "-e", '{"NAME": "two"}')
    broken = str(snapshot(place / "c.tgz", "1.2.0", BROKEN))
    assert drone.run("start", "--from", broken).returncode == 22
    newest = drone.start(snapshot(place / "d.tgz", "1.3.0"))
    (place / "b.tgz").unlink()

    back = drone.run("rollback")
    assert back.returncode == 0, back.stderr
    said = ask(event_of(back))
    assert (said["version"], said["env"]["NAME"]) == ("1.1.0", "two")
    assert "going back to release 1.1.0-" in back.stderr
    assert not lives(newest["meta"]["pid"])
    assert drone.status()["version"] == "1.1.0"
    found = releases(drone)
    assert [release["version"] for release in found if release["current"]] == ["1.1.0"]
    assert [r["version"] for r in found] == ["1.3.0", "1.2.0", "1.1.0", "1.0.0"]
    assert "status 1" in found[1]["failed"]

    further = drone.run("rollback", "--json")
    assert ask(event_of(further))["env"]["NAME"] == "one"
    nothing = drone.run("rollback")
    assert nothing.returncode == 25
    assert "no other release before 1.0.0-" in nothing.stderr
    assert ask(event_of(further))["version"] == "1.0.0"  # and it was left alone

    forward = drone.run("rollback", "1.3.0")
    assert ask(event_of(forward))["version"] == "1.3.0"
    unknown = drone.run("rollback", "2.0.0", "--json")
    assert unknown.returncode == 25
    told = json.loads(unknown.stdout)
    assert (told["ok"], told["step"]) == (False, "find")
    assert f"{found[0]['id']}, {found[1]['id']}" in told["error"]


def test_rollback_from_what_was_deployed_again(drone: Drone, place: Path) -> None:
    """To another snapshot, or the same with other variables; and those are kept."""
    drone.start(snapshot(place / "a.tgz", "1.0.0"))
    same = snapshot(place / "b.tgz", "1.1.0")
    drone.start(same, "-e", '{"NAME": "one"}')
    for _ in range(3):
        drone.start(same, "-e", '{"NAME": "two"}', "--keep", "2")
    assert [r["version"] for r in releases(drone)] == ["1.1.0"] * 3

    back = drone.run("rollback")
    assert back.returncode == 0, back.stderr
    said = ask(event_of(back))
    assert (said["version"], said["env"]["NAME"]) == ("1.1.0", "one")


def test_rollback_past_what_was_deployed_again(drone: Drone, place: Path) -> None:
    """The same snapshot anew is nothing to go back to, however often it was sent."""
    drone.start(snapshot(place / "a.tgz", "1.0.0"))
    same = snapshot(place / "b.tgz", "1.1.0")
    for _ in range(3):
        drone.start(same, "--keep", "2")
    assert [r["version"] for r in releases(drone)] == ["1.1.0", "1.1.0", "1.0.0"]

    back = drone.run("rollback")
    assert back.returncode == 0, back.stderr
    assert ask(event_of(back))["version"] == "1.0.0"


def test_rollback_to_what_does_not_start(drone: Drone, place: Path) -> None:
    """Then the current one runs on."""
    broken = str(snapshot(place / "a.tgz", "1.0.0", BROKEN))
    assert drone.run("start", "--from", broken).returncode == 21
    drone.start(snapshot(place / "b.tgz", "1.1.0"))
    back = drone.run("rollback", "1.0.0")
    assert back.returncode == 22, back.stderr
    status = drone.status()
    assert (status["running"], status["version"]) == (True, "1.1.0")
    assert ask(status["start"])["version"] == "1.1.0"


def test_download(drone: Drone, place: Path) -> None:
    """It brings a release, and what runs goes on; `start` finds it by its version."""
    running = drone.start(snapshot(place / "a.tgz", "1.0.0"))
    url = str(snapshot(place / "alice-shop-2.0.0.tgz", "1.1.0"))
    names = ("-u", "alice", "-a", "shop", "-v", "2.0.0")
    brought = drone.run("download", "--from", url, *names)
    assert brought.returncode == 0, brought.stderr
    name = brought.stdout.strip()
    assert name.startswith("2.0.0-")
    assert ask(running)["version"] == "1.0.0"
    newest = releases(drone)[0]
    assert (newest["id"], newest["current"]) == (name, False)
    started = drone.run("start", *names, "-t", "100")
    assert started.returncode == 0, started.stderr
    assert event_of(started)["meta"]["app"]["user"] == "alice"
    assert ask(event_of(started))["version"] == "1.1.0"


def test_download_by_the_configuration(drone: Drone, place: Path) -> None:
    """The contract's way: -u, -a, -v and the configured storage."""
    (place / "store").mkdir()
    snapshot(place / "store" / "alice-shop-1.0.0.tgz")
    conf = place / "conf"
    conf.write_text(json.dumps({"storage": {"url": f"file:{place}/store"}}))
    words = ("-u", "alice", "-a", "shop", "-v", "1.0.0", "--config", str(conf))
    brought = drone.run("download", *words, "--json")
    assert brought.returncode == 0, brought.stderr
    about = json.loads(brought.stdout)
    assert (about["app_user"], about["passed"]) == ("alice", None)
    assert about["path"] == str(drone.run_dir / "releases" / about["id"])
    missing = drone.run("download", "-u", "alice", "--config", str(conf))
    assert missing.returncode == 2
    assert "--app-version are needed" in missing.stderr
    absent = drone.run("download", *words[:4], "-v", "9", "--config", str(conf))
    assert absent.returncode == 12
    assert "no such file (blame: user)" in absent.stderr
    assert len(releases(drone)) == 1


def test_keep(drone: Drone, place: Path) -> None:
    """A start makes room for itself, but not of what there is to go back to."""
    for number in range(3):
        drone.start(snapshot(place / f"{number}.tgz", f"1.{number}.0"), "--keep", "0")
    assert [r["version"] for r in releases(drone)] == ["1.2.0", "1.1.0"]
    folders = {p.name for p in (drone.run_dir / "releases").iterdir() if p.is_dir()}
    assert len(folders) == 2
    assert drone.run("rollback").returncode == 0


def test_failures_make_room(drone: Drone, place: Path) -> None:
    """What never starts does not fill the disk, nor does it displace what is good."""
    drone.start(snapshot(place / "a.tgz", "1.0.0"))
    for number in range(3):
        broken = str(snapshot(place / "b.tgz", f"2.{number}.0", BROKEN))
        assert drone.run("start", "--from", broken, "--keep", "2").returncode == 22
    assert [r["version"] for r in releases(drone)] == ["2.2.0", "2.1.0", "1.0.0"]
    assert drone.status()["version"] == "1.0.0"


def test_clean(drone: Drone, place: Path) -> None:
    """Nothing of the app is left; what is not its own is, the user's others too."""
    user = drone.user.uid if drone.root else None
    event = drone.start(snapshot(place / "a.tgz"))
    pid = ask(event)["pid"]
    (drone.run_dir / "precious").touch()
    with subprocess.Popen(["sleep", "600"], user=user) as other:
        cleaned = drone.run("clean", "--json")
        assert cleaned.returncode == 0, cleaned.stderr
        assert len(json.loads(cleaned.stdout)["stopped"]) == 1
        assert other.poll() is None
        other.kill()
        other.wait(PATIENCE)
    assert not lives(pid)
    assert os.listdir(drone.run_dir) == ["precious"]
    assert f"left {drone.run_dir}/precious: it is not solenoid's" in cleaned.stderr
    (drone.run_dir / "precious").unlink()
    again = drone.run("clean")
    assert (again.returncode, "nothing to remove" in again.stderr) == (0, True)
    drone.start(snapshot(place / "a.tgz"))
    assert drone.run("clean").returncode == 0
    assert not drone.run_dir.exists()


def test_clean_and_a_deployer(one: Drone, place: Path) -> None:
    """What a deployer has left goes, too; one that is at work keeps what it needs."""
    one.start(snapshot(place / "a.tgz"))
    (one.run_dir / ".incoming").mkdir()
    (one.run_dir / ".incoming" / "a.tgz").touch()
    with working(one.run_dir):
        cleaned = one.run("clean")
        assert cleaned.returncode == 0, cleaned.stderr
        assert cleaned.stderr.count(": a deployer is at work\n") == 2
        assert sorted(os.listdir(one.run_dir)) == [".incoming", "deploy.lock"]
        assert (one.run_dir / ".incoming" / "a.tgz").exists()
    cleaned = one.run("clean")
    assert (cleaned.returncode, "removed the app" in cleaned.stderr) == (0, True)
    assert not one.run_dir.exists()


@contextlib.contextmanager
def working(run_dir: Path) -> Iterator[None]:
    """Be a deployer that has the lock."""
    program = (
        "import sys; from solenoid.drones.remote.lock import take\n"
        "lock = take(sys.argv[1])\n"
        "assert lock is not None\n"
        "print('taken', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run_dir)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"taken\n"
        yield
        child.communicate()


def test_clean_of_another_layout(drone: Drone) -> None:
    """The original's folders go, too; a folder that is not an app's stays as it is."""
    (drone.run_dir / "snapshot" / "package").mkdir(parents=True)
    (drone.run_dir / "snapshot.tgz").touch()
    if not drone.root:
        for path in (drone.run_dir, *drone.run_dir.rglob("*")):
            os.chown(path, drone.user.uid, drone.user.gid)
    assert drone.run("clean").returncode == 0
    assert not drone.run_dir.exists()
    drone.run_dir.mkdir()
    (drone.run_dir / "thesis").touch()
    assert drone.run("clean").returncode == 0
    assert os.listdir(drone.run_dir) == ["thesis"]


@pytest.mark.parametrize("words", [("rollback",), ("releases",), ("stop",)])
def test_no_app(drone: Drone, words: tuple[str, ...]) -> None:
    """Where there has never been one, it is said, and nothing is made."""
    ended = drone.run(*words)
    assert ended.returncode == 25
    assert ended.stderr == f"error: find: no app in {drone.run_dir}\n"
    assert not drone.run_dir.exists()
