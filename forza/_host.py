# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name this host as ever: by its first IPv4 address that is not loopback."""

from __future__ import annotations

from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, if_nameindex, inet_ntoa, socket
from fcntl import ioctl
from os import uname

_SIOCGIFADDR = 0x8915
_NAME_BYTES = 16
_IFREQ_BYTES = 40


def host_name() -> str:
    """Return that address, or the host's name if there is none."""
    sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC)
    try:
        for _, name in if_nameindex():
            request = name.encode()[: _NAME_BYTES - 1].ljust(_IFREQ_BYTES, b"\0")
            try:
                answer = ioctl(sock.fileno(), _SIOCGIFADDR, request)
            except OSError:  # no IPv4 address on this interface
                continue
            address = answer[20:24]
            if address[0] != 127:
                return inet_ntoa(address)
    finally:
        sock.close()
    return uname().nodename
