# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read packages as the original did, and as npm does where that one broke."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

import solenoid

if TYPE_CHECKING:
    from pathlib import Path


def package(folder: Path, about: object, **files: str) -> solenoid.Package:
    """Write a package and read it."""
    (folder / "package.json").write_text(json.dumps(about))
    for name, text in files.items():
        (folder / name).write_text(text)
    return asyncio.run(solenoid.read_package(folder))


STARTS = {
    "node server.js": ["node", "server.js"],
    "server.js": ["node", "server.js"],
    "  node  bin/www   --port 80 ": ["node", "bin/www", "--port", "80"],
    "--harmony app.js": ["node", "--harmony", "app.js"],
    "missing.js": ["node", "missing.js"],
    "server": ["node", "server"],
    "coffee app.coffee -x": ["node", "node_modules/.bin/coffee", "app.coffee", "-x"],
    "app.coffee": ["node", "app.coffee"],
    "next start": ["sh", "-c", "next start"],
    "run.sh --fast": ["sh", "-c", "run.sh --fast"],
    "NODE_ENV=x node server.js": ["sh", "-c", "NODE_ENV=x node server.js"],
    "node a.js && node b.js": ["sh", "-c", "node a.js && node b.js"],
    "node -e 'x y'": ["sh", "-c", "node -e 'x y'"],
    "node server.js $PORT": ["sh", "-c", "node server.js $PORT"],
}


@pytest.mark.parametrize("script", STARTS)
def test_words(tmp_path: Path, script: str) -> None:
    """Words are split at blanks, `node` put in front; what needs a shell gets one."""
    (tmp_path / "server.js").write_text("")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    start = package(tmp_path, {"scripts": {"start": script}}).start
    assert list(start.words) == STARTS[script]
    assert start.source == "scripts.start"


def test_procfile(tmp_path: Path) -> None:
    """A Procfile serves where there is no start script, and only there."""
    procfile = "worker: node worker.js\nweb:  node web.js --port $PORT \n"
    start = package(tmp_path, {"scripts": {}}, Procfile=procfile).start
    assert start.words == ("sh", "-c", "node web.js --port $PORT")
    assert start.source == "Procfile"
    start = package(tmp_path, {"scripts": {"start": "a.js"}}).start
    assert start.words == ("node", "a.js")


BAD = [
    ({}, "no scripts.start, and there is no Procfile"),
    ({"scripts": {"start": "  "}}, "no scripts.start"),
    ({"scripts": {"start": 7}}, "scripts.start is not a string"),
    ({"scripts": {"start": "a.js"}, "engines": "node"}, "engines is not an object"),
    ([], "package.json is not an object"),
]


@pytest.mark.parametrize(("about", "why"), BAD)
def test_bad(tmp_path: Path, about: object, why: str) -> None:
    """What is wrong is the user's to mend, and said to be."""
    with pytest.raises(solenoid.PackageError, match=why) as caught:
        package(tmp_path, about)
    assert (caught.value.step, caught.value.blame) == ("package", "user")


def test_no_package(tmp_path: Path) -> None:
    """No package.json, or one that is no JSON, likewise."""
    with pytest.raises(solenoid.PackageError, match=r"no package\.json"):
        asyncio.run(solenoid.read_package(tmp_path))
    (tmp_path / "package.json").write_text("{,}")
    with pytest.raises(solenoid.PackageError, match=r"is not JSON: .*line 1"):
        asyncio.run(solenoid.read_package(tmp_path))
    (tmp_path / "package.json").unlink()
    (tmp_path / "package.json").mkdir()
    with pytest.raises(solenoid.PackageError, match="cannot read") as caught:
        asyncio.run(solenoid.read_package(tmp_path))
    assert caught.value.blame == "system"


def test_engines(tmp_path: Path) -> None:
    """Engines are ranges by name, in the form of 2011, too."""
    about = {"name": "shop", "version": "1.2.0", "scripts": {"start": "a.js"}}
    found = package(tmp_path, {**about, "engines": {"node": ">=18", "npm": "*"}})
    assert (found.name, found.version) == ("shop", "1.2.0")
    assert found.engines == {"node": ">=18", "npm": "*"}
    found = package(tmp_path, {**about, "engines": ["node >= 0.4"]})
    assert found.engines == {"node": ">= 0.4"}
