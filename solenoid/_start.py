# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start an app: the steps from a snapshot to a running process, in their order."""

from __future__ import annotations

import asyncio
from errno import EDQUOT, EIO, ENOSPC
from typing import TYPE_CHECKING

from solenoid._config import Config
from solenoid._engines import find_engines, fits, node_in_path
from solenoid._errors import AbsentError, CleanError, RestrictError, StartError
from solenoid._launch import Launch
from solenoid._obtain import obtain
from solenoid._order import clashes, order_for
from solenoid._package import read_package
from solenoid._plan import check_options, check_program, environment, plan, prepare
from solenoid._record import read_record, records
from solenoid._release import current
from solenoid._releases import prune_locked
from solenoid._report import Silence
from solenoid._restrict import ensure_user, restrict_filesystem
from solenoid._rundir import RunDir
from solenoid._switch import switch

if TYPE_CHECKING:
    import os

    from solenoid._app import App
    from solenoid._record import Record
    from solenoid._report import Report
    from solenoid._switch import Switched

# What whoever keeps the machine has to mend; another place is the caller's choice.
_NO_ROOM = (ENOSPC, EDQUOT, EIO)


async def start(
    run_dir: str | os.PathLike[str],
    app: App,
    url: str | None = None,
    *,
    sha256: str | None = None,
    config: Config | None = None,
    as_before: bool = False,
    report: Report | None = None,
) -> Switched:
    """Start the snapshot at `url`, or without one a release that is there.

    That is the one of `app.version`, else the current one; with `as_before` just as it
    was started then, if it was. What runs in the run directory is replaced: if the new
    one does not start, it runs, still or again.

    Raises what the steps raise: SolenoidError, whose `step` says which it was.
    """
    await check_options(app)
    place, settings, told = _place(run_dir), config or Config(), report or Silence()
    with place.locked() as lock:
        if url is None:
            record = _there(place, app)
            if as_before and record.launch is not None:
                how = Launch.from_json(record.launch)
                return await switch(place, record.id, how, lock=lock, report=told)
        else:
            record = await _bring(place, app, url, sha256, settings, told)
        folder = place.release(record.id)
        package = await read_package(folder / "package")
        engines = await find_engines(package.engines, settings.engines)
        wanted = package.engines.get("node")
        if wanted is not None and "node" not in settings.engines:
            found = await asyncio.to_thread(node_in_path)
            if not fits(found, wanted):
                what = found or "none that tells its version"
                told.warn(
                    f"package.json asks for node {wanted!r}, and the one in PATH, which"
                    f" runs the app, is {what}: install one that fits, or have"
                    " engines.node in the configuration"
                )
        user = await ensure_user(app.system_user)
        variables = environment(app, record, folder, user, engines)
        await check_program(package, variables, user)
        if record.launch is None or record.launch["user"]["uid"] != user.uid:
            # Not again where the app has been: it is done, and links could be races.
            await restrict_filesystem(folder, user)
        how = plan(place, app, folder, package, user, engines, variables, settings)
        await asyncio.to_thread(prepare, place, folder, how, variables)
        done = await _switch(place, app, record.id, how, lock, told)
        await _make_room(place, app.keep, told)
        return done


async def start_again(
    run_dir: str | os.PathLike[str],
    release: str,
    *,
    report: Report | None = None,
) -> Switched:
    """Start a release just as it was started before: to go back to it, mostly.

    Raises AbsentError if it never was, and what `switch` raises.
    """
    place = RunDir(run_dir)
    place.must_exist()
    with place.locked() as lock:
        record = read_record(place, release)
        if record.launch is None:
            raise AbsentError(
                f"release {release} was never started: see solenoid start"
            )
        how = Launch.from_json(record.launch)
        return await switch(place, release, how, lock=lock, report=report)


async def download(
    run_dir: str | os.PathLike[str],
    app: App,
    url: str,
    *,
    sha256: str | None = None,
    config: Config | None = None,
    report: Report | None = None,
) -> Record:
    """Bring a snapshot into a run directory, ready to start, and start nothing."""
    place = _place(run_dir)
    with place.locked():
        return await _bring(
            place, app, url, sha256, config or Config(), report or Silence()
        )


async def _switch(
    place: RunDir, app: App, release: str, how: Launch, lock: int, told: Report
) -> Switched:
    order = order_for(place, app)
    try:
        return await switch(place, release, how, lock=lock, order=order, report=told)
    except StartError as error:
        if app.order == order or not clashes(error):
            raise
    told.info("the port is in use: once more, and the old release stops first")
    return await switch(place, release, how, lock=lock, report=told)


async def _bring(
    place: RunDir, app: App, url: str, sha256: str | None, config: Config, told: Report
) -> Record:
    record = await obtain(
        place,
        url,
        await ensure_user(app.system_user),
        sha256=sha256,
        options=config.options_for(url),
        app_user=app.user,
        app_name=app.name,
        version=app.version,
        engines=config.engines,
        modules=app.modules,
        scripts=app.scripts,
        limits=app.limits,
        report=told,
    )
    # Else those that never start would go on filling the disk.
    await _make_room(place, max(app.keep, 1), told)
    return record


def _place(run_dir: str | os.PathLike[str]) -> RunDir:
    place = RunDir(run_dir)
    try:
        place.make()
    except OSError as error:
        raise RestrictError(
            f"cannot make {error.filename or place}: {error.strerror}; choose another"
            " --run-dir",
            blame="system" if error.errno in _NO_ROOM else "user",
        ) from error
    return place


async def _make_room(place: RunDir, keep: int, told: Report) -> None:
    """Remove old releases; that one of them cannot go does not undo the start."""
    try:
        for name in await asyncio.to_thread(prune_locked, place, keep):
            told.info(f"removed release {name}")
    except CleanError as error:
        told.warn(str(error))


def _there(place: RunDir, app: App) -> Record:
    """Return the release that is meant among those that are there."""
    if app.version is None:
        name = current(place.path)
        if name is None:
            raise AbsentError(f"no release in {place}: --from URL brings one")
        return read_record(place, name)
    for record in records(place):
        asked = ((app.user, record.app_user), (app.name, record.app_name))
        if all(one is None or other in (None, one) for one, other in asked) and (
            app.version in (record.id, record.version)
        ):
            return record
    raise AbsentError(
        f"no release {app.version} in {place}: solenoid download, or --from, brings it"
    )
