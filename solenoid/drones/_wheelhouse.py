# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Gather what a drone needs to run forza and solenoid: ours, and wheels that fit it."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid.drones._errors import WheelhouseError
from solenoid.drones._wheels import Files, gather, pinned, requirements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid.drones._target import Target

NAME = "forza-solenoid"
_PACKAGES = ("forza", "solenoid")
# Archives of other versions and targets that are kept, the newest.
_KEPT = 12


@dataclass(frozen=True, slots=True)
class Archive:
    """All files for one kind of drone; `id` names its content."""

    id: str
    data: bytes
    sha256: str


class Wheelhouse:
    """Makes archives for drones, each once, and keeps them in a cache.

    What is installed here and fits the drone is taken as it is; the wheels of what
    does not fit are fetched by pip, which heeds its own configuration and variables
    (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX).
    """

    def __init__(self, cache: str | os.PathLike[str] | None = None) -> None:
        self.cache = Path(cache) if cache is not None else _default_cache()
        self._made: dict[Target, asyncio.Task[Archive]] = {}

    async def archive(self, target: Target) -> Archive:
        """Return the archive for a target. Raises WheelhouseError."""
        if target not in self._made:
            making = asyncio.to_thread(_archive, self.cache, target)
            self._made[target] = asyncio.create_task(making)
        # Many drones wait for the same one.
        return await asyncio.shield(self._made[target])


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "solenoid" / "drones"


def _archive(cache: Path, target: Target) -> Archive:
    try:
        files = {**_own_files(target), **_own_metadata()}
        needed = requirements(NAME)
        name = f"{metadata.version(NAME)}-{_digest(files, pinned(needed), target)}"
        path = cache / f"{name}.zip"
        if not path.exists():
            _build(path, {**gather(needed, target), **files})
        os.utime(path)
        _forget(cache)
        data = path.read_bytes()
    except metadata.PackageNotFoundError:
        raise WheelhouseError(f"{NAME} is not installed here") from None
    except OSError as error:
        raise WheelhouseError(
            f"cannot gather solenoid for {target}: {error.filename}: {error.strerror}"
        ) from error
    return Archive(name, data, hashlib.sha256(data).hexdigest())


# --- What is ours ------------------------------------------------------------------


def _own_files(target: Target) -> Files:
    """Return the files of our packages, and whether each is a program."""
    files: Files = {}
    for package in _PACKAGES:
        for folder in _folders(package):
            for path in sorted(folder.rglob("*")):
                name = f"{package}/{path.relative_to(folder)}"
                if path.suffix in (".py", ".typed"):
                    files[name] = (path.read_bytes(), False)
                elif (
                    path.parent.name == "_native"
                    and path.suffix in ("", ".so")
                    and path.is_file()
                ):
                    data = path.read_bytes()
                    if target.takes_program(data, shared=path.suffix == ".so"):
                        files[name] = (data, True)
    return files


def _folders(package: str) -> list[Path]:
    found = importlib.util.find_spec(package)
    places = found.submodule_search_locations if found is not None else None
    if not places:
        raise WheelhouseError(f"the package {package} is not installed here")
    return [Path(place) for place in places]


def _own_metadata() -> Files:
    """Return what makes `importlib.metadata` find us, and entry points work."""
    about = metadata.distribution(NAME)
    folder = f"{NAME.replace('-', '_')}-{about.version}.dist-info"
    texts = {name: about.read_text(name) for name in ("METADATA", "entry_points.txt")}
    return {f"{folder}/{k}": (v.encode(), False) for k, v in texts.items() if v}


def _digest(files: Files, pins: Mapping[str, str], target: Target) -> str:
    digest = hashlib.sha256(f"{target}\n{sorted(pins.items())}\n".encode())
    for name, (data, _) in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()[:12]


# --- The archive ---------------------------------------------------------------------


def _build(path: Path, files: Files) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, (data, is_program) in sorted(files.items()):
                entry = zipfile.ZipInfo(name)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = (0o755 if is_program else 0o644) << 16
                archive.writestr(entry, data)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _forget(cache: Path) -> None:
    """Remove what has not been used for the longest time."""
    for path in sorted(cache.glob("*.zip"), key=_used)[:-_KEPT]:
        path.unlink(missing_ok=True)


def _used(path: Path) -> float:
    # Another deployer may be forgetting, too.
    with suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
