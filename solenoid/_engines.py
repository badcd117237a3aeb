# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the engine that an app asks for, or fetch it from a store."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import EngineError, FetchError, NotFoundError, UnpackError
from solenoid._fetch import fetch
from solenoid._semver import Range, Version, parse_version
from solenoid._unpack import Limits, unpack
from solenoid.storage import redacted

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATIENCE = 10.0
# A store may send without end; what is read at once is to fit into memory.
_LIST_MOST = 16 << 20
_ARCHITECTURES = {"x86_64": "x64", "aarch64": "arm64", "armv7l": "armv7l"}


@dataclass(frozen=True, slots=True)
class EngineSource:
    """Where the versions of an engine are: PATH/VERSION/bin.

    `default` is the range for apps that ask for none. `store`, if any, is a storage
    URL of the layout of nodejs.org/dist: index.json, VERSION/SHASUMS256.txt and
    VERSION/node-VERSION-linux-x64.tar.gz; `options` are its storage's.
    """

    path: Path
    default: str = "*"
    store: str | None = None
    options: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """An installed engine; `bin` belongs into the app's PATH."""

    name: str
    version: str
    bin: Path


async def find_engines(
    wanted: Mapping[str, str], sources: Mapping[str, EngineSource]
) -> list[Engine]:
    """Return the best engine for each name in `wanted` that has a source.

    That is the highest installed version in the range; if there is none, the highest
    of the store, which is fetched, checked and installed. An app that asks for no
    node gets node's default. Raises EngineError.
    """
    asked = {name: text for name, text in wanted.items() if name in sources}
    if "node" in sources:
        asked.setdefault("node", sources["node"].default)
    return [await _find(name, text, sources[name]) for name, text in asked.items()]


def node_in_path() -> Version | None:
    """Return the version of the node in our PATH, which runs who has no engine."""
    import subprocess

    try:
        said = subprocess.run(
            ["node", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        ).stdout
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return parse_version(said)


def fits(version: Version | None, text: str) -> bool:
    """Say whether a version is in a range; what is no range, none is in."""
    try:
        return version is not None and Range(text).allows(version)
    except ValueError:
        return False


async def _find(name: str, text: str, source: EngineSource) -> Engine:
    try:
        range_ = Range(text)
    except ValueError:
        raise EngineError(f"{name}: {text!r} is not a valid range") from None
    installed = await asyncio.to_thread(_installed, source.path)
    best = range_.best(installed)
    if best is not None:
        return Engine(name, str(best), source.path / installed[best] / "bin")
    if source.store is not None:
        return await _install(name, range_, source, source.store.rstrip("/"))
    raise EngineError(f"no {name} for {text!r}: {_list(installed)} installed")


def _installed(path: Path) -> dict[Version, str]:
    found = {}
    for entry in path.iterdir() if path.is_dir() else ():
        version = parse_version(entry.name)
        if version is not None and (entry / "bin").is_dir():
            found[version] = entry.name
    return found


def _list(versions: Mapping[Version, str]) -> str:
    shown = ", ".join(map(str, sorted(versions)))
    return shown if versions else "none"


async def _install(
    name: str, range_: Range, source: EngineSource, store: str
) -> Engine:
    import tempfile  # a megabyte, for what is seldom

    try:
        with tempfile.TemporaryDirectory(prefix="solenoid-") as made:
            return await _from_store(name, range_, source, store, Path(made))
    except (FetchError, UnpackError) as error:
        raise EngineError(
            f"no {name} for {range_.text!r} from the store: {error}", blame="system"
        ) from error


async def _from_store(
    name: str, range_: Range, source: EngineSource, store: str, made: Path
) -> Engine:
    options = source.options
    index = await fetch(
        f"{store}/index.json", made / "index", options=options, max_bytes=_LIST_MOST
    )
    offered = await asyncio.to_thread(_offered, index.path, store)
    best = range_.best(offered)
    if best is None:
        raise EngineError(
            f"no {name} for {range_.text!r}: none installed fits, nor of the"
            f" {len(offered)} in {redacted(store)}"
        )
    file = f"{name}-v{best}-linux-{_architecture()}.tar.gz"
    folder = f"{store}/{offered[best]}"
    sums = await fetch(
        f"{folder}/SHASUMS256.txt", made / "sums", options=options, max_bytes=_LIST_MOST
    )
    text = await asyncio.to_thread(sums.path.read_text, "utf-8", "replace")
    digest = re.search(rf"^([0-9a-f]{{64}})\s+\*?{re.escape(file)}$", text, re.M)
    if digest is None:
        raise NotFoundError(f"{redacted(folder)}: no digest of {file}")
    archive = await fetch(
        f"{folder}/{file}",
        made / file,
        sha256=digest[1],
        options=options,
        max_bytes=Limits().bytes,
    )
    place = source.path / f"v{best}"
    await asyncio.to_thread(os.makedirs, source.path, exist_ok=True)
    try:
        await unpack(archive.path, place, top=None)
    except UnpackError:
        # Another may have been quicker, with the same.
        if not await asyncio.to_thread((place / "bin").is_dir):
            raise
    return Engine(name, str(best), place / "bin")


def _offered(path: Path, store: str) -> dict[Version, str]:
    try:
        listed = [entry["version"] for entry in json.loads(path.read_bytes())]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise FetchError(
            f"{redacted(store)}/index.json is no list of versions"
        ) from None
    versions = {parse_version(str(text)): str(text) for text in listed}
    return {version: text for version, text in versions.items() if version is not None}


def _architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)
