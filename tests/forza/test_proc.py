# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Process trees as `_proc` reads them, held against psutil and the processes' word."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from forza import _files, _proc
from forza._files import Kept
from forza._proc import Tree, pids

MB = 1 << 20
TICK = 1 / os.sysconf("SC_CLK_TCK")
NODE = shutil.which("node")

# Says its children's pids; a line on stdin starts the next step, end of file ends all.
PRELUDE = """
import os, resource, signal, sys, threading, time
def say(*words): print(*words, flush=True)
def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
def fork(main):
    pid = os.fork()
    if not pid:
        try: main()
        finally: os._exit(0)
    return pid
def used():
    return sum(os.times()[:4])
"""


class Child:
    """A Python child that is told to go on by a line, and answers with one."""

    def __init__(self, program: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PRELUDE + program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self.popen.pid

    def answer(self) -> list[str]:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().decode()
        assert line, "the child has ended early"
        return line.split()

    def go_on(self) -> list[str]:
        assert self.popen.stdin is not None
        self.popen.stdin.write(b"\n")
        self.popen.stdin.flush()
        return self.answer()

    def tree(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]


@contextmanager
def child(program: str) -> Iterator[Child]:
    made = Child(program)
    try:
        yield made
    finally:
        for pid in pids(made.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        made.popen.communicate()


def open_fds() -> set[str]:
    # The listing's own descriptor is among them, and closed by the time of the look.
    listed = os.listdir("/proc/self/fd")
    return {fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")}


FAMILY = """
def grand():
    fork(signal.pause)
    signal.pause()
def from_thread():
    fork(grand)
    threading.Event().wait()
for _ in range(3): fork(grand)
threading.Thread(target=from_thread, daemon=True).start()
import pathlib
def count(pid):
    return 1 + sum(count(p) for t in os.listdir(f"/proc/{pid}/task")
                   for p in open(f"/proc/{pid}/task/{t}/children").read().split())
while count(os.getpid()) < 9: time.sleep(0.005)
say("up")
sys.stdin.read()
"""


def test_pids_are_those_that_psutil_finds() -> None:
    """Children of all threads and their children, the root first."""
    with child(FAMILY) as app:
        app.answer()
        found = pids(app.pid)
        assert found[0] == app.pid
        assert sorted(found) == sorted(p.pid for p in app.tree())
        assert len(found) == 9


def test_parents_come_before_their_children() -> None:
    """The order that adding CPU times up relies on."""
    with child(FAMILY) as app:
        app.answer()
        found = pids(app.pid)
        for pid in found[1:]:
            assert found.index(psutil.Process(pid).ppid()) < found.index(pid)


def test_pids_without_the_children_file(tmp_path: Path) -> None:
    """A kernel built without CONFIG_PROC_CHILDREN costs time and not truth."""
    with child(FAMILY) as app:
        app.answer()
        for process in app.tree():
            (tmp_path / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        assert sorted(pids(app.pid, proc=str(tmp_path))) == sorted(pids(app.pid))


def test_pids_of_nobody() -> None:
    """A process that is not there has no tree."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert pids(gone.pid) == []
    assert not Tree(gone.pid).refresh()


def test_very_many_children() -> None:
    """A list of children longer than the kernel gives in one read."""
    with child("""
for _ in range(900): fork(signal.pause)
say("up")
sys.stdin.read()
""") as app:
        app.answer()
        assert len(pids(app.pid)) == 901


@pytest.mark.parametrize("name", ["a) (b", ") R 1 1 (", "x y", "((", "a\nb) S"])
def test_names_with_parentheses(name: str, tmp_path: Path) -> None:
    """The name in /proc/PID/stat is free text, and must not shift what follows."""
    program = tmp_path / name
    program.symlink_to(shutil.which("cat") or "/bin/cat")
    pipe = subprocess.PIPE
    popen = subprocess.Popen([program], stdin=pipe, stdout=pipe, bufsize=0)
    try:
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.write(b"up\n")
        assert popen.stdout.readline() == b"up\n"
        assert Path(f"/proc/{popen.pid}/comm").read_text() == f"{name}\n"
        fields = _proc._stat(popen.pid, "/proc")
        assert int(fields[1]) == os.getpid()
        started = psutil.Process(popen.pid).create_time() - psutil.boot_time()
        assert int(fields[19]) * TICK == pytest.approx(started, abs=1.0)
        tree = Tree(popen.pid)
        assert tree.refresh()
        assert tree.resident()[0] == psutil.Process(popen.pid).memory_info().rss
    finally:
        popen.kill()
        popen.communicate()


def test_cpu_of_a_busy_tree() -> None:
    """What psutil says of each process, added up."""
    with child("""
def busy():
    burn(0.2)
    os.write(w, b"x")
    signal.pause()
r, w = os.pipe()
for _ in range(3): fork(busy)
burn(0.1)
for _ in range(3): os.read(r, 1)
say("up")
sys.stdin.read()
""") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        times = [p.cpu_times() for p in app.tree()]
        expected = sum(t.user + t.system for t in times)
        assert expected > 0.6
        assert tree.cpu_seconds() == pytest.approx(expected, abs=3 * TICK)


def test_cpu_of_children_that_have_ended() -> None:
    """Nothing is lost, and nothing counted twice, when a child is waited for."""
    with child("""
def busy():
    burn(0.15)
    os.write(w, b"x")
    os.read(hold, 1)
r, w = os.pipe()
hold, let = os.pipe()
for step in range(3):
    pid = fork(busy)
    os.read(r, 1)
    say("busy")
    sys.stdin.readline()
    os.write(let, b"x")
    os.waitpid(pid, 0)
    say(used())
    sys.stdin.readline()
""") as app:
        tree = Tree(app.pid)
        before = 0.0
        for step in range(3):
            if step:
                app.go_on()
            else:
                app.answer()
            assert tree.refresh()
            busy = tree.cpu_seconds()
            (told,) = app.go_on()
            assert tree.refresh()
            waited = tree.cpu_seconds()
            assert before + 0.1 < busy <= waited
            assert waited == pytest.approx(float(told), abs=5 * TICK)
            before = waited


def test_cpu_of_a_tree_that_changes_all_the_time() -> None:
    """The total never runs backwards, and ends where the tree's own count does."""
    with child("""
def some():
    fork(lambda: burn(0.004))
    burn(0.004)
    os.wait()
for _ in range(60):
    pids = [fork(some) for _ in range(3)]
    for pid in pids: os.waitpid(pid, 0)
say(used())
sys.stdin.read()
""") as app:
        tree = Tree(app.pid)
        done = threading.Event()
        told = []

        def listen() -> None:
            told.append(float(app.answer()[0]))
            done.set()

        listener = threading.Thread(target=listen)
        listener.start()
        last = 0.0
        while not done.is_set():
            assert tree.refresh()
            assert tree.cpu_seconds() >= last
            last = tree.cpu_seconds()
            tree.resident()
        listener.join()
        assert tree.refresh()
        assert tree.refresh()
        # Each of the 363 processes may round differently in its two halves.
        assert tree.cpu_seconds() == pytest.approx(told[0], rel=0.05)


def test_cpu_of_children_that_nobody_waits_for() -> None:
    """The kernel drops their time: what was seen of it stays, and hides no other."""
    with child("""
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def busy():
    burn(0.2)
    os.write(w, b"x")
    os.read(hold, 1)
r, w = os.pipe()
hold, let = os.pipe()
pid = fork(busy)
os.read(r, 1)
say("busy")
sys.stdin.readline()
os.write(let, b"x")
try: os.waitpid(pid, 0)
except ChildProcessError: pass
say("gone")
sys.stdin.readline()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
pid = fork(lambda: burn(0.1))
os.waitpid(pid, 0)
say("again")
sys.stdin.readline()
pid = fork(lambda: burn(0.1))
os.waitpid(pid, 0)
say("again")
sys.stdin.read()
""") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        seen = tree.cpu_seconds()
        assert seen > 0.15
        app.go_on()
        assert tree.refresh()
        assert tree.cpu_seconds() >= seen
        assert len(tree._members) == 1
        app.go_on()
        tree.refresh()
        before = tree.cpu_seconds()
        app.go_on()
        tree.refresh()
        assert tree.cpu_seconds() > before + 0.05


def test_orphans_still_belong_to_the_tree() -> None:
    """A process seen once stays counted when its parent ends before it."""
    with child("""
def middle():
    os.write(w, str(fork(last)).encode())
    os.read(hold, 1)
def last():
    os.write(w2, b"x")
    os.read(hold2, 1)
    fork(signal.pause)
    os.write(w2, b"x")
    signal.pause()
r, w = os.pipe()
r2, w2 = os.pipe()
hold, let = os.pipe()
hold2, let2 = os.pipe()
pid = fork(middle)
orphan = os.read(r, 10)
os.read(r2, 1)
say(orphan.decode())
sys.stdin.readline()
os.write(let, b"x")
os.waitpid(pid, 0)
say("orphaned")
sys.stdin.readline()
os.write(let2, b"x")
os.read(r2, 1)
say("a child of its own")
sys.stdin.read()
""") as app:
        orphan = int(app.answer()[0])
        tree = Tree(app.pid)
        assert tree.refresh()
        assert len(tree._members) == 3
        try:
            app.go_on()
            assert tree.refresh()
            assert set(tree._members) == {app.pid, orphan}
            assert orphan not in pids(app.pid)
            app.go_on()
            assert tree.refresh()
            assert set(tree._members) == {app.pid, *pids(orphan)}
            assert len(tree._members) == 3
        finally:
            for pid in pids(orphan):
                os.kill(pid, signal.SIGKILL)


def test_a_recycled_pid_is_a_stranger() -> None:
    """A process that took over a known pid is not taken for the one before."""
    with child("fork(signal.pause)\nsay('up')\nsys.stdin.read()") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        # As if the app's child had ended and somebody else had got its pid.
        tree._members[os.getpid()] = tree._members.popitem()[1]
        assert tree.refresh()
        assert os.getpid() not in tree._members


def test_one_process_is_as_large_as_psutil_says() -> None:
    """For a single process the resident set is exact, and cheap."""
    with child(
        "data = bytearray(os.urandom(20 << 20))\nsay('up')\nsys.stdin.read()"
    ) as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        expected = psutil.Process(app.pid).memory_info().rss
        assert expected > 20 * MB
        assert tree.resident() == (expected, "rss")


@pytest.mark.skipif(NODE is None, reason="there is no node")
def test_a_real_node() -> None:
    """A stopped node, with all its threads, is as psutil sees it."""
    assert NODE is not None
    popen = subprocess.Popen(
        [NODE, "-e", "setInterval(() => {}, 1000); console.log('up')"],
        stdout=subprocess.PIPE,
    )
    try:
        assert popen.stdout is not None
        popen.stdout.readline()
        os.kill(popen.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, popen.pid, os.WSTOPPED)
        process = psutil.Process(popen.pid)
        assert process.num_threads() > 1
        tree = Tree(popen.pid)
        assert tree.refresh()
        assert tree.resident() == (process.memory_info().rss, "rss")
        times = process.cpu_times()
        assert tree.cpu_seconds() == pytest.approx(times.user + times.system)
    finally:
        popen.kill()
        popen.communicate()


WORKERS = """
import gc
data = bytearray(b"x" * (64 << 20))
say("alone")
sys.stdin.readline()
gc.disable()
def work():
    os.write(w, b"x")
    signal.pause()
r, w = os.pipe()
for _ in range(4): fork(work)
for _ in range(4): os.read(r, 1)
say("five")
sys.stdin.readline()
data += b"y" * (32 << 20)
say("grown")
sys.stdin.read()
"""


def test_shared_pages_count_once() -> None:
    """Four forked workers that share 64 MB cost what their parent alone did, ±5 %."""
    with child(WORKERS) as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        alone, kind = tree.resident()
        assert kind == "rss"
        assert alone > 64 * MB
        app.go_on()
        assert tree.refresh()
        five, kind = tree.resident()
        assert kind == "pss"
        assert five == pytest.approx(alone, rel=0.05)
        expected = sum(p.memory_full_info().pss for p in app.tree())
        assert five == pytest.approx(expected, rel=0.01)
        assert sum(p.memory_info().rss for p in app.tree()) > 4.5 * 64 * MB


def test_growth_between_two_walks() -> None:
    """What a tree gains shows at once, though its pages are divided up later."""
    few = WORKERS.replace("32 << 20", "8 << 20")
    with child(few) as app:
        app.answer()
        app.go_on()
        tree = Tree(app.pid)
        assert tree.refresh()
        before, _ = tree.resident()
        walked = [member.walked_at for member in tree._members.values()]
        resident = psutil.Process(app.pid).memory_info().rss
        app.go_on()
        assert tree.refresh()
        after, kind = tree.resident()
        assert kind == "pss"
        assert [member.walked_at for member in tree._members.values()] == walked
        gained = psutil.Process(app.pid).memory_info().rss - resident
        assert gained >= 8 * MB
        assert after == before + gained


def test_sharing_that_begins_later() -> None:
    """Workers that map what others have mapped are not taken for so much more."""
    with child("""
import mmap
shared = mmap.mmap(-1, 64 << 20)
shared.write(b"x" * (64 << 20))
r, w = os.pipe()
ready, told = os.pipe()
def work():
    os.read(r, 1)
    sum(shared[::4096])
    os.write(told, b"x")
    signal.pause()
for _ in range(4): fork(work)
say("forked")
sys.stdin.readline()
os.write(w, b"xxxx")
for _ in range(4): os.read(ready, 1)
say("mapped")
sys.stdin.read()
""") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        before, _ = tree.resident()
        app.go_on()
        assert tree.refresh()
        after, kind = tree.resident()
        assert kind == "pss"
        assert after == pytest.approx(before, rel=0.05)


def test_walks_keep_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without credit nothing is walked, and the figure says how it was counted."""
    monkeypatch.setattr(_proc, "_WALK_BURST", 0.0)
    with child(WORKERS) as app:
        app.answer()
        app.go_on()
        tree = Tree(app.pid)
        assert tree.refresh()
        resident = sum(p.memory_info().rss for p in app.tree())
        assert tree.resident() == (resident, "rss")
        # With a little, those never walked come first, and one is always finished.
        for done in range(1, 6):
            monkeypatch.setattr(_proc, "_WALK_BURST", 1e-9)
            tree._credit = 1e-9
            tree.refresh()
            total, kind = tree.resident()
            walked = [m for m in tree._members.values() if m.pss >= 0]
            assert len(walked) == done
            assert kind == ("pss" if done == 5 else "rss")
            assert tree._credit < 0
        expected = sum(p.memory_full_info().pss for p in app.tree())
        assert total == pytest.approx(expected, rel=0.01)


def test_old_walks_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages once shared may have become private: what is old is walked again."""
    monkeypatch.setattr(_proc, "_WALK_BURST", 10.0)
    with child(WORKERS) as app:
        app.answer()
        app.go_on()
        tree = Tree(app.pid)
        tree.refresh()
        tree.resident()
        first = [member.walked_at for member in tree._members.values()]
        tree.resident()
        assert [member.walked_at for member in tree._members.values()] == first
        monkeypatch.setattr(_proc, "_WALK_AGE", 0.0)
        tree.resident()
        again = [member.walked_at for member in tree._members.values()]
        assert all(new > old for new, old in zip(again, first, strict=True))


def test_where_the_kernel_does_not_divide_pages(tmp_path: Path) -> None:
    """No smaps_rollup, or not for us: the plain sum, and `rss`."""
    with child("fork(signal.pause)\nsay('up')\nsys.stdin.read()") as app:
        app.answer()
        (tmp_path / "thread-self").mkdir()
        (tmp_path / "thread-self" / "children").touch()
        for process in app.tree():
            folder = tmp_path / str(process.pid)
            folder.mkdir()
            for name in ("task", "stat", "statm"):
                (folder / name).symlink_to(f"/proc/{process.pid}/{name}")
        tree = Tree(app.pid, str(tmp_path))
        assert tree.refresh()
        expected = sum(p.memory_info().rss for p in app.tree())
        resident, kind = tree.resident()
        assert kind == "rss"
        assert resident == pytest.approx(expected, rel=0.05)  # two looks, not one


def test_a_zombie_in_the_tree_holds_nothing() -> None:
    """A child that nobody waited for yet has no memory, and spoils no figure."""
    with child("""
pid = fork(lambda: None)
os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
fork(signal.pause)
say("up")
sys.stdin.read()
""") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        assert len(tree._members) == 3
        assert tree.resident()[1] == "pss"


def test_new_processes_are_seen_at_the_next_look() -> None:
    """What was forked since the last look, at any depth, is there at the next."""
    with child("""
def more():
    fork(signal.pause)
    os.write(w, b"x")
    signal.pause()
r, w = os.pipe()
say("up")
while sys.stdin.readline():
    fork(more)
    os.read(r, 1)
    say("more")
""") as app:
        app.answer()
        tree = Tree(app.pid)
        for count in range(4):
            assert tree.refresh()
            assert set(tree._members) == {p.pid for p in app.tree()}
            assert len(tree._members) == 1 + 2 * count
            app.go_on()


@pytest.mark.parametrize(
    ("loadavg", "looks"),
    [("0.00 0.00 0.00 0/0 0\n", 1), ("0.10 0.10 0.10 1/99 4711\n", 12), ("", 1)],
)
def test_an_imitated_loadavg(loadavg: str, looks: int, tmp_path: Path) -> None:
    """A container's own loadavg, which names no newest pid or always the same."""
    with child("""
say("up")
sys.stdin.readline()
say(fork(signal.pause))
sys.stdin.read()
""") as app:
        app.answer()
        (tmp_path / "loadavg").write_text(loadavg)
        (tmp_path / "thread-self").symlink_to("/proc/thread-self")
        (tmp_path / str(app.pid)).symlink_to(f"/proc/{app.pid}")
        tree = Tree(app.pid, str(tmp_path))
        assert tree.refresh()
        (new,) = app.go_on()
        (tmp_path / new).symlink_to(f"/proc/{new}")
        for look in range(1, looks + 1):
            assert tree.refresh()
            assert len(tree._members) == (2 if look == looks else 1)


def test_reading_while_processes_vanish() -> None:
    """Whatever ends between two reads of it is no error, and leaves nothing open."""
    with child("""
def brief():
    threading.Thread(target=lambda: None).start()
    fork(lambda: None)
say("up")
kept = [fork(signal.pause) for _ in range(2)]
while True:
    for _ in range(8): fork(brief)
    for _ in range(8): os.waitpid(-1, 0)
""") as app:
        app.answer()
        before = open_fds()
        tree = Tree(app.pid)
        sizes = set()
        for _ in range(400):
            assert tree.refresh()
            total, _ = tree.resident()
            assert total > 0
            sizes.add(len(tree._members))
            assert app.pid in pids(app.pid)
        assert len(sizes) > 1
        assert open_fds() == before


def test_the_end_of_the_root() -> None:
    """An app that has ended is no tree, before and after it is reaped."""
    with child("fork(signal.pause)\nsay('up')\nsys.stdin.readline()") as app:
        app.answer()
        before = open_fds()
        seen, reaped = Tree(app.pid), Tree(app.pid)
        assert seen.refresh()
        assert reaped.refresh()
        assert app.popen.stdin is not None
        (other,) = [pid for pid in pids(app.pid) if pid != app.pid]
        app.popen.stdin.write(b"\n")
        app.popen.stdin.flush()
        os.waitid(os.P_PID, app.pid, os.WEXITED | os.WNOWAIT)
        assert not seen.refresh()
        assert not Tree(app.pid).refresh()
        os.kill(other, signal.SIGKILL)
        app.popen.wait()
        assert not reaped.refresh()
        assert not reaped.refresh()
        assert reaped.resident()[0] == 0
        assert open_fds() == before


def test_a_main_thread_that_has_ended() -> None:
    """The kernel calls that process a zombie, but its threads go on."""
    with child("""
import ctypes
def on():
    main.join_it()
class main:
    @staticmethod
    def join_it():
        while b"Z" not in open(f"/proc/{os.getpid()}/stat", "rb").read().split(b")")[1]:
            time.sleep(0.005)
        say("alone")
        threading.Event().wait()
threading.Thread(target=on).start()
ctypes.CDLL(None).pthread_exit(0)
""") as app:
        app.answer()
        tree = Tree(app.pid)
        assert tree.refresh()
        assert tree.refresh()


def test_descriptors_are_not_inherited() -> None:
    """A program that is started meanwhile gets none of what is open."""
    kept = Kept("/proc/loadavg")
    before = open_fds()
    assert kept.read()
    (opened,) = open_fds() - before
    assert not os.get_inheritable(int(opened))
    kept.close()
    assert open_fds() == before


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Have none left for anything new."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_want_of_descriptors_is_no_end() -> None:
    """While nothing can be opened there is nothing to tell; that is said, once."""
    with child("fork(signal.pause)\nsay('up')\nsys.stdin.read()") as app:
        app.answer()
        said: list[str] = []
        tree = Tree(app.pid, say=said.append)
        assert tree.refresh()
        before, kind = tree.resident()
        assert kind == "pss"
        used = tree.cpu_seconds()
        with no_descriptors():
            assert not tree.refresh()
            assert tree.resident()[0] == 0
            assert not tree.refresh()
            with pytest.raises(OSError, match="Too many open files"):
                pids(app.pid)
            with pytest.raises(OSError, match="Too many open files"):
                _proc.descends(app.pid, os.getpid())
        told = f"cannot see the app's processes: /proc/{app.pid}/stat"
        assert said == [f"{told}: too many open files"]
        assert tree.refresh()
        assert len(tree._members) == 2
        after, kind = tree.resident()
        assert kind == "pss"
        assert after == pytest.approx(before, rel=0.5)
        assert tree.cpu_seconds() >= used


def test_what_is_not_for_us_is_not_gone(tmp_path: Path) -> None:
    """Only what is not there reads as nothing."""
    assert _files.read(str(tmp_path / "none")) == b""
    assert _files.read(str(tmp_path / "none" / "stat")) == b""
    with pytest.raises(IsADirectoryError) as caught:
        _files.read(str(tmp_path))
    assert caught.value.filename == str(tmp_path)
    assert _files.attempt(str(tmp_path)) == b""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            (tmp_path / "closed").write_text("")
            (tmp_path / "closed").chmod(0)
            if os.geteuid() == 0:
                tmp_path.chmod(0o755)
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            try:
                _files.read(str(tmp_path / "closed"))
            except PermissionError:
                code = 0
        finally:
            os._exit(code)
    # Where the folders above are closed as well, that is said just so.
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_two_users_of_a_tree_share_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes second in a tick sees what the first saw; who comes again, news."""
    with child("""
say("up")
while sys.stdin.readline():
    fork(signal.pause)
    say("more")
""") as app:
        app.answer()
        tree = Tree(app.pid)
        monkeypatch.setattr(_proc, "_SAME_TICK", 1000.0)
        assert tree.refresh("cpu")
        app.go_on()
        assert tree.refresh("mem")
        assert len(tree._members) == 1
        assert tree.refresh("mem")
        assert len(tree._members) == 2
        app.go_on()
        assert tree.refresh("cpu")
        assert len(tree._members) == 2
        # In the next tick nothing old is shown.
        monkeypatch.setattr(_proc, "_SAME_TICK", 0.0)
        assert tree.refresh("other")
        assert len(tree._members) == 3


def test_a_kept_file_that_goes_and_comes(tmp_path: Path) -> None:
    """What is missing reads as nothing; once it is there it is read, and as it is."""
    path = tmp_path / "file"
    kept = Kept(str(path))
    assert kept.read() == b""
    with pytest.raises(OSError, match=f"cannot read {path}"):
        kept.must_read()
    path.write_text("1")
    assert kept.must_read() == b"1"
    path.write_text("22")
    assert kept.read() == b"22"
    before = open_fds()
    kept.close()
    kept.close()
    assert len(before - open_fds()) == 1


def test_a_forgotten_file_is_closed() -> None:
    """Who never got to close it leaks nothing either."""
    before = open_fds()
    kept = Kept("/proc/loadavg")
    assert kept.read()
    del kept
    assert open_fds() == before
