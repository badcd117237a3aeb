# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hear what the app's processes say by datagram: sd_notify, and the bind hook.

The socket is made before the app is spawned, since its name is in the app's
environment, and its descriptor stays open when the monitor replaces its interpreter.
"""

from __future__ import annotations

import _socket
import os
from stat import S_ISSOCK
from sys import byteorder

from forza import _proc
from forza._errors import ForzaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza.plugins.start import Start

_SCM_RIGHTS, _SCM_CREDENTIALS = 1, 2
_SO_PASSCRED = 16
_MSG_CMSG_CLOEXEC = 0x40000000
_LONGEST = 8192
# struct ucred, and as many descriptors as a message can carry.
_ANCILLARY = _socket.CMSG_SPACE(12) + _socket.CMSG_SPACE(253 * 4)
# In one go, so that a talkative app does not keep the monitor from all else.
_AT_ONCE = 16
# And so many times that when all is over.
_AT_LAST = 64
_ABRT = 6


def listen(path: str) -> tuple[int, str]:
    """Make the socket; return its descriptor, and its name as NOTIFY_SOCKET has it.

    Without a path it is in the abstract namespace: nothing to remove, and reachable
    by any user, but only from the same network namespace. Raises ForzaError.
    """
    kind = _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    sock = _socket.socket(_socket.AF_UNIX, kind)
    name = path or f"@forza/{os.urandom(8).hex()}"
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_PASSCRED, 1)
        if path:
            _remove_stale(path)
            sock.bind(path)
            os.chmod(path, 0o777)  # who may speak is decided by who it is
        else:
            sock.bind(f"\0{name[1:]}")
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise ForzaError(f"cannot listen on {name}: {reason}") from error
    return sock.detach(), name


def _remove_stale(path: str) -> None:
    """Remove the socket of a monitor that was killed; leave all else alone."""
    try:
        if not S_ISSOCK(os.lstat(path).st_mode):
            return  # bind says what is the matter
    except OSError:
        return
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass
    finally:
        probe.close()


class Notify:
    """Read the socket, and pass on what the app's own processes say.

    `asked` says whether sd_notify is a source of readiness.
    """

    def __init__(self, start: Start, fd: int, *, asked: bool) -> None:
        self._start = start
        self._monitor = start.monitor
        self._asked = asked
        self._watchdog: float | None = None
        self._fed_at = 0.0
        self._reloading = False
        os.set_inheritable(fd, False)
        self._fd = fd
        self._socket: _socket.socket | None = None

    def start(self) -> None:
        """Begin to read."""
        self._socket = _socket.socket(fileno=self._fd)
        self._monitor.loop.add_reader(self._fd, self.read)

    def close(self) -> None:
        """Take what there still is, and hear nothing any more."""
        if self._fd < 0:
            return
        if self._socket is None:
            self._socket = _socket.socket(fileno=self._fd)
        else:
            self._monitor.loop.remove_reader(self._fd)
            for _ in range(_AT_LAST):
                if not self.read():
                    break
        name = self._socket.getsockname()
        self._socket.close()
        self._fd = -1
        if isinstance(name, str) and name[:1] == "/":
            try:
                os.unlink(name)
            except OSError:
                pass

    def read(self) -> bool:
        """Take what has come; say whether there may be more."""
        return self._fd >= 0 and all(self._take_one() for _ in range(_AT_ONCE))

    def _take_one(self) -> bool:
        assert self._socket is not None
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(
                _LONGEST, _ANCILLARY, _MSG_CMSG_CLOEXEC
            )
        except OSError:  # no more
            return False
        pid = uid = 0
        fds: list[int] = []
        for _, kind, value in ancillary:
            numbers = [
                int.from_bytes(value[at : at + 4], byteorder)
                for at in range(0, len(value), 4)
            ]
            if kind == _SCM_CREDENTIALS:
                pid, uid, _ = numbers
            elif kind == _SCM_RIGHTS:
                fds += numbers
        try:
            if not flags & _socket.MSG_TRUNC and self._is_ours(pid, uid):
                self._message(data.decode(errors="replace"))
        finally:
            # Whoever has sent BARRIER=1 waits for just this, and descriptors to be
            # stored are not kept.
            for fd in fds:
                os.close(fd)
        return True

    async def guard(self, watchdog: float) -> None:
        """End the app when it is silent for so long, from now on."""
        self._watchdog = watchdog
        self._fed_at = self._monitor.clock()
        while (left := self._fed_at + self._watchdog - self._monitor.clock()) > 0:
            await self._monitor.sleep(left)
        self._bite(f"the app was silent for {self._watchdog:g} s")

    def _is_ours(self, pid: int, uid: int) -> bool:
        """Say whether the sender is one of the app's processes.

        One that has ended by now left no trace; then only its user tells, who might
        as well have traced the app.
        """
        process = self._monitor.process
        if process is None or not pid:
            return False
        try:
            descends = _proc.descends(pid, process.top)
        except OSError as error:  # better nobody's word than a stranger's
            reason = (error.strerror or "").lower()
            self._monitor.say(f"cannot see who speaks by sd_notify: {reason}")
            return False
        if descends is not None:
            return descends
        try:
            return os.stat(f"/proc/{process.pid}").st_uid == uid
        except OSError:
            return False

    def _message(self, text: str) -> None:
        fields = {}
        for line in text.split("\n"):
            name, equals, value = line.partition("=")
            if equals:
                fields[name] = value
        port, asked = (_whole(fields.get(f"X_FORZA_{n}")) for n in ("PORT", "ASKED"))
        if 0 < port < 65536:
            where: dict[str, object] = {"port": port}
            if address := _address(fields.get("X_FORZA_ADDRESS", "")):
                where["address"] = address
            if 0 < asked < 65536:
                where["asked"] = asked
            self._start.hear("port", where)
            return
        send = self._monitor.send
        if "STATUS" in fields:
            send("health/process/status", 1.0, fields["STATUS"])
        if extend := _whole(fields.get("EXTEND_TIMEOUT_USEC")):
            self._start.extend(extend / 1e6)
            self._monitor.extend(extend / 1e6)
        if fields.get("STOPPING") == "1":
            send("health/process/stopping", 1.0)
        if fields.get("RELOADING") == "1":
            self._reloading = True
            send("health/process/reload", 1.0)
        if fields.get("READY") == "1":
            if self._reloading:
                self._reloading = False
                send("health/process/reload", 0.0)
            elif self._asked:
                self._start.hear("notify")
        self._feed(fields)

    def _feed(self, fields: dict[str, str]) -> None:
        if self._watchdog is None:
            return
        if period := _whole(fields.get("WATCHDOG_USEC")):
            self._watchdog = period / 1e6
        if fields.get("WATCHDOG") == "1":
            self._fed_at = self._monitor.clock()
        elif fields.get("WATCHDOG") == "trigger":
            self._bite("the app says that it has failed")

    def _bite(self, why: str) -> None:
        self._monitor.say(f"watchdog: {why}")
        self._monitor.fail("watchdog", _ABRT)


def _whole(text: str | None) -> int:
    """Return a whole number, or 0 for what is none."""
    plain = text is not None and text.isascii() and text.isdigit() and len(text) < 18
    return int(text) if text is not None and plain else 0


def _address(packed: str) -> str:
    """Return the IPv4 or IPv6 address that these hexadecimal digits are."""
    family = {8: _socket.AF_INET, 32: _socket.AF_INET6}.get(len(packed))
    try:
        return _socket.inet_ntop(family, bytes.fromhex(packed)) if family else ""
    except (ValueError, OSError):
        return ""
