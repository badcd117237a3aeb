# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ask the solenoid on a drone to do something, and understand its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from solenoid._theirs import json_object
from solenoid.drones._visit import StepError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from solenoid.drones._session import Completed, Session


async def ask(
    session: Session,
    words: Sequence[str],
    *,
    input: bytes = b"",
    timeout: float | None = None,  # noqa: ASYNC109
    accept: Container[int] = (0,),
) -> dict[str, Any]:
    """Run solenoid, and return the JSON object that is its last line.

    Raises StepError with what it says if it fails, or ends with a status that is not
    one to `accept`; SessionError if the connection is lost, or time is up.
    """
    completed = await session.run([*words, "--json"], input=input, timeout=timeout)
    answer = last_object(completed.stdout)
    if answer.get("ok") is False:
        raise StepError(
            str(answer.get("error", "no reason given")),
            output=str(answer.get("output") or ""),
            blame=str(answer.get("blame", "system")),
            reply=answer,
        )
    if completed.status in accept and answer:
        return answer
    raise StepError(
        f"solenoid ended with status {completed.status}",
        output=_said(completed),
        reply=answer,
    )


def last_object(text: bytes) -> dict[str, Any]:
    """Return the last line that is a JSON object; `.bashrc` may have printed, too."""
    for line in reversed(text.splitlines()):
        if line.lstrip().startswith(b"{") and (found := json_object(line)):
            return found
    return {}


def _said(completed: Completed) -> str:
    said = completed.stderr or completed.stdout
    return said.decode("utf-8", "replace")
