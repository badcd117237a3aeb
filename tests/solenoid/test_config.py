# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read configurations as the original's, and say what is wrong with one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path

import pytest

import solenoid

ORIGINAL = {
    "storage": {
        "provider": "amazon",
        "keyId": "AKIA",
        "key": "canary-secret",
        "container": "snapshots",
    },
    "instruments": [{"host": "a.example"}, {"host": "::1", "port": 1337}],
    "runDir": "/srv/run",
    "engines": {"node": {"default": "0.10.x", "path": "/opt/engines/node"}},
    "minUptime": 5000,
    "retries": 3,
    "minDelay": 250,
}


def read(folder: Path, found: object) -> solenoid.Config:
    """Write a configuration and read it."""
    path = folder / "conf"
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return asyncio.run(solenoid.read_config(path))


def test_original(tmp_path: Path) -> None:
    """What was written for the original is understood, times in seconds."""
    config = read(tmp_path, ORIGINAL)
    assert config.storage is not None
    url = config.storage.snapshot("alice", "shop", "1.2.0+b 1")
    assert url == "s3://snapshots/alice-shop-1.2.0%2Bb%201.tgz"
    assert config.storage.options["key"] == "canary-secret"
    assert config.instruments == (
        solenoid.Instrument("a.example", 8556),
        solenoid.Instrument("::1", 1337),
    )
    assert config.run_dir == Path("/srv/run")
    node = solenoid.EngineSource(Path("/opt/engines/node"), "0.10.x")
    assert config.engines == {"node": node}
    assert (config.min_uptime, config.retries, config.min_delay) == (5.0, 3, 0.25)
    assert config.unknown == ()


def test_options_fit_the_storage(tmp_path: Path) -> None:
    """The options are ones that the storage takes."""
    storage = read(tmp_path, ORIGINAL).storage
    assert storage is not None
    from solenoid.storage import open_storage

    asyncio.run(open_storage(storage.base, storage.options).close())


def test_defaults(tmp_path: Path) -> None:
    """What is missing or null is the default; a lone object is a list of one."""
    assert read(tmp_path, {"runDir": None}) == solenoid.Config()
    assert solenoid.Config().run_dir == Path("/opt/run")
    one = read(tmp_path, {"instruments": {"host": "h", "port": "99"}})
    assert one.instruments == (solenoid.Instrument("h", 99),)
    assert read(tmp_path, {"colour": 1, "a": 2}).unknown == ("a", "colour")


def test_urls(tmp_path: Path) -> None:
    """Any storage will do by its URL, with what options it has; stores likewise."""
    config = read(
        tmp_path,
        {
            "storage": {"url": "https://s.example/apps/", "headers": {"X": "1"}},
            "engines": {
                "node": {"path": "/n", "store": "https://nodejs.org/dist"},
                "coffee": {"path": "/c", "store": {"url": "s3://c/d", "keyId": "k"}},
            },
        },
    )
    assert config.storage is not None
    assert config.storage.snapshot("u", "a", "1") == "https://s.example/apps/u-a-1.tgz"
    assert config.storage.options == {"headers": {"X": "1"}}
    node, coffee = config.engines["node"], config.engines["coffee"]
    assert node.store == "https://nodejs.org/dist"
    assert (coffee.store, coffee.options) == ("s3://c/d", {"keyId": "k"})


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path it is ~/.solenoidconf."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".solenoidconf").write_text('{"retries": 9}')
    assert asyncio.run(solenoid.read_config()).retries == 9


WRONG = {
    "storage is not": {"storage": []},
    "storage.container is missing": {"storage": {"provider": "amazon"}},
    "storage.provider is 'ftp'": {"storage": {"provider": "ftp", "container": "c"}},
    "storage.url is not": {"storage": {"url": 5}},
    "instruments is not": {"instruments": "host:1"},
    "instruments[1].host is missing": {"instruments": [{"host": "a"}, {"port": 1}]},
    "instruments.port is not": {"instruments": {"host": "a", "port": 65536}},
    "instruments[0].port is not": {"instruments": [{"host": "a", "port": True}]},
    "runDir is not an absolute": {"runDir": "run"},
    "engines.node.path is missing": {"engines": {"node": {}}},
    "engines.node.default is 'new'": {
        "engines": {"node": {"path": "/n", "default": "new"}}
    },
    "engines.node.store.url is missing": {
        "engines": {"node": {"path": "/n", "store": {}}}
    },
    "minUptime is not a number": {"minUptime": "2s"},
    "minDelay is not from 0": {"minDelay": -1},
    "minDelay is not from": '{"minDelay": NaN}',
    "retries is not": {"retries": 1.5},
    " is not a JSON object": [],
    " is not JSON: Expecting": '{"storage": {"key": canary',
}


@pytest.mark.parametrize("why", WRONG)
def test_wrong(tmp_path: Path, why: str) -> None:
    """A mistake is one line, with the file and the key, and no secret."""
    with pytest.raises(solenoid.ConfigError) as caught:
        read(tmp_path, WRONG[why])
    said = str(caught.value)
    assert said.startswith(str(tmp_path / "conf"))
    assert why in said
    assert "\n" not in said
    assert "canary" not in said
    assert (caught.value.step, caught.value.blame) == ("config", "system")


def test_unreadable(tmp_path: Path) -> None:
    """A file that is not there, or is no text, is an error that names it."""
    with pytest.raises(solenoid.ConfigError, match="nowhere: No such file"):
        asyncio.run(solenoid.read_config(tmp_path / "nowhere"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe{")
    with pytest.raises(solenoid.ConfigError, match="binary is not JSON: not UTF-8"):
        asyncio.run(solenoid.read_config(tmp_path / "binary"))


def test_frozen_and_silent(tmp_path: Path) -> None:
    """Nobody changes a configuration, and printing one shows no key."""
    config = read(tmp_path, ORIGINAL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.retries = 1  # type: ignore[misc]
    assert "canary" not in repr(config)
