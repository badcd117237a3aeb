# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read what the kernel tells of a process and its descendants."""

from __future__ import annotations

import os
from time import monotonic, thread_time

from forza._files import GONE, number, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from forza._monitor import Monitor

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

# To divide shared pages up (Pss), the kernel walks page tables: 0.5 ms for a node of
# 44 MB (1.2 ms after 5 s of sleep, when the caches are cold), 3.5 ms for one of 350 MB,
# 14 ms for one of 1.6 GB. statm is a few counters: 0.01 ms whatever the size. At 5 s
# intervals all of the monitor may use 2.5 ms a tick, so:
# - one process is read from statm alone, which counts no page of it twice;
# - of a tree, each process is walked anew when processes came or went or the tree grew
#   or shrank by a twentieth, else once a minute, and its Pss moves with its resident
#   size in between;
# - walks use at most 0.01 % of a core on average (0.5 ms a tick), and 30 ms at once,
#   which is 3 GB, when nothing was walked for a while.
_WALK_SHARE = 0.0001
_WALK_BURST = 0.03
_WALK_AGE = 60.0
_WALK_GROWTH = 20

# A kernel (or a container's imitation) whose loadavg names no newest pid, or an old
# one, must not hide new processes for ever: look for them at least every 12th time.
_LOOK_EVERY = 12

# What one plugin has just looked at, another need not look at again: to find the
# descendants of ten nodes takes 0.8 ms, a file for each of their 70 threads.
_SAME_TICK = 0.1


def _stat(pid: int, proc: str) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state (field 3) on, or none."""
    # The name before it is free text, spaces and parentheses included.
    return read(f"{proc}/{pid}/stat").rpartition(b") ")[2].split()


def pids(*roots: int, proc: str = "/proc") -> list[int]:
    """Return those of `roots` that exist and all their descendants, parents first.

    Raises OSError if that cannot be seen.
    """
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
        except GONE:
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
    is no more. Raises OSError if that cannot be seen."""
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

    def is_of(self, fields: list[bytes]) -> bool:
        """Say whether this is the process that was last seen."""
        return bool(fields) and fields[19] == self.started


class Tree:
    """An app's process and all its descendants, the orphans among them included.

    Those come to `top`, which is the guard, or a monitor without one, and itself no
    part of the app: only what `top` has waited for is.
    """

    def __init__(
        self,
        pid: int,
        proc: str = "/proc",
        *,
        top: int = 0,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._pid = pid
        self._top = top or pid
        self._proc = proc
        self._say = say
        self._members: dict[int, _Member] = {}
        self._newest = b""
        self._looked = 0
        self._ticks = self._owed = 0
        self._changed_at = self._credit_at = monotonic()
        self._credit = _WALK_BURST
        self._divided = 0  # the sum of resident bytes at the last walk
        self._ended = False
        self._seen = False
        self.seen_at = -1e9  # by the clock `monotonic`, which begins at boot
        self._shown_to: list[object] = []

    @classmethod
    def of(cls, monitor: Monitor) -> Tree | None:
        """Return the tree of the monitor's child, one for all plugins; None if none."""
        tree, process = monitor._tree, monitor.process
        if tree is None and process is not None:
            tree = cls(process.pid, top=process.top, say=monitor.say)
            monitor._tree = tree
        return tree

    def refresh(self, user: object = None) -> bool:
        """Look who is there, and at their CPU times. False: there is nothing to tell,
        as the app has ended, or cannot be seen for now.

        A second `user` in the same tick gets what the first one saw.
        """
        now = monotonic()
        shown = user is None or user in self._shown_to
        if shown or now - self.seen_at > _SAME_TICK:
            self._shown_to.clear()
            try:
                self._look()
                self._seen = True
            except OSError as error:
                self._cannot_see(error)
            self.seen_at = now
        self._shown_to.append(user)
        return self._seen and not self._ended

    def cpu_seconds(self) -> float:
        """Return what the tree has used so far, those that have ended included."""
        return self._ticks / _TICKS_PER_SECOND

    def resident(self) -> tuple[int, str]:
        """Return the tree's resident bytes, and how they were counted.

        `pss`: pages that several share count once. `rss`: there is one process, or
        the kernel does not tell of all (another user's) or was not asked about all
        yet, and pages that those share with others count again. 0 if nothing can be
        seen for now.
        """
        try:
            return self._resident()
        except OSError as error:
            self._cannot_see(error)
            return 0, "rss"

    def exactly(self) -> tuple[int, str]:
        """Return the same, every process's share of pages read anew if all can be."""
        total = 0
        try:
            for pid in self._apps():
                share = number(read(f"{self._proc}/{pid}/smaps_rollup"), b"Pss:")
                if share < 0:  # a zombie
                    return self.resident()
                total += share
        except OSError:  # somebody else's
            return self.resident()
        return total * 1024, "pss"

    def _apps(self) -> dict[int, _Member]:
        """Return the app's own processes."""
        if self._top == self._pid:
            return self._members
        return {p: member for p, member in self._members.items() if p != self._top}

    def _resident(self) -> tuple[int, str]:
        members = self._apps()
        for pid, member in members.items():
            words = read(f"{self._proc}/{pid}/statm").split()
            member.resident = int(words[1]) * _PAGE_BYTES if words else 0
        if len(members) == 1:
            return sum(member.resident for member in members.values()), "rss"
        now, all_in_all = monotonic(), sum(m.resident for m in members.values())
        # Pages that one has begun to share are no longer the others' alone.
        if abs(all_in_all - self._divided) > self._divided / _WALK_GROWTH:
            self._divided, self._changed_at = all_in_all, now
        self._divide(members, now)
        total, kind = 0, "pss"
        for member in members.values():
            if member.pss >= 0:
                total += max(0, member.pss + member.resident - member.walked)
            elif member.resident:  # a zombie has none
                total, kind = total + member.resident, "rss"
        return total, kind

    def _cannot_see(self, error: OSError) -> None:
        self._seen = False
        if self._say is not None:  # once is enough
            reason = (error.strerror or "").lower()
            self._say(f"cannot see the app's processes: {error.filename}: {reason}")
            self._say = None

    def _look(self) -> None:
        if self._ended:
            return
        # All is read before anything is changed: if some of it cannot be, the tree
        # stays what it was. Parents come before their children: a child reaped in
        # between is missed now and found with its parent next time; the other way
        # round it would be counted twice.
        known = [(pid, m, self._look_at(pid)) for pid, m in self._members.items()]
        left = [pid for pid, member, fields in known if member.is_of(fields)]
        found: dict[int, list[bytes]] = {}
        if self._pid in left or not known:
            news = self._news()
            if news is not None:
                roots = left or (self._top, self._pid)
                for pid in pids(*roots, proc=self._proc):
                    if pid not in left and (fields := self._look_at(pid)):
                        found[pid] = fields
                self._newest, self._looked = news, 0
        self._take(known, found)

    def _take(
        self,
        known: list[tuple[int, _Member, list[bytes]]],
        found: dict[int, list[bytes]],
    ) -> None:
        gained = waited = gone = 0
        for pid, member, fields in known:
            if member.is_of(fields):
                gained -= member.own
                waited -= member.waited
                self._update(pid, member, fields)
                gained += member.own
                waited += member.waited
            else:
                del self._members[pid]
                gone += member.own + member.waited
                self._changed_at = monotonic()
        for pid, fields in found.items():
            member = self._members[pid] = _Member(fields[19])
            self._update(pid, member, fields)
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
        # The app as a zombie without further threads waits for nothing but us.
        if pid == self._pid and fields and fields[0] in b"ZX" and fields[17] == b"1":
            return []
        return fields

    def _update(self, pid: int, member: _Member, fields: list[bytes]) -> None:
        if pid == self._pid or pid != self._top:
            member.own = int(fields[11]) + int(fields[12])
        member.waited = int(fields[13]) + int(fields[14])

    def _news(self) -> bytes | None:
        """Return what names the newest process if there may be some that were not
        there last time."""
        # The last word of loadavg is the newest pid (or thread) of all.
        newest = read(f"{self._proc}/loadavg").rpartition(b" ")[2].strip()
        self._looked += 1
        if newest == self._newest and newest > b"0" and self._looked < _LOOK_EVERY:
            return None
        return newest

    def _divide(self, members: dict[int, _Member], now: float) -> None:
        """Read Pss anew of those whose is oldest, as far as the share of CPU goes."""
        earned = (now - self._credit_at) * _WALK_SHARE
        self._credit = min(_WALK_BURST, self._credit + earned)
        self._credit_at = now
        for pid, member in sorted(members.items(), key=lambda item: item[1].walked_at):
            fresh = member.walked_at >= max(self._changed_at, now - _WALK_AGE)
            if fresh or self._credit <= 0:
                break
            begun = thread_time()
            try:
                pss = number(read(f"{self._proc}/{pid}/smaps_rollup"), b"Pss:")
            except PermissionError:  # another user's
                pss = -1
            self._credit -= thread_time() - begun
            member.pss = pss * 1024
            member.walked, member.walked_at = member.resident, now
