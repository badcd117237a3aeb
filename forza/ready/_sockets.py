# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Ask the kernel which sockets listen, and which processes hold them."""

from __future__ import annotations

import _socket
import os
from sys import byteorder

from forza._files import CLOSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    # The socket's inode, and where it listens: `port` and `address`, or `path`.
    Listening = dict[int, dict[str, object]]

_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_LISTEN = 10  # TCP_LISTEN, which is also the state of a unix socket that listens
_SHOW_NAME = 1
_HEADER = 16
_PATIENCE = 1.0
_MOST = 16384  # the kernel sends no more at once than one asks for
_UNIX_LISTENS = 0x10000  # __SO_ACCEPTCON, in /proc/net/unix


class Diagnosis:
    """A netlink socket that lists the sockets of this network namespace.

    The kernel is asked for those in the state LISTEN alone, so that a look costs the
    same beside ten connections and beside ten thousand: 0.1 ms, and no privilege.
    """

    def __init__(self) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_AF_NETLINK, kind, _NETLINK_SOCK_DIAG)
        self._socket.settimeout(_PATIENCE)

    def close(self) -> None:
        self._socket.close()

    def inodes(self) -> set[int]:
        """Return the inodes of all that listen on this host, which may be thousands.

        Raises OSError where the kernel was built without this.
        """
        return {inode for inode, _, _ in self._listening()}

    def where(self, inodes: Container[int]) -> Listening:
        """Return where these listen, as far as they still do. Raises OSError."""
        found: Listening = {}
        for inode, family, message in self._listening():
            if inode not in inodes:
                continue
            if family == _AF_UNIX:
                found[inode] = {"path": _name(message[16:])}
            else:
                # struct inet_diag_msg; the ports and addresses are in network order
                port = int.from_bytes(message[4:6], "big")
                size = 4 if family == _AF_INET else 16
                address = _socket.inet_ntop(family, message[8 : 8 + size])
                found[inode] = {"port": port, "address": address}
        return found

    def _listening(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield inode, family and what the kernel says of each socket that listens."""
        states = _int(1 << _LISTEN)
        for family in (_AF_INET, _AF_INET6):
            # struct inet_diag_req_v2: family, protocol, what else to show, states, id
            request = bytes((family, _socket.IPPROTO_TCP, 0, 0)) + states + bytes(48)
            for message in self._dump(request):
                yield _number(message, 68), family, message
        # struct unix_diag_req: family, protocol, states, inode, what to show, cookie
        request = bytes((_AF_UNIX, 0, 0, 0)) + states + _int(0) + _int(_SHOW_NAME)
        for message in self._dump(request + bytes(8)):
            if _name(message[16:]):
                yield _number(message, 4), _AF_UNIX, message

    def _dump(self, request: bytes) -> Iterator[bytes]:
        kind = _SOCK_DIAG_BY_FAMILY | _REQUEST_DUMP << 16
        header = _int(_HEADER + len(request)) + _int(kind) + bytes(8)
        self._socket.send(header + request)
        while True:
            data = self._socket.recv(_MOST)
            at = 0
            while at < len(data):
                size, kind = _number(data, at), _number(data, at + 4) & 0xFFFF
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = 2**32 - _number(data, at + _HEADER)
                    raise OSError(code, os.strerror(code))
                yield data[at + _HEADER : at + size]
                at += size + 3 & ~3


def listening_by_proc(pid: int) -> Listening:
    """Return where all listen, read from /proc/PID/net: for a kernel without
    sock_diag. Slow where there are many connections."""
    found: Listening = {}
    for family, file in (_AF_INET, "tcp"), (_AF_INET6, "tcp6"):
        for line in _lines(f"/proc/{pid}/net/{file}"):
            words = line.split()
            if int(words[3], 16) != _LISTEN:
                continue
            packed, _, port = words[1].partition(b":")
            # Each group of four bytes is one number in the machine's own order.
            groups = (packed[at : at + 8] for at in range(0, len(packed), 8))
            raw = b"".join(int(group, 16).to_bytes(4, byteorder) for group in groups)
            address = _socket.inet_ntop(family, raw)
            found[int(words[9])] = {"port": int(port, 16), "address": address}
    for line in _lines(f"/proc/{pid}/net/unix"):
        unix = line.rstrip(b"\n").split(None, 7)
        if len(unix) == 8 and int(unix[3], 16) & _UNIX_LISTENS:
            found[int(unix[6])] = {"path": os.fsdecode(unix[7])}
    return found


def holders(pids: Iterable[int], inodes: set[int]) -> dict[int, int]:
    """Return which of these sockets these processes hold, and one that does of each.

    Whose descriptors cannot be seen (another user's, a setuid program's, unless we
    are root) holds none. Raises OSError if nothing can be seen for now.
    """
    found: dict[int, int] = {}
    for pid in pids:
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except CLOSED:
            continue
        for name in names:
            try:
                link = os.readlink(f"/proc/{pid}/fd/{name}")
            except CLOSED:
                continue
            if link.startswith("socket:[") and (inode := int(link[8:-1])) in inodes:
                found.setdefault(inode, pid)
        if len(found) == len(inodes):
            break
    return found


def _int(number: int) -> bytes:
    return number.to_bytes(4, byteorder)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], byteorder)


def _name(attributes: bytes) -> str:
    """Return the name of a unix socket, of the abstract namespace as `@name`."""
    while len(attributes) > 4:
        length = _number(attributes, 0) & 0xFFFF
        if _number(attributes, 0) >> 16 == 0:  # UNIX_DIAG_NAME
            name = attributes[4:length]
            if name[:1] == b"\0":
                return "@" + os.fsdecode(name[1:])
            return os.fsdecode(name.rstrip(b"\0"))
        attributes = attributes[max(4, length + 3 & ~3) :]
    return ""


def _lines(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return file.readlines()[1:]
    except OSError:
        return []
