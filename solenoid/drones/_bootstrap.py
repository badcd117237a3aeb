# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Have the deployer's own version of forza and solenoid on a drone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones._answer import answer
from solenoid.drones._errors import BootstrapError
from solenoid.drones._operator import operator
from solenoid.drones._remote import remote
from solenoid.drones._target import Target

if TYPE_CHECKING:
    from typing import Any

    from solenoid.drones._session import Session
    from solenoid.drones._wheelhouse import Archive, Wheelhouse


# How long a drone may take to look, or to unpack and try what it has got.
_PATIENCE = 600.0


async def ensure_solenoid(session: Session, wheelhouse: Wheelhouse) -> list[str]:
    """Return the words that run this version of solenoid on the drone.

    Where it is already, that takes one command. Else it is sent and installed, in
    BASE/VERSION-HASH beside what is there; apps go on with what they were started
    with. Versions that no process runs any more are removed.

    Raises BootstrapError if the drone has no Python 3.11 or will not do otherwise,
    and WheelhouseError.
    """
    facts = await _ask(session, "facts", {})
    try:
        target = Target.of(facts)
    except ValueError as error:
        raise BootstrapError(session.drone, f"cannot install here: {error}") from None
    archive = await wheelhouse.archive(target)
    if facts["current"] != archive.id or archive.id not in facts["installed"]:
        await _install(session, archive, send=archive.id not in facts["installed"])
    return [f"{facts['base']}/{archive.id}/bin/python", "-I", "-m", "solenoid"]


async def _install(session: Session, archive: Archive, *, send: bool) -> None:
    order = {
        "id": archive.id,
        "size": len(archive.data) if send else 0,
        "sha256": archive.sha256,
        "owner": operator(),
    }
    await _ask(session, "install", order, archive.data if send else b"")


async def _ask(
    session: Session, action: str, order: dict[str, Any], data: bytes = b""
) -> dict[str, Any]:
    order["base"] = session.drone.base or ""
    words = remote(session.drone, "install", action, order)
    said = answer(await session.run(words, input=data, timeout=_PATIENCE))
    if "error" in said:
        raise BootstrapError(session.drone, said["error"])
    return said
