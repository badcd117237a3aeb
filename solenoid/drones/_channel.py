# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold one running command: bounded in memory, whatever it prints or is sent."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncssh

from solenoid.drones._errors import SessionError
from solenoid.drones._session import Completed

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

    from solenoid.drones._inventory import Drone

_KEPT = 256 * 1024
_PIECE = 64 * 1024


class _Tail:
    """The end of a stream."""

    def __init__(self, watch: Callable[[bytes], None] | None) -> None:
        self.data = bytearray()
        self.dropped = 0
        self._watch = watch

    def add(self, data: bytes) -> None:
        self.data += data
        # Twice the size, so that not every piece moves all the others.
        if len(self.data) > 2 * _KEPT:
            self.cut()
        if self._watch is not None:
            self._watch(data)

    def cut(self) -> None:
        over = len(self.data) - _KEPT
        if over > 0:
            del self.data[:over]
            self.dropped += over


class Channel(asyncssh.SSHClientSession[bytes]):
    """A command that runs on a drone; asyncssh calls it as things happen."""

    def __init__(
        self,
        drone: Drone,
        on_output: Callable[[bytes], None] | None,
        on_error: Callable[[bytes], None] | None,
    ) -> None:
        self.drone = drone
        self._stdout = _Tail(on_output)
        self._stderr = _Tail(on_error)
        self._status: int | None = None
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writable = asyncio.Event()
        self._writable.set()
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    # --- What asyncssh calls ------------------------------------------------------

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel that this is the session of."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Take what the command has printed."""
        (self._stdout if datatype is None else self._stderr).add(data)

    def exit_status_received(self, status: int) -> None:
        """Take the status."""
        self._status = status

    def exit_signal_received(
        self, signal: str, core_dumped: bool, msg: str, lang: str
    ) -> None:
        """Take the signal, as a shell would say it."""
        self._status = 128 + _number(signal)

    def pause_writing(self) -> None:
        """Let `feed` wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `feed` go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let whoever waits know how it ended."""
        self._writable.set()
        if self._ended.done():
            return
        if self._status is None:
            why = f": {exc}" if exc is not None and str(exc) else ""
            self._ended.set_exception(
                SessionError(self.drone, "lost", f"the connection was lost{why}")
            )
            # Nobody may be waiting; then nobody wants to know.
            self._ended.exception()
        else:
            self._ended.set_result(None)

    # --- What sessions call -------------------------------------------------------

    @property
    def over(self) -> bool:
        """Say whether the command has ended, or was lost."""
        return self._ended.done()

    def write(self, data: bytes) -> None:
        """Send to the command's input what is short."""
        if self._channel is not None and not self.over:
            with suppress(BrokenPipeError):
                self._channel.write(data)

    async def feed(self, source: bytes | AsyncIterable[bytes]) -> None:
        """Send all input and its end; a command that ends before is not waited for."""
        if isinstance(source, bytes):
            for begin in range(0, len(source), _PIECE):
                if not await self._send(source[begin : begin + _PIECE]):
                    return
        else:
            async for piece in source:
                if not await self._send(piece):
                    return
        if self._channel is not None and not self.over:
            with suppress(BrokenPipeError):
                self._channel.write_eof()

    async def _send(self, data: bytes) -> bool:
        await self._writable.wait()
        self.write(data)
        return not self.over

    def hold(self) -> None:
        """Take no more output for now: the command will have to wait."""
        if self._channel is not None and not self.over:
            self._channel.pause_reading()

    def release(self) -> None:
        """Take output again."""
        if self._channel is not None and not self.over:
            self._channel.resume_reading()

    async def wait(self) -> Completed:
        """Wait for the end. Raises SessionError if the connection is lost before."""
        # Shielded: more than one may wait, and one of them be cancelled.
        await asyncio.shield(self._ended)
        assert self._status is not None
        self._stdout.cut()
        self._stderr.cut()
        return Completed(
            self._status,
            bytes(self._stdout.data),
            bytes(self._stderr.data),
            self._stdout.dropped + self._stderr.dropped,
        )

    def close(self) -> None:
        """End the command's input and output."""
        if self._channel is not None:
            self._channel.close()


async def open_channel(
    connection: asyncssh.SSHClientConnection,
    drone: Drone,
    command: str,
    on_output: Callable[[bytes], None] | None,
    on_error: Callable[[bytes], None] | None,
) -> Channel:
    """Start a command. Raises SessionError."""
    try:
        channel = Channel(drone, on_output, on_error)
        await connection.create_session(
            lambda: channel,
            command,
            # What ~/.ssh/config says for people at a terminal does not hold here.
            subsystem=None,
            request_pty=False,
            x11_forwarding=False,
            encoding=None,
        )
    except asyncssh.ChannelOpenError as error:
        if connection.is_closed():
            raise SessionError(drone, "lost", "the connection was lost") from error
        raise SessionError(
            drone, "refused", f"the server opens no channel: {error}"
        ) from error
    except (asyncssh.Error, OSError) as error:
        raise SessionError(
            drone, "lost", f"the connection was lost: {error}"
        ) from error
    return channel


def _number(name: str) -> int:
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        return 0
