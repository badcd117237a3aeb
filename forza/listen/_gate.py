# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Let clients in that speak TLS and, if that is asked for, show who they are."""

from __future__ import annotations

import os
from errno import EPROTO

from forza._errors import SinkError
from forza._pem import load_authorities, load_chain
from forza._secured import Secured, make_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from _socket import socket
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable

_CERT_REQUIRED = 2


class Gate:
    """Shake hands with many clients at once.

    Files that have been replaced are read again, with the next client.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        cert: str,
        key: str,
        ca: str,
        say: Callable[[str], object],
    ) -> None:
        """Raises SinkError if a file is of no use."""
        self.refused = 0
        self._loop = loop
        self._files = cert, key, ca
        self._say = say
        self._said: set[str] = set()
        # The one that began first comes first.
        self._tasks: dict[Task[None], None] = {}
        self._stamp = self._stamps()
        try:
            self._context = self._load()
        except OSError as error:
            raise SinkError(error.strerror or str(error)) from error

    @property
    def waiting(self) -> int:
        """How many clients are neither in nor turned away."""
        return len(self._tasks)

    def admit(self, sock: socket, enter_cb: Callable[[Secured], object]) -> None:
        """Take a new connection; call back when, and if, all is well with it."""
        task = self._loop.create_task(self._admit(sock, enter_cb))
        self._tasks[task] = None

        def ended(task: Task[None]) -> None:
            self._tasks.pop(task, None)
            if task.cancelled():  # perhaps before it had begun
                sock.close()

        task.add_done_callback(ended)

    def turn_away(self) -> bool:
        """Close the connection that has been waiting for longest, if there is one."""
        for task in self._tasks:
            del self._tasks[task]
            task.cancel()
            return True
        return False

    async def _admit(self, sock: socket, enter_cb: Callable[[Secured], object]) -> None:
        try:
            secured = Secured(self._current(), sock)
            await secured.shake_hands(self._loop)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            # Who only knocks, or goes away, is not worth a word.
            if error.errno == EPROTO:
                self.refused += 1
                self._say_once(f"a client is not let in: {error.strerror}")
        else:
            enter_cb(secured)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)

    def _current(self) -> ssl.SSLContext:
        """Return what OpenSSL goes by, as the files are now, or were when good."""
        stamps = self._stamps()
        if stamps != self._stamp:
            self._stamp = stamps
            try:
                self._context = self._load()
            except OSError as error:
                self._say(f"{error.strerror}; still using what was read before")
        return self._context

    def _load(self) -> ssl.SSLContext:
        cert, key, ca = self._files
        context = make_context(server=True)
        load_chain(context, cert, key)
        if ca:
            load_authorities(context, ca)
            context.verify_mode = _CERT_REQUIRED  # type: ignore[assignment]
        return context

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        stamps: list[tuple[int, int, int] | None] = []
        for path in filter(None, self._files):
            try:
                found = os.stat(path)
            except OSError:
                stamps.append(None)
            else:
                stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return stamps
