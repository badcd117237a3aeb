# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put solenoid on the drone: BASE/ID, whole or not at all, beside those of before.

BASE/ID is a virtual environment, made by hand: what Python's own `venv` makes, less
pip, which many drones have not. Processes of other IDs are left alone.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import io
import json
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from solenoid.drones.remote import audit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

PROGRAMS = {"solenoid": "solenoid", "forza": "forza", "aeternum": "forza.aeternum"}
# What has just been installed may be about to be used by another deployer.
_FRESH = 86400.0


class RefusedError(Exception):
    """It cannot be, for a reason that is said in one line."""


def facts(base: str) -> dict[str, Any]:
    """Return what decides which files fit, and what is there already."""
    about = os.uname()
    place = audit.place(base)
    return {
        "system": about.sysname,
        "machine": about.machine,
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": _libc(),
        "implementation": sys.implementation.name,
        "python": list(sys.version_info[:3]),
        "threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "base": place,
        "installed": sorted(_installed(place)),
        "current": _current(place),
    }


def _libc() -> str:
    with suppress(ValueError, OSError):
        found = os.confstr("CS_GNU_LIBC_VERSION")
        if found:
            return found
    # Alpine has had Python 3.11 only since its musl was 1.2.
    return "musl 1.2" if "musl" in str(sysconfig.get_config_var("SOABI")) else "?"


def _installed(place: str) -> Iterator[str]:
    with suppress(FileNotFoundError):
        for entry in os.scandir(place):
            whole = os.path.join(entry.path, "bin", "python")
            # Of a Python that has gone, or that is another now, nothing can be used.
            if not entry.name.startswith(".") and os.path.exists(whole):
                with suppress(OSError), open(f"{entry.path}/pyvenv.cfg") as file:
                    if f"version = {_python()}\n" in file:
                        yield entry.name


def _current(place: str) -> str | None:
    try:
        return os.readlink(os.path.join(place, "current"))
    except OSError:
        return None


def _python() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def install(order: Mapping[str, Any]) -> dict[str, Any]:
    """Unpack what comes in, if it is not there, and make it the current one."""
    name, place = order["id"], audit.place(order["base"])
    data = b""
    if order["size"]:
        # All of it first: nothing is on the disk of a transfer that was cut.
        data = sys.stdin.buffer.read(order["size"])
        if len(data) != order["size"]:
            raise RefusedError(f"only {len(data)} of {order['size']} bytes have come")
        if hashlib.sha256(data).hexdigest() != order["sha256"]:
            raise RefusedError("what has come is damaged")
    os.umask(0o022)
    _make_base(place)
    with _locked(place):
        for left in os.listdir(place):
            if left.endswith(".part"):
                shutil.rmtree(os.path.join(place, left), ignore_errors=True)
        was = _current(place)
        if name not in _installed(place):
            if not data:
                raise RefusedError(f"{name} has just been removed; try again")
            _unpack(place, name, data)
        _make_current(place, name)
        # Who has just found the one before to be current is about to use it.
        pruned = _prune(place, {name, was})
    if was != name:
        audit.write(order["base"], order["owner"], "install", name, before=was or "")
    return {"installed": name, "before": was, "pruned": pruned}


def _make_base(place: str) -> None:
    os.makedirs(place, mode=0o755, exist_ok=True)
    about = os.stat(place)
    if about.st_uid not in (0, os.geteuid()) or about.st_mode & 0o022:
        raise RefusedError(f"{place} can be written by others than us")


@contextmanager
def _locked(place: str) -> Iterator[None]:
    file = os.open(os.path.join(place, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def _unpack(place: str, name: str, data: bytes) -> None:
    final = os.path.join(place, name)
    part = os.path.join(place, f".{name}.{os.getpid()}.part")
    try:
        site = os.path.join(part, "lib", f"python{_python()}", "site-packages")
        os.makedirs(site)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                path = archive.extract(entry, site)
                os.chmod(path, 0o755 if entry.external_attr >> 16 & 0o100 else 0o644)
        _make_environment(part, final)
        compileall.compile_dir(
            site,
            quiet=2,
            stripdir=part,
            prependdir=final,
            # Nobody changes these files: no look at the source at each start.
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        _try(part)
        _sync(part)
        if os.path.lexists(final):  # of another Python, or damaged
            os.rename(final, f"{part}.old.part")
        os.rename(part, final)
        _sync_folder(place)
        _compile_for_monitors(final)
    except (zipfile.BadZipFile, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RefusedError(f"cannot unpack to {place}: {why}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(f"{part}.old.part", ignore_errors=True)


def _compile_for_monitors(final: str) -> None:
    """Save each monitor 0.1 MB, which may not write there itself; or do not."""
    path = os.path.join(final, "lib", f"python{_python()}", "site-packages", "forza")
    python = os.path.join(final, "bin", "python")
    options = ("-I", "-S", "-X", "no_debug_ranges")
    subprocess.run(
        [python, *options, os.path.join(path, "_strip.py"), path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )


def _make_environment(part: str, final: str) -> None:
    python = getattr(sys, "_base_executable", "") or sys.executable
    with open(os.path.join(part, "pyvenv.cfg"), "w") as file:
        file.write(f"home = {os.path.dirname(python)}\n")
        file.write("include-system-site-packages = false\n")
        file.write(f"version = {_python()}\n")
    folder = os.path.join(part, "bin")
    os.mkdir(folder)
    os.symlink(python, os.path.join(folder, "python"))
    for program, module in PROGRAMS.items():
        path = os.path.join(folder, program)
        with open(path, "w") as file:
            words = [os.path.join(final, "bin", "python"), "-I", "-m", module]
            file.write(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        os.chmod(path, 0o755)


def _try(part: str) -> None:
    """Load what is loaded from other people's binaries, where it is to be used."""
    ended = subprocess.run(
        [os.path.join(part, "bin", "python"), "-I", "-c", "import uvloop, orjson"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        raise RefusedError(f"what was sent does not run here: {said[-1]}")


def _make_current(place: str, name: str) -> None:
    # The time says that it was wanted just now.
    os.utime(os.path.join(place, name))
    if _current(place) == name:
        return
    link = os.path.join(place, f".current.{os.getpid()}")
    with suppress(FileNotFoundError):
        os.unlink(link)
    os.symlink(name, link)
    os.rename(link, os.path.join(place, "current"))
    _sync_folder(place)


def _prune(place: str, keep: set[str | None]) -> list[str]:
    """Remove what is old and what no process is of; return the names."""
    pruned = []
    for entry in list(os.scandir(place)):
        ours = os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))
        if entry.is_symlink() or not ours or entry.name in keep:
            continue
        fresh = time.time() - entry.stat().st_mtime < _FRESH
        if fresh or _in_use(f"{entry.path}/"):
            continue
        # Under another name first: half of it shall not be taken for all of it.
        gone = os.path.join(place, f".{entry.name}.{os.getpid()}.part")
        os.rename(entry.path, gone)
        shutil.rmtree(gone, ignore_errors=True)
        pruned.append(entry.name)
    return pruned


def _in_use(folder: str) -> bool:
    """Say whether a process runs a program of the folder, or has a file of it mapped.

    A keeper that sleeps has nothing of Python, but its own program is in there.
    """
    sought = os.fsencode(folder)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            if os.readlink(f"/proc/{pid}/exe").startswith(folder):
                return True
        for name in ("cmdline", "maps"):
            with suppress(OSError), open(f"/proc/{pid}/{name}", "rb") as file:
                if sought in file.read():
                    return True
    return False


def _sync(top: str) -> None:
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                _sync_folder(path)
        _sync_folder(folder)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main(action: str, order: Mapping[str, Any]) -> int:
    """Do what was ordered, and print the outcome, one line of JSON."""
    try:
        done = facts(order["base"]) if action == "facts" else install(order)
    except RefusedError as error:
        done = {"error": str(error)}
    except OSError as error:
        done = {"error": f"{error.filename or order['base']}: {error.strerror}"}
    sys.stdout.write(json.dumps(done) + "\n")
    return 1 if "error" in done else 0
