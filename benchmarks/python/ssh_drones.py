# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be many drones: SSH servers whose every command ends well at once.

python ssh_drones.py COUNT HOST_KEY AUTHORIZED_KEYS prints their ports as JSON, and ends
when its input does.
"""

import asyncio
import json
import resource
import sys

import asyncssh


async def main(count: int, host_key: str, authorized: str) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def process(asked: asyncssh.SSHServerProcess[str]) -> None:
        # Who looks where it is gets an answer: pyinfra asks for a temporary folder.
        asked.stdout.write("/tmp\n" if "TMP" in (asked.command or "") else "ok\n")
        asked.exit(0)

    keys = asyncssh.read_private_key(host_key)
    clients = asyncssh.read_authorized_keys(authorized)
    servers = [
        await asyncssh.listen(
            *("127.0.0.1", 0),
            server_host_keys=[keys],
            authorized_client_keys=clients,
            process_factory=process,
            reuse_address=True,
        )
        for _ in range(count)
    ]
    print(json.dumps([server.get_port() for server in servers]), flush=True)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
