# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the files of what we depend on: as installed here, or in wheels from pip."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid.drones._errors import WheelhouseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid.drones._target import Target

_PATIENCE = 300.0

# The name of a file below site-packages: its content, and whether it is a program.
Files = dict[str, tuple[bytes, bool]]


def requirements(name: str) -> dict[str, str]:
    """Return what a distribution needs in any case, and what it says of versions."""
    needed = {}
    for line in metadata.requires(name) or []:
        if "extra ==" not in line:
            wanted = line.partition(";")[0].strip()
            needed[re.split(r"[^\w.-]", wanted, maxsplit=1)[0]] = wanted
    return needed


def pinned(needed: Mapping[str, str]) -> dict[str, str]:
    """Return the same, with the versions that are installed here: they are known."""
    pins = {}
    for name, wanted in needed.items():
        try:
            pins[name] = f"{name}=={metadata.version(name)}"
        except metadata.PackageNotFoundError:
            pins[name] = wanted
    return pins


def gather(needed: Mapping[str, str], target: Target) -> Files:
    """Return the files of all that is needed, for a target. Raises WheelhouseError."""
    files: Files = {}
    missing: dict[str, str] = {}
    for name, pin in pinned(needed).items():
        installed = _installed(name, target)
        if installed is None:
            missing[name] = pin
        else:
            files |= installed
    if missing:
        with tempfile.TemporaryDirectory() as folder:
            try:
                _fetch(list(missing.values()), target, folder)
            except WheelhouseError:
                # The version that is known may not be had for that Python.
                _fetch([needed[name] for name in missing], target, folder)
            for wheel in sorted(Path(folder).glob("*.whl")):
                files |= _unpacked(wheel)
    return files


def _installed(name: str, target: Target) -> Files | None:
    """Return the files as installed here, if they came by a wheel that fits."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    about = found.read_text("WHEEL") or ""
    if not target.takes_wheel(re.findall(r"^Tag: *(\S+)", about, re.MULTILINE)):
        return None
    files: Files = {}
    for path in found.files or ():
        # What is beside site-packages are scripts; .pyc are made on the drone.
        if ".." not in path.parts and path.suffix != ".pyc":
            try:
                files[path.as_posix()] = (path.read_binary(), path.suffix == ".so")
            except FileNotFoundError:
                return None  # not as its wheel was: better a new one
    return files or None


def _fetch(wanted: list[str], target: Target, folder: str) -> None:
    major, minor = target.python
    command = [
        *_pip(target),
        *("download", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--only-binary", ":all:", "--dest", folder),
        *("--implementation", "cp", "--python-version", f"{major}.{minor}"),
        *("--abi", target.abi, "--abi", "abi3", "--abi", "none"),
        *(word for name in target.platforms() for word in ("--platform", name)),
        *wanted,
    ]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise WheelhouseError(
            f"pip did not fetch {' '.join(wanted)} in {_PATIENCE:g} s"
        ) from None
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
        why = said[-1].removeprefix("ERROR: ") if said else f"status {ended.returncode}"
        raise WheelhouseError(f"no wheels of {' '.join(wanted)} for {target}: {why}")


def _pip(target: Target) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    for name in ("pip3", "pip"):
        if found := shutil.which(name):
            return [found]
    raise WheelhouseError(f"pip is needed to fetch wheels for {target}, and is missing")


def _unpacked(wheel: Path) -> Files:
    files: Files = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for entry in archive.infolist():
                parts = entry.filename.split("/")
                if parts[0].endswith(".data"):
                    if parts[1] not in ("purelib", "platlib"):
                        continue
                    parts = parts[2:]
                if entry.is_dir() or not parts:
                    continue
                name = "/".join(parts)
                files[name] = (archive.read(entry), name.endswith(".so"))
    except (zipfile.BadZipFile, OSError) as error:
        raise WheelhouseError(f"cannot read {wheel.name}: {error}") from error
    return files
