# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""From a folder to three real drones, whatever comes between, and what runs then."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import solenoid
from solenoid import drones
from solenoid.drones.remote.lock import is_busy
from tests.conftest import PATIENCE, ROOT
from tests.proxy import Proxy
from tests.solenoid.conftest import BUCKET
from tests.solenoid.drone import SERVER, ask
from tests.solenoid.drones.operator import OPTIONS
from tests.solenoid.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.solenoid.drones.operator import Operator
    from tests.solenoid.servers import S3Server, WebServer

NAMES = ("web1", "web2", "web3")
ALL_ONE, ALL_TWO = dict.fromkeys(NAMES, "1.0.0"), dict.fromkeys(NAMES, "2.0.0")
# Breaks on one of the drones, which its folder tells.
BREAKS_ON_WEB2 = (
    "if (process.cwd().includes('/web2/')) {"
    " console.log('no database here'); process.exit(7); }\n" + SERVER
)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Wait for what nobody announces."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.05)


def store_in(server: S3Server, operator: Operator) -> str:
    """Have the operator's configuration name a storage; return the secret in it."""
    storage = {"provider": "amazon", **server.options, "container": BUCKET}
    config = operator.folder / "operator" / ".solenoidconf"
    config.write_text(json.dumps({"storage": storage}))
    return str(server.options["key"])


def slow(seconds: float) -> str:
    """Return a server that takes its time to listen."""
    return f"setTimeout(() => {{ {SERVER} }}, {seconds * 1000});\n"


def test_from_a_storage(operator: Operator, rclone: S3Server) -> None:
    """Packed, stored, started: by a signed URL, and credentials are on no drone."""
    secret = store_in(rclone, operator)
    (operator.folder / "env").write_text("TOKEN=very-secret\n")
    found = operator.deploy("--env-file", "env", "--probe", "/")
    assert {line["state"] for line in found.values()} == {"done"}
    assert operator.versions() == ALL_ONE
    (release,) = {line["release"] for line in found.values()}
    for name in NAMES:
        record = operator.run_dir(name) / "releases" / f"{release}.json"
        known = json.loads(record.read_text())
        assert (known["app_user"], known["app_name"]) == ("alice", "shop")
        assert known["source"].startswith(rclone.endpoint)
        assert "Signature" not in known["source"]
        assert known["sha256"]
        environ = ask(operator.status()[name]["start"])["env"]
        assert environ["TOKEN"] == "very-secret"
    held = [operator.place, operator.bases]
    held += [server.folder for server in operator.drones.values()]
    for folder in held:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                assert secret.encode() not in data, path
                assert b"X-Amz-Signature" not in data, path
                if not path.name.startswith("environ."):
                    assert b"very-secret" not in data, path


def test_from_a_storage_that_signs_nothing(operator: Operator, web: WebServer) -> None:
    """What takes our own headers is asked for by us alone, and sent to the drones."""
    storage = {"url": f"{web.url}/apps", "headers": {"X-Token": "very-secret"}}
    config = operator.folder / "operator" / ".solenoidconf"
    config.write_text(json.dumps({"storage": storage}))
    operator.deploy()
    assert operator.versions() == ALL_ONE
    assert "/apps/alice-shop-1.0.0.tgz" in web.objects
    operator.results("stop", "-a", "shop")
    ended = operator.run("start", "-a", "shop", "-v", "1.0.0")
    assert ended.returncode == 0, ended.stderr
    assert "alice-shop-1.0.0.tgz themselves: it is sent to them" in ended.stderr
    assert operator.versions() == ALL_ONE
    # The same storage, named by the inventory.
    operator.write(f'storage = "{web.url}/apps"')
    operator.results("start", "-a", "shop", "-v", "1.0.0")
    assert {headers.get("x-token") for _, _, headers in web.requests} == {"very-secret"}
    with pytest.raises(solenoid.SolenoidError, match="takes credentials, which stay"):
        asyncio.run(
            drones.Stored.of(f"{web.url}/apps/a.tgz", {"headers": {"X-Token": "t"}})
        )


def test_one_dead_one_refuses(operator: Operator) -> None:
    """A dead drone and one that refuses our key cost the third nothing; and a retry."""
    operator.ports["web1"] = free_port()
    operator.write()
    keys = operator.keys("web2")
    known = keys.read_text()
    keys.write_text("")
    ended = operator.run("deploy", str(operator.app))
    assert ended.returncode == 30
    table = {line.split()[0]: line for line in ended.stdout.splitlines()}
    assert "failed" in table["web1"]
    assert "connect" in table["web1"]
    assert "failed" in table["web2"]
    assert "done" in table["web3"]
    assert "1 done, 2 failed" in ended.stderr
    assert "--retry-failed" in ended.stderr
    before = operator.drones["web3"].log.read_text()
    keys.write_text(known)
    operator.ports.clear()
    operator.write()
    found = operator.deploy("--retry-failed")
    assert set(found) == {"web1", "web2"}
    assert operator.drones["web3"].log.read_text() == before
    assert operator.versions() == ALL_ONE


def test_one_fails_its_gate(operator: Operator, moto: S3Server) -> None:
    """The second drone's app does not start: the first goes back, no other begins."""
    store_in(moto, operator)
    operator.deploy()
    operator.version("2.0.0", BREAKS_ON_WEB2)
    found = operator.deploy("--canary", "1", "--batch", "1", status=31)
    states = {name: line["state"] for name, line in found.items()}
    assert states == {"web1": "undone", "web2": "failed", "web3": "untouched"}
    assert found["web2"]["output"] == "no database here\n"
    assert found["web2"]["step"] == "start"
    assert found["web2"]["blame"] == "user"
    assert operator.versions() == ALL_ONE
    assert operator.summary["stopped"] == "1 failed, and none may"
    # Without batches each is for itself.
    found = operator.deploy(status=30)
    assert operator.versions() == {**ALL_TWO, "web2": "1.0.0"}
    assert found["web2"]["state"] == "failed"


@pytest.mark.parametrize(
    ("ill", "why"),
    [
        ("response.statusCode = 503;", "503"),
        # A digit that is no number.
        (
            "return request.socket.end("
            "Buffer.from('HTTP/1.1 \\u00b200 OK\\r\\n\\r\\n', 'latin1'));",
            "no HTTP answer",
        ),
    ],
    ids=["503", "nonsense"],
)
def test_one_fails_its_probe(operator: Operator, ill: str, why: str) -> None:
    """An app that starts and is not well gives way to the one before."""
    operator.deploy()
    ill = SERVER.replace(
        "response.end(",
        f"if (process.cwd().includes('/web2/')) {{ {ill} }} response.end(",
    )
    operator.version("2.0.0", ill)
    found = operator.deploy("--probe", "/", "--probe-for", "0s", status=30)
    assert found["web2"]["state"] == "failed"
    assert found["web2"]["step"] == "probe"
    assert why in found["web2"]["error"]
    assert operator.versions() == {**ALL_TWO, "web2": "1.0.0"}


def put_between(operator: Operator, name: str, proxy: Proxy) -> None:
    """Have the way to a drone lead through a proxy."""
    operator.ports[name] = proxy.port
    operator.write()
    key = operator.drones[name].public_key
    with operator.fleet.known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{proxy.port} {key}\n")


def test_cut_in_the_start(operator: Operator) -> None:
    """A connection that breaks in the middle of a start is made and locked anew."""
    operator.deploy()
    operator.version("2.0.0", slow(2))
    with Proxy(operator.drones["web2"].port) as proxy:
        put_between(operator, "web2", proxy)
        with operator.popen("deploy", str(operator.app), "--json") as child:
            place = operator.run_dir("web2") / "releases"
            wait_until(lambda: len(started(place)) > 1, "start")
            proxy.reset()
            out, err = child.communicate(timeout=2 * PATIENCE)
        assert child.returncode == 0, err + out
        assert operator.versions() == ALL_TWO


def test_cut_in_whatever(operator: Operator) -> None:
    """What is cut off in the middle is brought to its end, and that is found out."""
    lazy = "process.on('SIGTERM', () => setTimeout(process.exit, 1500, 0));\n" + slow(1)
    operator.version("1.0.0", lazy)
    operator.deploy()
    operator.version("2.0.0", lazy)
    operator.deploy()
    run_dir = str(operator.run_dir("web2"))
    with Proxy(operator.drones["web2"].port) as proxy:
        put_between(operator, "web2", proxy)
        for verb, version in (
            ("rollback", "1.0.0"),
            ("restart", "1.0.0"),
            ("stop", None),
        ):
            with operator.popen(verb, "-a", "shop", "--json") as child:
                wait_until(lambda: is_busy(run_dir), verb)
                made = proxy.made
                proxy.reset()
                out, err = child.communicate(timeout=2 * PATIENCE)
            assert child.returncode == 0, err + out
            assert proxy.made > made
            assert operator.versions() == dict.fromkeys(NAMES, version)


def test_cut_before_going_back(operator: Operator) -> None:
    """Who waits to be told goes back, though its connection and lock were lost."""
    operator.deploy()
    operator.version("2.0.0", slow(2) + BREAKS_ON_WEB2.partition("\n")[0])
    with Proxy(operator.drones["web1"].port) as proxy:
        put_between(operator, "web1", proxy)
        words = (str(operator.app), "--batch", "1", "--json")
        with operator.popen("deploy", *words) as child:
            place = operator.run_dir("web2") / "releases"
            wait_until(lambda: len(started(place)) > 1, "start")
            proxy.reset()
            out, err = child.communicate(timeout=2 * PATIENCE)
        assert child.returncode == 31, err + out
        assert "[2/3] web1: undone" in err
        assert operator.versions() == ALL_ONE


def test_cut_in_the_transfer(operator: Operator) -> None:
    """A connection that breaks in the middle of the snapshot leaves nothing behind."""
    operator.deploy()
    (operator.app / "picture").write_bytes(os.urandom(3_000_000))
    operator.version("2.0.0")
    with Proxy(operator.drones["web2"].port) as proxy:
        put_between(operator, "web2", proxy)
        proxy.cut("reset", 1_500_000)
        found = operator.deploy(status=30)
        assert found["web2"]["state"] == "failed"
        assert found["web2"]["step"] == "send"
        assert proxy.cuts_left == 0
        assert operator.versions() == {**ALL_TWO, "web2": "1.0.0"}
        incoming = operator.run_dir("web2") / ".incoming"
        wait_until(
            lambda: not any(incoming.iterdir()), f"end of {list(incoming.iterdir())}"
        )
        assert set(operator.deploy("--retry-failed")) == {"web2"}
        assert operator.versions() == ALL_TWO
    for name in NAMES:
        assert not any((operator.run_dir(name) / ".incoming").iterdir())


def test_killed_deployer(operator: Operator) -> None:
    """SIGKILL in the middle: each drone has the one or the other; the next goes on."""
    operator.deploy()
    operator.version("2.0.0", slow(3))
    with operator.popen("deploy", str(operator.app)) as child:
        # The new release is being started, on one drone at least.
        places = [operator.run_dir(name) / "releases" for name in NAMES]
        wait_until(lambda: any(len(started(place)) > 1 for place in places), "start")
        child.kill()
    for name in NAMES:
        wait_until(lambda name=name: settled(operator, name), f"end on {name}")  # type: ignore[misc]
    assert set(operator.versions().values()) <= {"1.0.0", "2.0.0"}
    operator.version("3.0.0")
    found = operator.deploy("--retry-failed", "--wait", "2m")
    assert set(found) == set(NAMES)
    assert operator.versions() == dict.fromkeys(NAMES, "3.0.0")


def started(releases: Path) -> list[Path]:
    """Return the releases that have been started, or are about to be."""
    return list(releases.glob("*/aeternum.state"))


def settled(operator: Operator, name: str) -> bool:
    """Say whether the app runs on a drone, and no solenoid is at work there."""
    import fcntl

    with (operator.run_dir(name) / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return operator.versions([name])[name] is not None


def test_rollback(operator: Operator) -> None:
    """Back to the release before, on all drones, without fetching anything."""
    operator.deploy()
    operator.version("2.0.0")
    operator.deploy()
    assert operator.versions() == ALL_TWO
    found = operator.results("rollback", "-a", "shop")
    assert operator.versions() == ALL_ONE
    assert {line["state"] for line in found.values()} == {"done"}
    operator.results("rollback", "2.0.0", "-a", "shop")
    assert operator.versions() == ALL_TWO
    operator.results("restart", "-a", "shop", "--batch", "1", "--probe", "/")
    assert operator.versions() == ALL_TWO
    operator.results("stop", "-a", "shop")
    assert operator.versions() == dict.fromkeys(NAMES)


def test_start_what_is_there(operator: Operator) -> None:
    """After a stop the current release starts as it was, and nothing is sent."""
    variables = operator.folder / "shop.env"
    variables.write_text("NAME=one\n")
    operator.deploy("--env-file", str(variables))
    deployed = operator.status()
    operator.results("stop", "-a", "shop")
    found = operator.results("start", "-a", "shop", "--probe", "/")
    assert operator.versions() == ALL_ONE
    for name, status in operator.status().items():
        assert found[name]["release"] == status["release"] == deployed[name]["release"]
        assert ask(status["start"])["env"]["NAME"] == "one"
    nowhere = ("-a", "shop", "--run-dir", str(operator.place / "{drone}" / "typo"))
    none = operator.results("start", *nowhere, status=31)
    assert {line["step"] for line in none.values()} == {"find"}
    assert not list(operator.place.glob("*/typo"))


def test_upgrade(operator: Operator) -> None:
    """Another solenoid leaves apps alone until they are restarted, which upgrades."""
    operator.deploy()
    keepers = {name: line["keeper"] for name, line in operator.status().items()}
    operator.results("restart", "-a", "shop")
    again = {name: line["keeper"] for name, line in operator.status().items()}
    assert again == keepers
    newer = operator.folder / "newer"
    for package in ("forza", "solenoid"):
        shutil.copytree(ROOT / package, newer / package)
    with (newer / "solenoid" / "__init__.py").open("a") as file:
        file.write("# newer\n")
    operator.environ["PYTHONPATH"] = str(newer)
    operator.results("rollback", "9.9.9", "-a", "shop", status=31)
    assert {line["keeper"] for line in operator.status().values()} == {
        *keepers.values()
    }
    operator.results("restart", "-a", "shop")
    assert operator.versions() == ALL_ONE
    for name, line in operator.status().items():
        assert line["keeper"] != keepers[name]
        current = operator.bases / name / "current"
        program = os.readlink(f"/proc/{line['keeper']}/exe")
        words = Path(f"/proc/{line['keeper']}/cmdline").read_text()
        assert str(current.resolve()) in program + words


def test_audit(operator: Operator) -> None:
    """What was done is written down on each drone: who, what, how it went."""
    operator.deploy()
    operator.version("2.0.0", BREAKS_ON_WEB2)
    operator.deploy(status=30)
    for name in NAMES:
        path = operator.bases / name / "audit.log"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        done = [line for line in lines if line["what"] == "deploy"][-2:]
        results = [line["result"] for line in done]
        assert results == ["done", "failed" if name == "web2" else "done"]


@pytest.mark.parametrize("status", [0, 3])
def test_hooks(operator: Operator, status: int) -> None:
    """Commands of the operator's own, before and after, know what it is about."""
    # Those of several drones run at once: a file for each.
    notes = operator.folder / "notes"
    notes.mkdir()
    note = f"env | grep ^SOLENOID_ > {notes}/$$"
    before = f"{note}; exit {status}"
    ended = operator.run(
        *("deploy", str(operator.app), "--before", before, "--after", note),
        *("--before-each", f"{note}; test $SOLENOID_DRONE != web2"),
        *("--after-each", note),
    )
    told = [
        dict(line.split("=", 1) for line in path.read_text().splitlines())
        for path in notes.iterdir()
    ]
    (first,) = (one for one in told if one["SOLENOID_HOOK"] == "before")
    assert first["SOLENOID_DRONES"] == "web1 web2 web3"
    assert first["SOLENOID_APP"] == "shop"
    if status:
        assert ended.returncode == 34
        assert "the hook before ended with status 3" in ended.stderr
        assert len(told) == 1
        assert operator.versions() == dict.fromkeys(NAMES)
        return
    assert ended.returncode == 30, ended.stderr
    each = [one for one in told if "SOLENOID_DRONE" in one]
    outcomes = {
        one["SOLENOID_DRONE"]: one["SOLENOID_OUTCOME"]
        for one in each
        if one["SOLENOID_HOOK"] == "after-each"
    }
    assert outcomes == {"web1": "done", "web3": "done"}
    (last,) = (one for one in told if one["SOLENOID_HOOK"] == "after")
    assert last["SOLENOID_OUTCOME"] == "some"
    assert last["SOLENOID_FAILED"] == "web2"
    assert operator.versions() == {"web1": "1.0.0", "web2": None, "web3": "1.0.0"}


def test_settings_of_the_inventory(operator: Operator) -> None:
    """What the inventory says of an app holds, unless the command line differs."""
    operator.write("batch = 1", 'probe = "/"', 'start = ["--min-uptime", "0"]')
    operator.version("2.0.0", BREAKS_ON_WEB2)
    found = operator.deploy(status=31)
    assert [found[name]["state"] for name in NAMES] == ["undone", "failed", "untouched"]
    assert operator.versions() == dict.fromkeys(NAMES)
    found = operator.deploy("--batch", "100%", status=30)
    assert [found[name]["state"] for name in NAMES] == ["done", "failed", "done"]
    known = (
        "name, user, version, storage, run_dir, env_file, probe, drones, canary, batch,"
        " pause, max_fail, start"
    )
    for line, why in (
        ("batches = 1", f"apps.shop.batches is not one of {known}"),
        ('batch = "many"', "apps.shop.batch: 'many' is neither a number nor"),
        ("canary = -1", "apps.shop.canary: canary is a number of drones, 0 or more"),
        ('pause = "soon"', "apps.shop.pause: no time such as 90s"),
        ('start = "fast"', "apps.shop.start is not a list of options"),
    ):
        operator.write(line)
        ended = operator.run("deploy", str(operator.app))
        assert ended.returncode == 33, ended.stderr
        assert why in ended.stderr
    operator.write()


def test_no_such_app(operator: Operator) -> None:
    """A command that finds no app makes nothing, not even solenoid, on a drone."""
    words = ("-a", "shop", "--run-dir", str(operator.place / "{drone}" / "typo"))
    before = {path: [*path.iterdir()] for path in (operator.place, operator.bases)}
    bases = {base: [*base.iterdir()] for base in operator.bases.iterdir()}
    for verb, status in (("rollback", 31), ("restart", 31), ("stop", 0)):
        found = operator.results(verb, *words, status=status)
        for name in NAMES:
            why = f"there is no app in {operator.place / name / 'typo'}"
            assert found[name]["error"] == why
            assert found[name]["changed"] is False
    ended = operator.run("break-lock", *words)
    assert ended.returncode == 0
    assert {path: [*path.iterdir()] for path in before} == before
    assert {base: [*base.iterdir()] for base in bases} == bases


def test_example(operator: Operator) -> None:
    """The library's example does the same."""
    archive = operator.folder / "shop.tgz"
    pack = [sys.executable, "-m", "solenoid", "pack", str(operator.app)]
    pack += ["-o", str(archive)]
    subprocess.run(pack, env=operator.environ, check=True, capture_output=True)
    example = ROOT / "examples" / "deploy_to_drones.py"
    command = [sys.executable, str(example), str(operator.inventory), str(archive)]
    ended = subprocess.run(
        [*command, *OPTIONS],
        env=operator.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(line.split()[:2] for line in ended.stdout.splitlines()) == [
        [f"{name}:", "done"] for name in NAMES
    ]
    assert operator.versions() == ALL_ONE
