# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Inventories: what they say, in three forms, and what is said of wrong ones."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from solenoid import drones

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = """
[defaults]
user = "deploy"
rack = 1

[drones]
web1 = "10.0.0.1"
web2 = "root@[fd00::2]:2222"
db = { host = "db.example.com", port = 22, rack = 3, sudo = false }

[groups.all-web]
drones = ["web1", "web2"]
sudo = true
python = "python3.12"
zone = "a"

[groups.first]
drones = ["web1"]
zone = "b"
base = "/srv/solenoid"

[apps.shop]
user = "alice"
version = "1.2.0"
storage = "s3://snapshots"
run_dir = "/opt/run/alice/shop"
env_file = "shop.env"
drones = ["all-web"]
probe = { path = "/health", timeout = 5, status = [200, 204] }
canary = 1
batch = "25%"

[apps.jobs]
user = "bob"
name = "worker"
probe = "/"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A TOML file that says all there is to say."""
    path = tmp_path / "drones.toml"
    path.write_text(EXAMPLE)
    return path


def test_toml(file: Path) -> None:
    """Defaults give way to groups, groups to later groups, and all to a drone's own."""
    inventory = drones.load(str(file))
    web1, web2, db = inventory.drones
    assert web1 == drones.Drone(
        *("web1", "10.0.0.1", None, "deploy", True, "python3.12", "/srv/solenoid"),
        variables={"rack": 1, "zone": "b"},
    )
    assert web2 == drones.Drone(
        *("web2", "fd00::2", 2222, "root", True, "python3.12", None),
        variables={"rack": 1, "zone": "a"},
    )
    assert db == drones.Drone(
        *("db", "db.example.com", 22, "deploy", False), variables={"rack": 3}
    )
    shop, jobs = inventory.apps["shop"], inventory.apps["jobs"]
    assert shop == drones.App(
        name="shop",
        user="alice",
        version="1.2.0",
        storage="s3://snapshots",
        run_dir="/opt/run/alice/shop",
        env_file=str(file.parent / "shop.env"),
        probe=drones.Probe("/health", None, 5.0, (200, 204)),
        drones=(web1, web2),
        options={"canary": 1, "batch": "25%"},
    )
    assert (jobs.name, jobs.user, jobs.probe) == ("worker", "bob", drones.Probe())
    assert jobs.drones == inventory.drones


def test_only(file: Path) -> None:
    """Drones and groups are named in any order; the order is the file's."""

    def names(*only: str) -> list[str]:
        return [drone.name for drone in drones.load(str(file), only).drones]

    assert names() == ["web1", "web2", "db"]
    assert names("db", "web1") == ["web1", "db"]
    assert names("first", "db", "web1") == ["web1", "db"]
    assert names("all-web") == ["web1", "web2"]
    # An app keeps its drones, whichever are asked for.
    assert len(drones.load(str(file), ["db"]).apps["shop"].drones) == 2
    with pytest.raises(
        drones.InventoryError, match="names neither a drone nor a group: web9"
    ):
        names("web1", "web9")


def test_a_list() -> None:
    """A list of hosts, with users and ports where these matter."""
    found = drones.load("web1, deploy@10.0.0.2:2222,[::1]:22,::1").drones
    assert [(d.name, d.user, d.host, d.port) for d in found] == [
        ("web1", None, "web1", None),
        ("deploy@10.0.0.2:2222", "deploy", "10.0.0.2", 2222),
        ("[::1]:22", None, "::1", 22),
        ("::1", None, "::1", None),
    ]
    assert [d.name for d in drones.load("web1,web2", ["web2"]).drones] == ["web2"]


def test_a_command(tmp_path: Path) -> None:
    """What a command prints is the same in JSON."""
    program = tmp_path / "inventory.py"
    document = {
        "drones": {"web1": "10.0.0.1", "web2": {"host": "10.0.0.2", "zone": "a"}},
        "groups": {"a": {"drones": ["web2"], "sudo": True}},
        "apps": {"shop": {"user": "alice", "env_file": "shop.env"}},
    }
    program.write_text(f"print({json.dumps(document)!r})")
    inventory = drones.load(f"!{sys.executable} '{program}' --list", ["a"])
    (web2,) = inventory.drones
    assert web2 == drones.Drone("web2", "10.0.0.2", sudo=True, variables={"zone": "a"})
    assert inventory.apps["shop"].env_file == "shop.env"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("drones = [", "is not TOML: "),
        ("hosts = {}", "hosts is not one of defaults, drones, groups, apps"),
        ("drones = 1", "drones is not a table"),
        ("[drones]\na = 1", "drones.a is not a table"),
        (
            "[drones]\na = 'b:c'",
            "drones.a cannot be understood: 'b:c': c is not",
        ),
        ("[drones]\na = ''", "drones.a cannot be understood: '' is not [user@]host"),
        ("[drones]\na = '-oX'", "drones.a cannot be understood: '-oX' is not"),
        ("[drones]\na = '@b'", "drones.a cannot be understood: '@b' has no user"),
        ("[drones]\na = 'b:'", "drones.a cannot be understood: 'b:' has no port"),
        ("[drones]\na = '[::1'", "drones.a cannot be understood: '[::1' is not"),
        ("[drones.a]\nport = 0", "drones.a.port is not a port (1 to 65535)"),
        ("[drones.a]\nport = true", "drones.a.port is not a port (1 to 65535)"),
        ("[drones.a]\nhost = ' '", "drones.a.host is not a string with something"),
        ("[drones.a]\nhost = 5", "drones.a.host is not a string with something in it"),
        ("[drones.a]\nsudo = 'yes'", "drones.a.sudo is neither true nor false"),
        ("[drones.a]\nbase = 'x'", "drones.a.base is not an absolute path"),
        ("[groups.g]\nx = 1", "groups.g.drones is missing"),
        ("[groups.g]\ndrones = 'a'", "groups.g.drones is not a list of names"),
        ("[groups.g]\ndrones = ['a']", "groups.g.drones has no such drone: a"),
        ("[drones]\ng = 'h'\n[groups.g]\ndrones = []", "groups.g has the name of a"),
        ("[apps.shop]", "apps.shop.user is missing"),
        ("[apps.shop]\nuser = ''", "apps.shop.user is not a string with something"),
        ("[apps.shop]\nuser = 'a'\nrun_dir = 'r'", "apps.shop.run_dir is not an abs"),
        ("[apps.shop]\nuser = 'a'\ndrones = ['w']", "apps.shop.drones names neither a"),
        ("[apps.shop]\nuser = 'a'\nprobe = 'x'", "apps.shop.probe.path does not"),
        ("[apps.shop]\nuser = 'a'\nprobe = {x = 1}", "apps.shop.probe.x is not known"),
        (
            "[apps.shop]\nuser = 'a'\nprobe = {port = 'x'}",
            "apps.shop.probe.port is",
        ),
        (
            "[apps.shop]\nuser='a'\nprobe={timeout = 0}",
            "apps.shop.probe.timeout is",
        ),
        ("[apps.shop]\nuser='a'\nprobe={timeout = 'x'}", "apps.shop.probe.timeout is"),
        ("[apps.shop]\nuser='a'\nprobe={status = 99}", "apps.shop.probe.status is nei"),
        (
            "[apps.shop]\nuser='a'\nprobe={status=[3]}",
            "apps.shop.probe.status is",
        ),
        (
            "[apps.shop]\nuser='a'\nprobe={status=true}",
            "apps.shop.probe.status is",
        ),
    ],
)
def test_what_is_wrong(tmp_path: Path, text: str, error: str) -> None:
    """One line names the file, the key and what is wrong with it."""
    path = tmp_path / "drones.toml"
    path.write_text(text)
    with pytest.raises(drones.InventoryError) as caught:
        drones.load(str(path))
    assert error in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.blame == "user"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    """Files and commands that fail are said to have."""
    missing = tmp_path / "none.toml"
    for source, error in {
        str(missing): f"cannot read {missing}: No such file",
        str(tmp_path / "other"): "cannot read ",
        "!": "! without a command",
        "!'": "cannot understand !'",
        "!no-such-program": "cannot run no-such-program: No such file",
        "!sh -c 'echo why >&2; exit 3'": "sh failed, status 3: why",
        "!echo hello": "echo did not print JSON",
        "!echo 1": "echo did not print a JSON object",
        "!echo '{\"drones\": 1}'": "drones is not a table",
        "web1,a:b": "drones.a:b cannot be understood",
        "": "--drones has no drones",
        ", ,": "has no drones",
        "!echo {}": "!echo {} has no drones",
    }.items():
        with pytest.raises(drones.InventoryError) as caught:
            drones.load(source)
        assert error in str(caught.value), source
        assert "\n" not in str(caught.value)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff")
    with pytest.raises(drones.InventoryError, match="is not TOML"):
        drones.load(str(binary))


def test_a_file_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like the name of a file is taken for no host, unless so written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(drones.InventoryError) as e:
        drones.load("drones.tml")
    assert str(e.value) == (
        "no such file: drones.tml; for a host of that name write drones.tml:22"
    )
    (tmp_path / "drones.toml").write_text('[drones]\nweb = "web.example"\n')
    with pytest.raises(drones.InventoryError, match=r"\(there is drones.toml\)"):
        drones.load("drones.tml")
    (tmp_path / "fleet.conf").write_text('[drones]\ndb = "db.example"\n')
    assert drones.load("fleet.conf").drones[0].name == "db"
    for host in ("drones.tml:22", "me@drones.tml", "drones.tml,web", "web.example.com"):
        assert (
            drones.load(host).drones[0].host
            == host.rpartition("@")[2].partition(":")[0].partition(",")[0]
        )
