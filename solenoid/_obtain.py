# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Bring a snapshot into a run directory, as a new release that is ready to start."""

from __future__ import annotations

import asyncio
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._engines import find_engines
from solenoid._errors import RestrictError
from solenoid._fetch import fetch
from solenoid._install import install, is_due
from solenoid._package import read_package
from solenoid._record import Record, records, write_record
from solenoid._releases import remove_tree
from solenoid._report import Silence
from solenoid._target import sweep as sweep_parts
from solenoid._unpack import Limits, unpack
from solenoid.storage import redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from solenoid._engines import EngineSource
    from solenoid._package import Package
    from solenoid._report import Report
    from solenoid._restrict import User
    from solenoid._rundir import RunDir

_ARRIVING = ".new"
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")
_DIGITS = 8


async def obtain(
    run_dir: RunDir,
    url: str,
    user: User,
    *,
    sha256: str | None = None,
    options: Mapping[str, object] | None = None,
    app_user: str | None = None,
    app_name: str | None = None,
    version: str | None = None,
    engines: Mapping[str, EngineSource] | None = None,
    modules: bool = True,
    scripts: bool = False,
    limits: Limits | None = None,
    report: Report | None = None,
) -> Record:
    """Fetch, unpack and complete a snapshot; hold the lock of the run directory.

    Dependencies are installed as `user` if they are missing, unless `modules` is false.
    What a solenoid has left that was killed is removed. Raises what the steps raise,
    and leaves no release then.
    """
    told = report or Silence()
    known = sweep(run_dir)
    archive = run_dir.path / "snapshot.tgz"
    told.info(f"fetching {redacted(url)}")
    fetched = await fetch(
        url,
        archive,
        sha256=sha256,
        options=options,
        # What is larger could not be unpacked; a server may send without end.
        max_bytes=(limits or Limits()).bytes,
        progress=told.progress("fetch"),
    )
    # Who has a file has it already; and who was told once knows.
    if fetched.digest_from is None and scheme_of(url) != "file" and not known:
        told.warn(
            "nobody has said what the snapshot's SHA-256 is, so it is not checked:"
            " --sha256 does, and so does solenoid push, which stores it"
        )
    arriving = run_dir.release(_ARRIVING)
    told.info(f"unpacking {fetched.size} bytes, SHA-256 {fetched.sha256}")
    try:
        await unpack(archive, arriving, limits=limits, progress=told.progress("unpack"))
    finally:
        archive.unlink(missing_ok=True)
    try:
        package = await read_package(arriving / "package")
        version = version or package.version
        name = _free_name(run_dir, version, fetched.sha256)
        folder = run_dir.release(name)
        os.rename(arriving, folder)
    except BaseException:
        with suppress(OSError):
            remove_tree(arriving)
        raise
    record = Record(
        name,
        time.time(),
        redacted(url),
        fetched.sha256,
        app_user,
        app_name,
        version,
        package.name,
    )
    try:
        if (folder / "package" / ".env").exists():
            told.warn("there is a file .env in the snapshot: are there secrets in it?")
        node = await _node(package, engines or {})
        if modules and node is not None and is_due(folder / "package"):
            given = {"uid": user.uid, "gid": user.gid} if os.geteuid() == 0 else {}
            told.info("installing dependencies by npm ci")
            await install(
                folder / "package",
                node.parent,
                scripts=scripts,
                activity=told.activity("install"),
                **given,
            )
        await asyncio.to_thread(write_record, run_dir, record)
    except BaseException as error:
        with suppress(OSError):
            remove_tree(folder)
        if isinstance(error, OSError):
            raise RestrictError(f"cannot write in {run_dir}: {error}") from error
        raise
    return record


def sweep(run_dir: RunDir) -> set[str]:
    """Remove what is no complete release: its solenoid was killed. Return the rest."""
    known = {record.id for record in records(run_dir)}
    for path in run_dir.releases.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name not in known:
            with suppress(OSError):  # the next one tries again
                remove_tree(path)
    sweep_parts(run_dir.releases, ".*.part")
    return known


async def _node(package: Package, sources: Mapping[str, EngineSource]) -> Path | None:
    """Return the node that an app gets: its engine's, else that in PATH.

    It may need none; if it does, that is said when it is started.
    """
    for engine in await find_engines(package.engines, sources):
        if engine.name == "node":
            return engine.bin / "node"
    import shutil  # half a megabyte, once the large part is over

    found = shutil.which("node")
    return Path(found) if found else None


def _free_name(run_dir: RunDir, version: str, sha256: str) -> str:
    """Return a name that tells versions apart, and what is in them."""
    readable = _UNFIT.sub("-", version)[:64].strip(".-") or "snapshot"
    name = first = f"{readable}-{sha256[:_DIGITS]}"
    count = 1
    while os.path.lexists(run_dir.release(name)):
        count += 1
        name = f"{first}.{count}"
    return name
