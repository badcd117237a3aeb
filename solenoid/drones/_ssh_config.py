# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take from ~/.ssh/config what asyncssh would refuse, or do otherwise than ssh."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from solenoid.drones._errors import SessionError

if TYPE_CHECKING:
    from typing import Any

    from asyncssh import SSHClientConnectionOptions

    from solenoid.drones._inventory import Drone

# First what OpenSSL does by itself: asyncssh's own first choice, chacha20-poly1305, is
# done there piece by piece in Python. All its others are offered behind them.
_CIPHERS = "^aes256-gcm@openssh.com,aes128-gcm@openssh.com"


async def read_options(drone: Drone, config: str | None) -> SSHClientConnectionOptions:
    """Return what the configuration says of a drone. Raises SessionError."""
    try:
        first = await asyncssh.SSHClientConnectionOptions.construct(
            host=drone.host,
            port=drone.port if drone.port is not None else (),
            username=drone.user if drone.user is not None else (),
            config=() if config is None else [config],
            # What is the operator's stays with the operator.
            agent_forwarding=False,
            connect_timeout=None,
            login_timeout=0,
            client_keys=None,
        )
        options: SSHClientConnectionOptions
        options = await asyncssh.SSHClientConnectionOptions.construct(
            first,
            host=drone.host,
            config=None,
            # Whoever has chosen has chosen.
            encryption_algs=() if first.config.get("Ciphers") else _CIPHERS,
            **_identities(first),
        )
        return options
    except (OSError, ValueError, asyncssh.KeyImportError) as error:
        raise SessionError(
            drone, "auth", f"cannot use the SSH configuration: {error}"
        ) from error


def _identities(options: SSHClientConnectionOptions) -> dict[str, Any]:
    """Return the keys to try: files that do not exist are passed over, as ssh does.

    A key that is encrypted is, too: the agent has it, or it is of no use here.
    """
    certificates = _paths(options, "CertificateFile")
    found: dict[str, Any] = {
        "client_keys": (),
        "client_certs": [path for path in certificates if path.is_file()],
        "ignore_encrypted": True,
    }
    keys = _paths(options, "IdentityFile")
    if keys:
        found["client_keys"] = [path for path in keys if path.is_file()]
        public = [path.with_name(f"{path.name}.pub") for path in keys]
        ours = [path for path in public if path.is_file()]
        if options.config.get("IdentitiesOnly"):
            # Of the agent's keys these alone.
            found |= {"agent_identities": ours} if ours else {"agent_path": None}
    return found


def named(
    options: SSHClientConnectionOptions, name: str, default: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return what a list in the configuration has; `none` is an empty one."""
    said = options.config.get(name)
    return tuple(said) if isinstance(said, list) else default


def _paths(options: SSHClientConnectionOptions, name: str) -> list[Path]:
    return [Path(path).expanduser() for path in named(options, name)]
