# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold an app's deploy lock on the drone, for as long as the deployer shows life.

It is a lock of the kernel's, held by this process: whatever ends the process frees it,
and two can never have it. The process ends when its input does, or when nothing has
come in for the time of the lease. What is in the file is for people to read.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid.drones.remote import audit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FILE = "deploy.lock"
# How often one who waits tries again.
_EVERY = 0.25
_FLOCK = struct.Struct("hhqqi")


def now() -> float:
    """Return a time that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_file(app_dir: str) -> int:
    """Open the lock's file, which is never removed."""
    os.makedirs(app_dir, mode=0o755, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(os.path.join(app_dir, FILE), flags, 0o644)


def take(app_dir: str) -> int | None:
    """Take the lock and return its descriptor, or None if another process has it."""
    while True:
        file = open_file(app_dir)
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(file)
            return None
        # The folder was removed and made anew: this is a lock on nothing.
        if audit.is_still(os.path.join(app_dir, FILE), os.fstat(file)):
            return file
        os.close(file)


def holder(app_dir: str) -> dict[str, Any] | None:
    """Return who has the lock, by what the kernel says; `pid` 0 is out of our sight."""
    try:
        file = os.open(os.path.join(app_dir, FILE), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        # Asks whether we could have it, and takes nothing.
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            return None
        found = read(file)
        # The one before has left its own behind, until the next writes.
        said = found if found.get("pid") == pid else {}
        return {"owner": "?", "since": "?", "what": "?", **said, "pid": pid}
    finally:
        os.close(file)


def read(file: int) -> dict[str, Any]:
    """Return what was written last: nothing while it is just being written."""
    try:
        found = json.loads(os.pread(file, 1 << 16, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_busy(app_dir: str) -> bool:
    """Say whether a solenoid is at work in a run directory: it holds this lock then."""
    try:
        file = os.open(os.path.join(app_dir, "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


class Holder:
    """The process that waits for the lock, and then has it."""

    def __init__(self, order: Mapping[str, Any]) -> None:
        self.app_dir: str = order["app_dir"]
        self.base: str = order["base"]
        self.owner: str = order["owner"]
        self.what: str = order["what"]
        self.wait: float = order["wait"]
        self.lease: float = order["lease"]
        self.make: bool = order["make"]
        # Which run of a deployer's it is for, and what that calls this drone.
        self.whose = {"run": order["run"], "drone": order["drone"]}
        self.until = now() + self.lease
        self.rest = b""

    def run(self) -> int:
        """Wait, hold, release. Returns the process's status."""
        if not self.make and not os.path.isdir(self.app_dir):
            say(state="absent")
            return 1
        file = self.get()
        if file is None:
            return 1
        last = read(file)
        if self.is_twin(last):  # it has been here already
            say(state="busy", twin=True, **last)
            return 1
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        about = {"owner": self.owner, "since": since, "what": self.what, **self.whose}
        # What is written stays: the next one knows by it who was the last before.
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({**about, "pid": os.getpid()}).encode(), 0)
        self.log(self.what, "lock taken")
        say(state="held", resumed=last.get("run") == self.whose["run"], **about)
        alive = True
        while alive and now() < self.until:
            alive = self.listen(self.until - now())
        self.log(self.what, "lock given back" if not alive else "lock lease over")
        return 0

    def get(self) -> int | None:
        """Wait for the lock, as long as that is wanted."""
        patience = now() + self.wait
        shown = None
        while True:
            file = take(self.app_dir)
            if file is not None:
                return file
            other = holder(self.app_dir)
            # One who is of our own run would be waited for in vain.
            twin = other is not None and self.is_twin(other)
            if other is not None and (twin or now() >= patience):
                say(state="busy", twin=twin, **other)
                return None
            if other is not None and other != shown:
                say(state="waiting", **other)
                shown = other
            # Freed just now: tried again at once, but not as fast as can be.
            pause = _EVERY if other is not None else 0.01
            if not self.listen(pause) or now() >= self.until:
                return None

    def is_twin(self, other: Mapping[str, Any]) -> bool:
        """Say whether it is our own run, under another name of this drone."""
        if other.get("run") != self.whose["run"]:
            return False
        return bool(other.get("drone") != self.whose["drone"])

    def listen(self, seconds: float) -> bool:
        """Do what the deployer says within so many seconds; False at its end."""
        if not select.select([0], [], [], max(0.0, seconds))[0]:
            return True
        data = os.read(0, 1 << 16)
        if not data:
            return False
        self.until = now() + self.lease
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "log" in message:
                self.log(**message["log"])
            say(seen=message["n"])
        return True

    def log(self, what: str, result: str, **more: object) -> None:
        """Write to the drone's audit log."""
        audit.write(self.base, self.owner, what, result, app_dir=self.app_dir, **more)


def break_lock(order: Mapping[str, Any]) -> int:
    """End the process that has the lock; say who it was."""
    app_dir, owner = order["app_dir"], order["owner"]
    other = holder(app_dir)
    if other is None:
        say(broken=None)
        return 0
    pid = other["pid"]
    try:
        process = os.pidfd_open(pid) if pid > 0 else None
    except ProcessLookupError:
        process = None
    # Asked again: by now the number could be another process's.
    if process is None or (holder(app_dir) or {}).get("pid") != pid:
        say(error="whoever has it cannot be seen, or has changed just now", **other)
        return 1
    whose = f"of {other['owner']} since {other['since']}, {other['what']}"
    audit.write(order["base"], owner, "break-lock", whose, app_dir=app_dir)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    # Readable when it has ended; a moment later the lock is free.
    select.select([process], [], [], 10)
    say(broken=other)
    return 0


def say(**message: object) -> None:
    """Tell the deployer, in one line."""
    data = json.dumps(message).encode() + b"\n"
    # One who has gone is noticed by the end of our input.
    with suppress(BrokenPipeError):
        os.write(1, data)


def main(action: str, order: Mapping[str, Any]) -> int:
    """Do what was ordered; what fails is said in one line."""
    try:
        if action == "break":
            return break_lock(order)
        if action == "busy":
            say(busy=is_busy(order["app_dir"]))
            return 0
        return Holder(order).run()
    except OSError as error:
        say(error=f"{error.filename or order['app_dir']}: {error.strerror}")
        return 1
    except KeyboardInterrupt:
        return 130
