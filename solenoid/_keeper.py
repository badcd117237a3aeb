# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find the keeper of a release, be sure that it is the one, and end it with its app.

What is read is in the app's user's hands, so nothing in it is taken for true: the pid
is the keeper's only if that process is of the right user and has the state file open.
From then on it is held by a descriptor, and cannot become another's.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from solenoid._errors import StopError
from solenoid._theirs import json_object, open_file

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Self

# After SIGKILL everything is gone at once, unless the kernel holds it.
_KILLED = 5.0
_MOST = 1 << 16
_TRIES, _LOOK_AGAIN = 50, 0.02


def read_state(path: Path) -> tuple[dict[str, Any], bool]:
    """Return what a keeper's state file says, and whether a keeper holds it."""
    while True:
        try:
            descriptor = open_file(path)
        except OSError:
            return {}, False
        try:
            data = os.read(descriptor, _MOST)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                held = False
            except BlockingIOError:
                held = True
            # Replaced meanwhile: the lock has moved on to the new one.
            if not held and not _is_still(descriptor, path):
                continue
            return json_object(data), held
        finally:
            os.close(descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


class Keeper:
    """A keeper that lives, or has lived when it was found."""

    def __init__(self, path: Path, pid: int, descriptor: int) -> None:
        self.path, self.pid, self._descriptor = path, pid, descriptor

    @classmethod
    def find(cls, path: Path, uid: int) -> Self | None:
        """Return the keeper of this user that holds a state file, if there is one."""
        for _ in range(_TRIES):
            state, held = read_state(path)
            if not held:
                return None
            # The very first thing that a keeper does is to hold the file.
            pid = state.get("keeper")
            found = cls.of(path, pid) if isinstance(pid, int) else None
            if found is not None and found._is_it(uid):
                return found
            if found is not None:
                found.close()
            time.sleep(_LOOK_AGAIN)  # it may be about to replace the file
        return None

    @classmethod
    def of(cls, path: Path, pid: int) -> Self | None:
        """Return the keeper that has this pid for certain, unless it has ended."""
        try:
            return cls(path, pid, os.pidfd_open(pid))
        except (OSError, OverflowError):
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)

    def lives(self) -> bool:
        """Say whether it has not ended."""
        return not _ended([self._descriptor], 0.0)

    def wait(self, seconds: float) -> bool:
        """Wait for its end so long; say whether it has come."""
        return _ended([self._descriptor], seconds)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended. Raises StopError."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            raise StopError(
                f"cannot signal keeper {self.pid}: {error.strerror}"
            ) from error

    def stop(self, patience: float) -> bool:
        """End it and all that is below it; say whether that went by itself.

        After `patience` seconds it is SIGKILL, for each process of the tree and for no
        other. Raises StopError if one of them stays.
        """
        self.send(signal.SIGTERM)
        if self.wait(patience):
            return True
        with ExitStack() as stack:
            # Each is held before the first dies: then its children are others'.
            tree = [
                (pid, descriptor)
                for pid in _tree(self.pid)
                if (descriptor := _hold(pid, stack)) is not None
            ]
            self.send(signal.SIGKILL)
            for _, descriptor in tree:
                with suppress(OSError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not _ended([self._descriptor, *(d for _, d in tree)], _KILLED):
                left = [str(pid) for pid, one in tree if not _ended([one], 0.0)]
                raise StopError(f"not even SIGKILL has ended {', '.join(left)}")
        return False

    def _is_it(self, uid: int) -> bool:
        try:
            with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
                owner = next(line for line in file if line.startswith("Uid:"))
            wanted = os.stat(self.path)
            folder = f"/proc/{self.pid}/fd"
            files = [_stat(f"{folder}/{name}") for name in os.listdir(folder)]
        except (OSError, StopIteration):
            return False
        has_it = any(os.path.samestat(wanted, found) for found in files if found)
        return has_it and owner.split()[1] == str(uid)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _hold(pid: int, stack: ExitStack) -> int | None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor


def _ended(descriptors: Iterable[int], seconds: float) -> bool:
    """Wait until these processes have ended, so long at most."""
    waiting = select.poll()
    left = set(descriptors)
    for descriptor in left:
        waiting.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    while left:
        more = max(0.0, deadline - time.monotonic())
        ready = waiting.poll(more * 1000)
        for descriptor, _ in ready:
            waiting.unregister(descriptor)
            left.discard(descriptor)
        if not ready and not more:
            return False
    return True


def _tree(pid: int) -> list[int]:
    """Return all descendants of a process, those above first."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
                below.setdefault(parent, []).append(int(name))
    found: list[int] = []
    todo = [pid]
    while todo:
        children = below.get(todo.pop(0), [])
        found += children
        todo += children
    return found
