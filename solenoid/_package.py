# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what an app is and how it is started: package.json, or a Procfile."""

from __future__ import annotations

import asyncio
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from solenoid._errors import PackageError
from solenoid._theirs import read_file

# What a shell would not take literally.
_SHELL = re.compile(r"[|&;<>()$`\\\"'*?\[\]#~{}!\n]|^\w+=")
_SCRIPTS = (".js", ".cjs", ".mjs", ".coffee", ".ts", ".mts")
_MOST = 4 << 20
_WEB = re.compile(r"^web:[ \t]*(.*?)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Start:
    """The words to run in the package's folder, and where they come from.

    The first is looked up in the app's PATH, which begins with the package's
    node_modules/.bin and the engine's folder.
    """

    words: tuple[str, ...]
    source: str


@dataclass(frozen=True, slots=True)
class Package:
    """An app: `engines` holds ranges by the engine's name."""

    path: Path
    name: str
    version: str
    engines: dict[str, str]
    start: Start


async def read_package(path: str | os.PathLike[str]) -> Package:
    """Read the package in a folder. Raises PackageError."""
    return await asyncio.to_thread(_read, Path(path))


def _read(path: Path) -> Package:
    about = _json(path / "package.json")
    engines = about.get("engines") or {}
    if isinstance(engines, list):  # as of 2011: ["node >= 0.4"]
        split = (str(word).strip().partition(" ") for word in engines)
        engines = {name: wanted.strip() for name, _, wanted in split}
    if not isinstance(engines, dict):
        raise PackageError("package.json: engines is not an object")
    return Package(
        path,
        str(about.get("name") or ""),
        str(about.get("version") or ""),
        {str(name): str(wanted) for name, wanted in engines.items()},
        _start(path, about),
    )


def _json(path: Path) -> dict[str, object]:
    try:
        # Byte order marks are as old as the editors that write them.
        text = read_file(path, _MOST, within=path.parent).decode("utf-8-sig")
        found = json.loads(text)
    except FileNotFoundError:
        raise PackageError("no package.json in the snapshot") from None
    except OSError as error:
        raise PackageError(
            f"cannot read package.json: {error.strerror}", blame="system"
        ) from error
    except ValueError as error:
        raise PackageError(f"package.json is not JSON: {error}") from None
    except RecursionError:
        raise PackageError("package.json is nested too deep") from None
    if not isinstance(found, dict):
        raise PackageError("package.json is not an object")
    return found


def _start(path: Path, about: dict[str, object]) -> Start:
    scripts = about.get("scripts")
    script = scripts.get("start") if isinstance(scripts, dict) else None
    if script is not None and not isinstance(script, str):
        raise PackageError("package.json: scripts.start is not a string")
    if script and script.strip():
        _check(script, "package.json: scripts.start")
        return Start(_words(path, script.strip()), "scripts.start")
    try:
        text = read_file(path / "Procfile", _MOST, within=path)
        found = _WEB.search(text.decode("utf-8", "replace"))
    except OSError:
        found = None
    if found and found[1]:
        _check(found[1], "Procfile")
        return Start(("sh", "-c", found[1]), "Procfile")
    raise PackageError("package.json has no scripts.start, and there is no Procfile")


def _check(script: str, source: str) -> None:
    try:
        whole = b"\0" not in os.fsencode(script)
    except UnicodeEncodeError:  # JSON has halves of characters
        whole = False
    if not whole:
        raise PackageError(f"{source} has what no command line takes: NUL, or the like")


def _words(path: Path, script: str) -> tuple[str, ...]:
    """Split as the original did, where npm would have understood the same."""
    if _SHELL.search(script):
        return ("sh", "-c", script)
    first, *rest = (word for word in script.split(" ") if word)
    if first == "node":
        return (first, *rest)
    if first == "coffee":
        return ("node", "node_modules/.bin/coffee", *rest)
    # `server.js` alone is what many wrote; `next start` is what npm runs.
    if first.startswith("-") or first.endswith(_SCRIPTS) or _for_node(path / first):
        return ("node", first, *rest)
    return ("sh", "-c", script)


def _for_node(path: Path) -> bool:
    """Say whether node would find a program by this name."""
    found = path if path.is_file() else path.with_name(path.name + ".js")
    if found.is_file():
        # What names its own interpreter, or is a binary, is not node's to read.
        with found.open("rb") as file:
            begin = file.read(64)
        own = begin[:2] == b"#!" and b"node" not in begin.partition(b"\n")[0]
        return not own and b"\0" not in begin
    return (path / "index.js").is_file()
