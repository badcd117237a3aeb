# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run commands on one drone over one connection."""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from solenoid.drones._errors import CommandError, SessionError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from asyncssh import SSHClientConnection, SSHReader, SSHWriter

    from solenoid.drones._channel import Channel
    from solenoid.drones._inventory import Drone
    from solenoid.drones._ssh import Ssh

# Becomes its arguments, as root. One command for all drones, whoever logs in.
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; fi; exec sudo -n -- "$@"'
# A stream that was cut ends like one that is complete: only the size tells.
_PUT = """\
trap '' PIPE; umask 077; part=$1.$$.part
cat >"$part" && got=$(wc -c <"$part") && [ "$got" -eq "$2" ] && mv -f -- "$part" "$1" &&
exit; rm -f -- "$part"; echo "cannot write $1: ${got:-0} of $2 bytes" >&2; exit 74
"""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended.

    `status` is 128+N where signal N ended it. Of `stdout` and `stderr` only the end is
    kept where they were long; `dropped` counts the bytes before it.
    """

    status: int
    stdout: bytes
    stderr: bytes
    dropped: int = 0


class Session:
    """A connection to one drone, made by `Ssh.session`, for as long as it is entered.

    Several commands may run at once (OpenSSH allows ten by default).
    """

    def __init__(self, ssh: Ssh, drone: Drone) -> None:
        self.drone = drone
        self.ssh = ssh
        self._connection: SSHClientConnection | None = None

    async def __aenter__(self) -> Self:
        self._connection = await self.ssh.connect(self.drone)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            # A drone that has gone silent does not answer the goodbye either.
            try:
                async with asyncio.timeout(5):
                    await connection.wait_closed()
            except TimeoutError:
                connection.abort()

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: bytes | AsyncIterable[bytes] = b"",
        timeout: float | None = None,  # noqa: ASYNC109 - with an error of its own
        on_output: Callable[[bytes], None] | None = None,
        on_error: Callable[[bytes], None] | None = None,
        check: bool = False,
    ) -> Completed:
        """Run a command, with no shell's view of its words, and wait for its end.

        `input` is what it reads, then end of file: the way for secrets, which never
        are in a command line. `on_output` and `on_error` get what it prints, as it
        comes; of what is returned the last 256 KiB are kept. `check` raises
        CommandError unless the status is 0.

        Raises SessionError (`timeout`, `lost`). When that happens, or this is
        cancelled, the command sees its input and output end; one that goes on without
        them does go on.
        """
        channel = await self.open(argv, on_output=on_output, on_error=on_error)
        try:
            async with asyncio.timeout(timeout):
                await channel.feed(input)
                completed = await channel.wait()
        except TimeoutError:
            raise SessionError(
                self.drone, "timeout", f"{argv[0]} did not end in {timeout:g} s"
            ) from None
        finally:
            channel.close()
        if check and completed.status:
            raise CommandError(self.drone, _why(argv, completed), completed)
        return completed

    async def open(
        self,
        argv: Sequence[str],
        *,
        on_output: Callable[[bytes], None] | None = None,
        on_error: Callable[[bytes], None] | None = None,
    ) -> Channel:
        """Start a command to talk with; the caller closes the channel."""
        from solenoid.drones._channel import open_channel

        words = ["/bin/sh", "-c", _AS_ROOT, "sh", *argv] if self.drone.sudo else argv
        return await open_channel(
            self._connected(), self.drone, shlex.join(words), on_output, on_error
        )

    async def put(self, local: Path, remote: str) -> None:
        """Copy a file to the drone; it appears there when it is complete."""
        size = (await asyncio.to_thread(local.stat)).st_size
        await self.run(
            ["/bin/sh", "-c", _PUT, "sh", remote, str(size)],
            input=_pieces(local),
            check=True,
        )

    async def forward(
        self, port: int, host: str = "127.0.0.1"
    ) -> tuple[SSHReader[bytes], SSHWriter[bytes]]:
        """Connect to a port as the drone sees it, through this connection."""
        import asyncssh

        try:
            return await self._connected().open_connection(host, port, encoding=None)
        except asyncssh.ChannelOpenError as error:
            raise SessionError(
                self.drone, "refused", f"cannot connect to {host}:{port}: {error}"
            ) from error

    def _connected(self) -> SSHClientConnection:
        if self._connection is None:
            raise RuntimeError("the session is not entered")
        return self._connection


async def _pieces(path: Path) -> AsyncIterable[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 18):
            yield piece


def _why(argv: Sequence[str], completed: Completed) -> str:
    lines = completed.stderr.decode(errors="replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    return f"{argv[0]} failed with status {completed.status}{said}"
