# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run the operator's own commands around a change, on the operator's machine."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from solenoid._errors import SolenoidError

if TYPE_CHECKING:
    from collections.abc import Mapping


class HookError(SolenoidError):
    """A hook failed; `output` is the end of what it said."""

    step = "hook"
    blame = "user"

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


async def run_hook(name: str, command: str, told: Mapping[str, object]) -> str:
    """Run a command line by sh, with SOLENOID_... variables that tell what it is about.

    Returns what it has said. Raises HookError if it fails. A hook that is cancelled is
    killed with all that it has started.
    """
    variables = {f"SOLENOID_{key.upper()}": str(value) for key, value in told.items()}
    child = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", command),
        env={**os.environ, "SOLENOID_HOOK": name, **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        # Ctrl-C is for us: a hook in the middle of its work goes on to its end.
        start_new_session=True,
    )
    try:
        said, _ = await child.communicate()
    except asyncio.CancelledError:
        os.killpg(child.pid, 9)
        await child.wait()
        raise
    output = said.decode("utf-8", "replace")
    if child.returncode:
        status = child.returncode
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise HookError(f"the hook {name} ended with {how}: {command}", output[-4096:])
    return output
