# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what the kernel tells of a process and its descendants."""

from __future__ import annotations

import os
from time import monotonic, thread_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from forza._monitor import Monitor

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# To divide shared pages up (Pss), the kernel walks page tables: 0.5 ms for a node of
# 44 MB (1.2 ms after 5 s of sleep, when the caches are cold), 3.5 ms for one of 350 MB,
# 14 ms for one of 1.6 GB. statm is a few counters: 0.01 ms whatever the size. At 5 s
# intervals all of the monitor may use 2.5 ms a tick, so:
# - one process is read from statm alone, which counts no page of it twice;
# - of a tree, each process is walked anew when processes came or went, else once a
#   minute, and its Pss moves with its resident size in between;
# - walks use at most 0.01 % of a core on average (0.5 ms a tick), and 30 ms at once,
#   which is 3 GB, when nothing was walked for a while.
_WALK_SHARE = 0.0001
_WALK_BURST = 0.03
_WALK_AGE = 60.0

# A kernel (or a container's imitation) whose loadavg names no newest pid, or an old
# one, must not hide new processes for ever: look for them at least every 12th time.
_LOOK_EVERY = 12

# What one plugin has just looked at, another need not look at again: to find the
# descendants of ten nodes takes 0.8 ms, a file for each of their 70 threads.
_SAME_TICK = 0.1


class Kept:
    """A file that is read at every tick, and so kept open: to walk its path costs as
    much as to read it (0.04 ms each after 5 s of sleep)."""

    __slots__ = ("_fd", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def read(self) -> bytes:
        """Return what it says now; nothing if it is not there, or not any more."""
        try:
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            return os.pread(self._fd, 8192, 0)
        except OSError:
            self.close()
            return b""

    def must_read(self) -> bytes:
        """Return what it says now. Raises OSError if that is nothing."""
        data = self.read()
        if not data:
            raise OSError(f"cannot read {self._path}")
        return data

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    __del__ = close


def read(path: str) -> bytes:
    """Return all of a file, or nothing if it is gone or not for us to see."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        data = chunk = os.read(fd, 4096)
        while chunk:  # /proc gives whole lines only, so a short read is not the end
            chunk = os.read(fd, 4096)
            data += chunk
    except OSError:
        return b""
    finally:
        os.close(fd)
    return data


def number(data: bytes, name: bytes) -> int:
    """Return the number on the line that begins with `name`, or -1."""
    at = (b"\n" + data).find(b"\n" + name)
    words = data[at + len(name) : at + len(name) + 40].split(None, 1) if at >= 0 else ()
    return int(words[0]) if words else -1


def _stat(pid: int, proc: str) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state (field 3) on, or none."""
    # The name before it is free text, spaces and parentheses included.
    return read(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()


def pids(*roots: int, proc: str = "/proc") -> list[int]:
    """Return those of `roots` that exist and all their descendants, parents first."""
    found: dict[int, None] = {}
    queue = list(roots)
    parents = None
    if not os.access(f"{proc}/thread-self/children", os.F_OK):
        parents = _parents(proc)  # built without CONFIG_PROC_CHILDREN
    for pid in queue:  # grows on the way
        if pid in found:
            continue
        try:
            threads = os.listdir(f"{proc}/{pid}/task")
        except OSError:
            continue
        found[pid] = None
        if parents is not None:
            queue += [child for child, parent in parents.items() if parent == pid]
            continue
        for thread in threads:
            queue += map(int, read(f"{proc}/{pid}/task/{thread}/children").split())
    return list(found)


def descends(pid: int, root: int, proc: str = "/proc") -> bool | None:
    """Say whether `pid` is `root`, comes from it or is of its session; None if `pid`
    is no more."""
    while fields := _stat(pid, proc):
        parent, session = int(fields[1]), int(fields[3])
        if root in (pid, session):
            return True
        if parent <= 1:
            return False
        pid = parent
    return None


def _parents(proc: str) -> dict[int, int]:
    """Map each process to its parent. psutil can, for 2.7 MB that would stay."""
    parents = {}
    for name in os.listdir(proc):
        if name.isdigit() and (fields := _stat(int(name), proc)):
            parents[int(name)] = int(fields[1])
    return parents


class _Member:
    """What was last seen of one process of a tree."""

    __slots__ = ("own", "pss", "resident", "started", "waited", "walked", "walked_at")

    def __init__(self, started: bytes) -> None:
        self.started = started
        self.own = self.waited = 0  # clock ticks: its own, of children it waited for
        self.resident = self.walked = 0  # bytes: now, when Pss was last divided up
        self.pss = -1
        self.walked_at = -1.0


class Tree:
    """A process and all its descendants, the orphans among them included."""

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        self._pid = pid
        self._proc = proc
        self._members: dict[int, _Member] = {}
        self._newest = b""
        self._looked = 0
        self._ticks = self._owed = 0
        self._changed_at = self._credit_at = monotonic()
        self._credit = _WALK_BURST
        self._ended = False
        self.seen_at = -1e9  # by the clock `monotonic`, which begins at boot
        self._shown_to: list[object] = []

    @classmethod
    def of(cls, monitor: Monitor) -> Tree | None:
        """Return the tree of the monitor's child, one for all plugins; None if none."""
        tree = monitor._tree
        if tree is None and monitor.process is not None:
            tree = monitor._tree = cls(monitor.process.pid)
        return tree

    def refresh(self, user: object = None) -> bool:
        """Look who is there, and at their CPU times. False: the root has ended.

        A second `user` in the same tick gets what the first one saw.
        """
        now = monotonic()
        seen = user is None or user in self._shown_to
        if seen or now - self.seen_at > _SAME_TICK:
            self.seen_at = now
            self._shown_to.clear()
            self._look()
        self._shown_to.append(user)
        return not self._ended

    def cpu_seconds(self) -> float:
        """Return what the tree has used so far, those that have ended included."""
        return self._ticks / _TICKS_PER_SECOND

    def resident(self) -> tuple[int, str]:
        """Return the tree's resident bytes, and how they were counted.

        `pss`: pages that several share count once. `rss`: there is one process, or
        the kernel does not tell of all (another user's) or was not asked about all
        yet, and pages that those share with others count again.
        """
        members = self._members
        for pid, member in members.items():
            words = read(f"{self._proc}/{pid}/statm").split()
            member.resident = int(words[1]) * _PAGE_BYTES if words else 0
        if len(members) == 1:
            return member.resident, "rss"  # the only one
        self._divide(monotonic())
        total, kind = 0, "pss"
        for member in members.values():
            if member.pss >= 0:
                total += max(0, member.pss + member.resident - member.walked)
            elif member.resident:  # a zombie has none
                total, kind = total + member.resident, "rss"
        return total, kind

    def _look(self) -> None:
        if self._ended:
            return
        known = list(self._members.items())
        gained = waited = gone = 0
        # Parents come before their children: a child reaped in between is missed
        # now and found with its parent next time; the other way round it would be
        # counted twice.
        for pid, member in known:
            fields = self._look_at(pid)
            if fields and fields[19] == member.started:
                gained -= member.own
                waited -= member.waited
                self._update(member, fields)
                gained += member.own
                waited += member.waited
            else:
                del self._members[pid]
                gone += member.own + member.waited
                self._changed_at = monotonic()
        if self._has_news() and (self._pid in self._members or not known):
            for pid in pids(*(self._members or (self._pid,)), proc=self._proc):
                fields = [] if pid in self._members else self._look_at(pid)
                if fields:
                    member = self._members[pid] = _Member(fields[19])
                    self._update(member, fields)
                    gained += member.own
                    waited += member.waited
                    self._changed_at = monotonic()
        # What ended and was waited for comes again in its parent's time, now or (it
        # was read before) next time; if not by then, nobody waited.
        owed = self._owed + gone
        paid = min(owed, waited)
        self._owed = min(owed - paid, gone)
        self._ticks += gained + waited - paid
        if self._pid not in self._members:
            self._ended = True
            self._members.clear()

    def _look_at(self, pid: int) -> list[bytes]:
        fields = _stat(pid, self._proc)
        # The root as a zombie without further threads waits for nothing but us.
        if pid == self._pid and fields and fields[0] in b"ZX" and fields[17] == b"1":
            return []
        return fields

    @staticmethod
    def _update(member: _Member, fields: list[bytes]) -> None:
        member.own = int(fields[11]) + int(fields[12])
        member.waited = int(fields[13]) + int(fields[14])

    def _has_news(self) -> bool:
        """Say whether there may be processes that were not there last time."""
        # The last word of loadavg is the newest pid (or thread) of all.
        newest = read(f"{self._proc}/loadavg").rpartition(b" ")[2].strip()
        self._looked += 1
        if newest == self._newest and newest > b"0" and self._looked < _LOOK_EVERY:
            return False
        self._newest, self._looked = newest, 0
        return True

    def _divide(self, now: float) -> None:
        """Read Pss anew of those whose is oldest, as far as the share of CPU goes."""
        earned = (now - self._credit_at) * _WALK_SHARE
        self._credit = min(_WALK_BURST, self._credit + earned)
        self._credit_at = now
        for pid, member in sorted(
            self._members.items(), key=lambda item: item[1].walked_at
        ):
            fresh = member.walked_at >= max(self._changed_at, now - _WALK_AGE)
            if fresh or self._credit <= 0:
                break
            begun = thread_time()
            pss = number(read(f"{self._proc}/{pid}/smaps_rollup"), b"Pss:")
            self._credit -= thread_time() - begun
            member.pss = pss * 1024
            member.walked, member.walked_at = member.resident, now
