# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Store what was received, and say when it is safe."""

from __future__ import annotations

import errno
import os
from _thread import start_new_thread
from fcntl import LOCK_EX, LOCK_NB, flock

from forza._errors import SinkError
from forza.listen._boots import Boots
from forza.listen._memory import note, recall, save
from forza.sinks._logfile import LogFile, sync_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_RETRY_SECONDS = 1.0
# After a kill at most so much, and what one sync covers, is read at the next start.
_NOTE_EVERY_BYTES = 64 * 1024 * 1024


class Output:
    """A descriptor that takes what is written to it: now, or when it has room.

    While it is `busy`, nobody should bring more; `ready_cb()` is called when it is not
    any more, `failed_cb(error)` when it can never be written to again.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        name: str,
        fd: int,
        say: Callable[[str], object],
        write: Callable[[int, bytes | memoryview], int] = os.write,
        render: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.name = name
        self.boots = Boots()
        self.ready_cb: Callable[[], object] = bool
        self.failed_cb: Callable[[OSError], object] = bool
        self._loop = loop
        self._fd = fd
        self._say = say
        self._write = write
        self._render = render
        self._pending: bytes | memoryview = b""
        self._said_full = False

    @property
    def busy(self) -> bool:
        """Whether some of what was written waits for room."""
        return bool(self._pending)

    def write(self, data: bytes) -> None:
        """Write whole lines."""
        assert not self._pending
        self._pending = self._render(data) if self._render is not None else data
        self._push()

    def sync(self, done: Callable[[OSError | None], object]) -> None:
        """Call back when all that was written so far is where it shall be."""
        self._loop.call_soon(done, None)

    def close(self) -> None:
        """Close it; whoever has more to write has waited until it is not busy."""
        self._loop.remove_writer(self._fd)

    def _push(self) -> None:
        while self._pending:
            try:
                written = self._write(self._fd, self._pending)
            except (BlockingIOError, InterruptedError):
                self._wait()
                return
            except OSError as error:
                if error.errno not in _FULL:
                    self._pending = b""
                    self.failed_cb(error)
                    return
                self._say_full(error)
                self._loop.call_later(_RETRY_SECONDS, self._go_on)
                return
            rest = memoryview(self._pending)[written:]
            self._pending = rest if len(rest) else b""
        self._said_full = False

    def _wait(self) -> None:
        try:
            self._loop.add_writer(self._fd, self._go_on)
        except PermissionError:  # nothing that could be waited for
            self._loop.call_later(_RETRY_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._loop.remove_writer(self._fd)
        self._push()
        if not self._pending:
            self.ready_cb()

    def _say_full(self, error: OSError) -> None:
        if not self._said_full:
            self._said_full = True
            reason = os.strerror(error.errno or 0).lower()
            self._say(f"cannot write to {self.name}: {reason}; trying again")


class FileOutput(Output):
    """A file: safe once it is synced, and remembered with what it has."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        path: str,
        most: int,
        keep: int,
        say: Callable[[str], object],
    ) -> None:
        boots, end = Boots(), None
        if os.path.isfile(path):
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _lock(fd, path)  # before the end of its last line is looked at
                boots, end = recall(path)
            finally:
                os.close(fd)
        self._file = LogFile(path, most, keep, say, durable=True, end=end)
        super().__init__(loop, path, self._file.fd, say, self._file.write)
        self.boots = boots
        self._unnoted = _NOTE_EVERY_BYTES  # what was recalled is worth a note
        self._turns = self._file.turns
        if self._file.regular:
            _lock(self._fd, path)
            sync_folder(path)

    def write(self, data: bytes) -> None:
        """Write whole lines."""
        self._unnoted += len(data)
        super().write(data)
        if self._file.turns != self._turns:
            self._turns = self._file.turns
            self._unnoted = _NOTE_EVERY_BYTES
            _lock(self._fd, self.name)

    def sync(self, done: Callable[[OSError | None], object]) -> None:
        """Sync the file in a thread of its own, and the note on it if that is due."""
        if not self._file.regular:
            super().sync(done)
            return
        text = b""
        if self._unnoted >= _NOTE_EVERY_BYTES:
            self._unnoted = 0
            text = note(self._fd, self.boots)
        try:
            start_new_thread(self._sync, (text, done))
        except RuntimeError:  # no thread to be had: all wait, then
            self._sync(text, done)

    def reopen(self) -> None:
        """Write to the file that has the name now."""
        self._file.reopen()

    def close(self) -> None:
        """Close it, and leave a note for the next start."""
        super().close()
        if self._file.regular:
            save(self.name, note(self._fd, self.boots))
        self._file.close()

    def _sync(self, text: bytes, done: Callable[[OSError | None], object]) -> None:
        failure = None
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            failure = error
        if text and failure is None:
            save(self.name, text)
        try:
            self._loop.call_soon_threadsafe(done, failure)
        except RuntimeError:  # the loop was closed meanwhile
            pass


def _lock(fd: int, path: str) -> None:
    """Refuse a file that another listener writes to: each would miss repeats."""
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except OSError as error:
        raise SinkError(f"cannot write to {path}: another forza listen does") from error
