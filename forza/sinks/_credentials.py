# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make sure who is at the other end of a connection, and show who we are."""

from __future__ import annotations

import os

from forza._pem import load_authorities, load_chain
from forza._secured import BARE, Secured, make_context, ssl
from forza.sinks._client import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Mapping


class Credentials:
    """Whom to trust, and what to show: read anew for each connection, so that files
    may be replaced at any time."""

    __slots__ = ("_folder", "_options")

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = options
        # The system's authorities as one file take 0.9 MB. From a folder OpenSSL reads
        # the one that it needs. Not every system has such a folder, or has all in it.
        self._folder = None if "ca" in options else _folder()

    def context(self) -> ssl.SSLContext:
        """Return what OpenSSL goes by.

        Raises OSError whose `strerror` names the file, and what is wrong with it.
        """
        context = make_context()
        options = self._options
        if "ca" in options:
            load_authorities(context, options["ca"])
        elif self._folder is not None:
            context.load_verify_locations(None, self._folder)
        else:
            context.set_default_verify_paths()
        if "cert" in options:
            load_chain(context, options["cert"], options.get("key", options["cert"]))
        return context

    async def secure(
        self, loop: AbstractEventLoop, sock: socket, name: str, server: str
    ) -> Link | None:
        """Secure a connection to `server`; if that fails, close it.

        Return None if another attempt, at once, may fare better. Raises OSError.
        """
        try:
            secured = Secured(self.context(), sock, server)
        except BaseException:
            sock.close()
            raise
        link = Link(name, sock)
        link.recv, link.write = secured.recv, lambda _, data: secured.send(data)
        link.goodbye, link.lingers = secured.goodbye, True
        try:
            await secured.shake_hands(loop)
            await secured.hear_verdict(loop)
        except BaseException as error:
            link.close()
            if self._folder is not None:
                from forza._refusals import is_unknown

                if is_unknown(error.__cause__):
                    self._folder = None
                    return None
            raise
        return link


def _folder() -> str | None:
    """Return the folder of the system's authorities, if OpenSSL can look them up there,
    and the user has not named a file of others."""
    if not BARE:
        return None
    file_variable, _, folder_variable, folder = ssl.get_default_verify_paths()  # type: ignore[misc]
    if file_variable in os.environ:
        return None
    folder = os.environ.get(folder_variable, folder)
    try:
        is_indexed = any(name.endswith(".0") for name in os.listdir(folder))
    except OSError:
        return None
    return folder if is_indexed else None
