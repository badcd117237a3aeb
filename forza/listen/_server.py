# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take events from many monitors, store each once, and say so when they are safe.

The receiver greets with one line of JSON. From then on it says, for each connection,
how far what came on it is stored: `K` events of batch `S` of boot `B`, and all before.
"""

from __future__ import annotations

from _socket import (
    AF_UNIX,
    IPPROTO_TCP,
    SO_KEEPALIVE,
    SOL_SOCKET,
    TCP_KEEPIDLE,
    TCP_NODELAY,
    socket,
)
from errno import EINTR, ETIMEDOUT

from orjson import JSONDecodeError, loads

from forza.listen._boots import Boots, Sifter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle
    from collections.abc import Callable

    from forza._secured import Secured
    from forza.listen._boots import Place
    from forza.listen._gate import Gate
    from forza.listen._output import Output

GREETING = b'{"forza":"listen","version":1}\n'
_ACK = b'{"ack":{"boot":"%b","seq":%d,"events":%d}}\n'

# A sync covers what came in so much time, or so many bytes: of a steady stream, that
# is; what comes after a pause is synced at once.
_SYNC_SECONDS = 0.05
_SYNC_BYTES = 256 * 1024
_READ_BYTES = 256 * 1024
_READS_AT_ONCE = 8
# The longest line of forza's own: 64 KiB of control characters, escaped, and again as
# base64. What is longer still is cut, each piece with an end of its own.
_LONGEST = 1024 * 1024
# All unfinished lines together. Above it, whoever has had one for longest must go.
_UNFINISHED = 64 * 1024 * 1024
_KEEPALIVE_IDLE = 60
_ACCEPT_AT_ONCE = 64
_BREATHE_SECONDS = 0.2
# On leaving, what has arrived already is still taken, up to this from each.
_LAST_BYTES = 1024 * 1024
_LEAVE_SECONDS = 5.0


class Connection:
    """One client: what it has sent of a line, and what it is told."""

    __slots__ = ("acked", "due", "ended", "reply", "sifter", "sock", "tail")

    def __init__(self, sock: socket | Secured, boots: Boots) -> None:
        self.sock = sock
        self.sifter = Sifter(boots)
        self.tail = bytearray()
        self.acked: Place | None = None
        self.due: Place | None = None  # to be acknowledged
        self.reply = GREETING
        self.ended = False


class Server:
    """Accept, read, sift, store, acknowledge: on one loop, without ever waiting.

    `closed_cb(error)` is called once, after `stop` or when the output has failed.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        listeners: list[socket],
        output: Output,
        most: int,
        closed_cb: Callable[[OSError | None], object],
        gate: Gate | None = None,
    ) -> None:
        self.stored = self.repeats = self.foreign = self.torn = self.refused = 0
        self._loop = loop
        self._listeners = listeners
        self._output = output
        self._most = most
        self._gate = gate
        self._closed_cb: Callable[[OSError | None], object] | None = closed_cb
        # The one that has been silent for longest comes first.
        self._connections: dict[int, Connection] = {}
        self._unfinished = 0
        self._unsynced = 0
        # Who has sent something since the last sync began, and who before it.
        self._fresh: dict[Connection, None] = {}
        self._syncing: dict[Connection, Place | None] | None = None
        self._synced_at = 0.0
        self._timer: TimerHandle | None = None
        self._stopping = False
        output.ready_cb = self._ready
        output.failed_cb = self._close
        for listener in listeners:
            loop.add_reader(listener.fileno(), self._accept, listener)

    @property
    def connections(self) -> int:
        """How many clients there are."""
        waiting = self._gate.waiting if self._gate is not None else 0
        return len(self._connections) + waiting

    def stop(self) -> None:
        """Take what has arrived, store it, acknowledge it, and leave."""
        if self._stopping:
            self._close(InterruptedError(EINTR))
            return
        self._stopping = True
        self._stop_listening()
        for connection in tuple(self._connections.values()):
            self._loop.remove_reader(connection.sock.fileno())
            left = _LAST_BYTES
            while left > 0 and not self._output.busy:
                size = self._read(connection)
                if size <= 0:
                    break
                left -= size
        self._loop.call_later(_LEAVE_SECONDS, self._close, TimeoutError(ETIMEDOUT))
        self._sync()

    # The way in.

    def _accept(self, listener: socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors, no memory
                self._make_room()
                self._loop.remove_reader(listener.fileno())
                self._loop.call_later(_BREATHE_SECONDS, self._listen, listener)
                return
            sock = socket(fileno=fd)
            sock.setblocking(False)
            if self.connections >= self._most:
                self._make_room()
            if listener.family != AF_UNIX:
                sock.setsockopt(SOL_SOCKET, SO_KEEPALIVE, 1)
                sock.setsockopt(IPPROTO_TCP, TCP_KEEPIDLE, _KEEPALIVE_IDLE)
                # What it is told, it is told at once, also after a session ticket.
                sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
                if self._gate is not None:
                    self._gate.admit(sock, self._let_in)
                    continue
            self._enter(sock)

    def _let_in(self, secured: Secured) -> None:
        self._enter(secured)
        if connection := self._connections.get(secured.fileno()):
            # What has come with the handshake, which no reader would be told of.
            self._read(connection)

    def _enter(self, sock: socket | Secured) -> None:
        """Greet a client, and begin to hear it."""
        fd = sock.fileno()
        connection = Connection(sock, self._output.boots)
        self._connections[fd] = connection
        self._say(connection)
        if not self._output.busy and fd in self._connections:
            self._loop.add_reader(fd, self._readable, connection)

    def _listen(self, listener: socket) -> None:
        if not self._stopping:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _make_room(self) -> None:
        """Close the connection that has been silent for longest."""
        if self._gate is not None and self._gate.turn_away():
            self.refused += 1
            return
        for connection in self._connections.values():
            self.refused += 1
            self._drop(connection)
            return

    def _readable(self, connection: Connection) -> None:
        # Until nothing comes: libuv watches a socket in error no longer once it has
        # said so, and data that came before the error would hide it.
        for _ in range(_READS_AT_ONCE):
            if self._output.busy or self._read(connection) <= 0:
                return
        fd = connection.sock.fileno()
        if fd in self._connections:  # the others' turn
            self._loop.remove_reader(fd)
            self._loop.add_reader(fd, self._readable, connection)

    def _read(self, connection: Connection) -> int:
        """Take what there is; return how much, 0 at the end, -1 for nothing as yet."""
        sock = connection.sock
        try:
            data = sock.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return -1
        except OSError:  # reset: what it has not finished will be sent again
            self._drop(connection)
            return 0
        if not data:
            self._end(connection)
            return 0
        fd = sock.fileno()
        self._connections[fd] = self._connections.pop(fd)  # to the end
        tail = connection.tail
        end = data.rfind(b"\n") + 1
        if end:
            self._unfinished -= len(tail)
            lines = bytes(tail) + data[:end] if tail else data[:end]
            tail.clear()
            self._store(connection, lines)
        if end < len(data):
            tail += data[end:]
            self._unfinished += len(data) - end
            if len(tail) > _LONGEST:
                self._unfinished -= len(tail)
                self._store(connection, bytes(tail) + b"\n")
                tail.clear()
            elif self._unfinished > _UNFINISHED:
                self._drop_unfinished()
        return len(data)

    def _store(self, connection: Connection, lines: bytes) -> None:
        sifter = connection.sifter
        repeats = sifter.repeats
        kept = sifter.sift(lines)
        self.repeats += sifter.repeats - repeats
        self._fresh[connection] = None
        self._unsynced += len(lines)
        if kept:
            self.stored += kept.count(b"\n")
            self._output.write(kept)
            if self._output.busy:
                self._hold()
        self._sync_soon()

    def _end(self, connection: Connection) -> None:
        """Nothing more will come: keep a last line without an end if it is whole."""
        self._loop.remove_reader(connection.sock.fileno())
        tail = bytes(connection.tail)
        self._unfinished -= len(tail)
        connection.tail.clear()
        if tail and _is_whole(tail):
            self._store(connection, tail + b"\n")
        elif tail:
            self.torn += 1
        connection.ended = True
        if connection in self._fresh:
            self._sync_soon(now=True)
        elif connection not in (self._syncing or ()):
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        fd = connection.sock.fileno()
        if self._connections.pop(fd, None) is None:
            return
        self.foreign += connection.sifter.foreign
        self._unfinished -= len(connection.tail)
        self._fresh.pop(connection, None)
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        connection.sock.close()

    def _drop_unfinished(self) -> None:
        """Close the connection that has been silent for longest amid a line."""
        for connection in self._connections.values():
            if connection.tail:
                self.refused += 1
                self._drop(connection)
                return

    def _hold(self) -> None:
        for fd in self._connections:
            self._loop.remove_reader(fd)

    def _ready(self) -> None:
        if self._stopping:
            self._sync()
            return
        for fd, connection in self._connections.items():
            if not connection.ended:
                self._loop.add_reader(fd, self._readable, connection)
        self._sync_soon()

    # The way back.

    def _sync_soon(self, *, now: bool = False) -> None:
        """Begin a sync, or see to it that one will begin."""
        if self._syncing is not None or self._output.busy or self._stopping:
            return
        due = self._synced_at + _SYNC_SECONDS
        if now or self._unsynced >= _SYNC_BYTES or self._loop.time() >= due:
            self._sync()
        elif self._timer is None:
            self._timer = self._loop.call_at(due, self._sync)

    def _sync(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._syncing is not None or self._output.busy:
            return
        self._unsynced = 0
        self._syncing = {c: c.sifter.place for c in self._fresh}
        self._fresh.clear()
        self._output.sync(self._synced)

    def _synced(self, error: OSError | None) -> None:
        if error is not None:
            self._close(error)
            return
        synced, self._syncing = self._syncing, None
        self._synced_at = self._loop.time()
        for connection, place in (synced or {}).items():
            if connection.sock.fileno() < 0:
                continue
            if place != connection.acked:
                connection.acked = connection.due = place
                self._say(connection)
            if connection.ended and connection not in self._fresh:
                self._drop(connection)
        if self._stopping and not self._fresh:
            self._close(None)
        elif self._fresh:
            ended = any(connection.ended for connection in self._fresh)
            self._sync_soon(now=ended or self._stopping)

    def _say(self, connection: Connection) -> None:
        """Send what it should be told, as far as it takes it."""
        fd = connection.sock.fileno()
        try:
            while connection.reply or connection.due:
                if not connection.reply and connection.due:
                    # The newest alone: it says all that older ones would have.
                    connection.reply = _ACK % connection.due
                    connection.due = None
                sent = connection.sock.send(connection.reply)
                connection.reply = connection.reply[sent:]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(fd, self._say, connection)
        except OSError:
            self._drop(connection)
        else:
            self._loop.remove_writer(fd)

    # The end.

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners = []
        if self._gate is not None:
            while self._gate.turn_away():
                pass

    def _close(self, error: OSError | None) -> None:
        closed_cb, self._closed_cb = self._closed_cb, None
        if closed_cb is None:
            return
        self._stopping = True
        self._stop_listening()
        for connection in tuple(self._connections.values()):
            self._drop(connection)
        closed_cb(error)


def _is_whole(line: bytes) -> bool:
    """Say whether a last line without an end is one, or the torso of an event."""
    try:
        loads(line)
    except JSONDecodeError:
        return not line.startswith(b"{")
    return True
