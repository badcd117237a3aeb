# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell whoever has started us how it goes: by a descriptor, or as systemd is told."""

from __future__ import annotations

import os

VARIABLE = "NOTIFY_SOCKET"


def tell_line(fd: int, line: bytes) -> None:
    """Write the start event to the descriptor, and close it: it is the only line."""
    try:
        os.write(fd, line)
    except OSError:  # nobody waits for it any more
        pass
    os.close(fd)


def notify(socket: str, text: str) -> None:
    """Send lines like READY=1 to a service manager's NOTIFY_SOCKET."""
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_DGRAM
    from _socket import socket as Socket

    try:
        end = Socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC)
        try:
            end.setblocking(False)
            end.sendto(text.encode(), socket.replace("@", "\0", 1))
        finally:
            end.close()
    except OSError:  # it has no time, or is gone: the app does not depend on it
        pass
