# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A queue on disk: nothing is lost but what is counted, whatever happens to the files.

All on real files. A monitor that is killed is a spool that nobody closes: its folder
is locked by a descriptor alone, so a test lets go of that, as the kernel would.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from forza._errors import SinkError
from forza.spool import _record
from forza.spool._depot import _MOST_LEFT, Depot, blocks, check_folder, survey
from forza.spool._queue import Spool
from tests.forza.conftest import descriptors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from forza._monitor import Monitor

URL = "tcp:127.0.0.1:1337"
MIB = 1024 * 1024


class Bench:
    """What a spool needs of a monitor: somebody who listens, and a loop for later."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.sent: list[tuple[str, float, str | None]] = []
        self.silent = False

    @property
    def loop(self) -> Bench:
        return self

    def call_soon(self, callback: Callable[[], object]) -> None:
        callback()

    def say(self, text: str, *, problem: bool = True) -> None:
        self.said.append(text)

    def send(
        self, service: str, metric: float, description: str | None, **_: object
    ) -> None:
        self.sent.append((service, metric, description))


class Life:
    """One monitor's life with one spool."""

    def __init__(
        self,
        path: Path | str,
        most: int = 64 * MIB,
        *,
        url: str = URL,
        limit: int = MIB,
    ) -> None:
        self.bench = Bench()
        self.depot = Depot(str(path), most, [url])
        monitor = cast("Monitor", self.bench)
        self.spool = Spool(monitor, self.depot, url, limit)

    def push(self, *numbers: int, lifecycle: bool = False, size: int = 0) -> None:
        for number in numbers:
            self.spool.push(batch(number, size), lifecycle)

    def receive(self, *, most: int = -1, done: bool = True) -> list[int]:
        """Take pieces as a sink would, and return the numbers of their events."""
        found: list[int] = []
        while most and (item := self.spool.pop()) is not None:
            found += numbers(item[0])
            most -= 1
            if done:
                self.spool.done(1)
        return found

    def lost(self) -> dict[str, int]:
        """Return what is announced as lost, by reason."""
        found: dict[str, int] = {}
        while (dropped := self.spool.take_dropped()) is not None:
            found[dropped.reason] = found.get(dropped.reason, 0) + dropped.count
        return found

    def kill(self) -> None:
        """Let go of the descriptors, and of nothing else: as SIGKILL does."""
        for lane in self.spool.lanes():
            lane.logs.close()
            lane.life.close()
            os.close(lane._state)
        if self.depot._lock >= 0:
            os.close(self.depot._lock)

    def close(self) -> int:
        lost = self.spool.close()
        self.depot.close()
        return lost


def batch(number: int, size: int = 0) -> bytes:
    """Return an event that can be told from others."""
    return b'{"n":%d,"pad":"%s"}\n' % (number, b"." * size)


def numbers(data: bytes) -> list[int]:
    return [json.loads(line)["n"] for line in data.splitlines()]


def files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def used(path: Path) -> int:
    """Return what a folder takes on disk, with a block for each folder."""
    entries = list(path.rglob("*"))
    sizes = [e.stat().st_size if e.is_file() else 4096 for e in entries]
    return sum(map(blocks, sizes))


# ---- A queue


def test_first_in_first_out(tmp_path: Path) -> None:
    """Both kinds come out in the order in which they went in."""
    life = Life(tmp_path)
    for number in range(100):
        life.push(number, lifecycle=number % 7 == 0)
    assert life.spool.events() == 100
    assert life.spool.waiting == life.spool.size > 0
    assert life.receive(done=False) == list(range(100))
    assert life.spool.waiting == 0
    assert life.spool.size > 0
    life.spool.rewind()
    assert life.receive() == list(range(100))
    assert life.spool.size == life.spool.waiting == life.spool.events() == 0
    assert life.spool.delivered == 100
    assert life.lost() == {}
    assert life.close() == 0
    assert [file.name for file in files(tmp_path)] == ["lock"]


def test_on_disk_before_it_is_handed_out(tmp_path: Path) -> None:
    """Whatever was pushed is in the files at once, whole and readable."""
    life = Life(tmp_path)
    life.push(1)
    life.push(2, lifecycle=True)
    (log,) = tmp_path.glob("1/logs-*")
    (event,) = tmp_path.glob("1/life-*")
    assert log.read_bytes().endswith(batch(1))
    assert event.read_bytes().endswith(batch(2))
    assert {file.stat().st_mode & 0o777 for file in files(tmp_path)} == {0o600}
    life.close()


def test_a_bit_behind(tmp_path: Path) -> None:
    """What no longer fits into memory is read back, in order, in larger pieces."""
    life = Life(tmp_path)
    life.push(*range(3000), size=1000)
    pieces = 0
    found: list[int] = []
    while (item := life.spool.pop()) is not None:
        found += numbers(item[0])
        pieces += 1
        life.spool.done(1)
        if pieces == 10:
            life.push(*range(3000, 3010), lifecycle=True)
    assert sorted(found) == list(range(3010))
    assert found == sorted(found)
    assert pieces < 100
    life.close()


def test_large_batches(tmp_path: Path) -> None:
    """A batch may be larger than a file should be."""
    life = Life(tmp_path, most=16 * MIB)
    life.push(0, 1, size=3 * MIB)
    life.push(2, 3, lifecycle=True, size=MIB)
    assert life.receive() == [0, 1, 2, 3]
    life.close()


def test_broken_connections(tmp_path: Path) -> None:
    """What is not done when the connection breaks comes again, nothing else does."""
    life = Life(tmp_path)
    life.push(*range(10))
    assert life.receive(most=6, done=False) == [0, 1, 2, 3, 4, 5]
    life.spool.done(4)
    life.spool.rewind()
    life.push(10)
    assert life.receive(done=False) == [4, 5, 6, 7, 8, 9, 10]
    life.spool.rewind()
    assert life.spool.events() == 7
    assert life.receive() == [4, 5, 6, 7, 8, 9, 10]
    life.close()


# ---- Deaths


def test_killed(tmp_path: Path) -> None:
    """The next monitor delivers what the dead one has not, then its own."""
    first = Life(tmp_path)
    first.push(*range(10))
    first.receive(most=4)
    first.receive(most=3, done=False)
    first.kill()
    second = Life(tmp_path)
    second.push(10)
    assert second.receive() == [4, 5, 6, 7, 8, 9, 10]
    assert second.lost() == {}
    second.close()
    assert [file.name for file in files(tmp_path)] == ["lock"]


def test_a_crash_loop_does_not_pile_up_folders(tmp_path: Path) -> None:
    """Each life takes over what the last one has left."""
    for number in range(50):
        life = Life(tmp_path)
        life.push(number, lifecycle=True)
        if number % 2:
            life.kill()
        else:
            assert life.close() == 0
            assert f"{number + 1} events for {URL} wait" in life.bench.said[-1]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["1"]
    last = Life(tmp_path)
    assert last.receive() == list(range(50))
    last.close()


def test_two_at_once(tmp_path: Path) -> None:
    """Nobody touches the lane of a monitor that lives; who lives takes the dead's."""
    first, second = Life(tmp_path), Life(tmp_path)
    first.push(1)
    second.push(2)
    assert survey(str(tmp_path)) == ([], 2)
    first.kill()
    second.depot.look()
    assert second.spool.events() == 2
    assert second.receive() == [1, 2]
    assert second.receive() == []
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["2"]
    second.close()


def test_every_dead_lane_is_delivered(tmp_path: Path) -> None:
    """One monitor after two: it continues the one lane and empties the other."""
    lives = [Life(tmp_path) for _ in range(5)]
    for number, life in enumerate(lives):
        life.push(number)
    for life in lives:
        life.kill()
    last = Life(tmp_path)
    last.push(5)
    assert last.spool.events() == 6
    found = last.receive(done=False)
    last.spool.rewind()
    assert last.receive() == found
    assert sorted(found) == list(range(6))
    assert found[-1] == 5
    last.close()
    assert [file.name for file in files(tmp_path)] == ["lock"]


def test_more_dead_lanes_than_may_be_open(tmp_path: Path) -> None:
    """However many monitors have died, a few of their lanes are open at a time; the
    next few follow when those are empty."""
    count = 5 * _MOST_LEFT
    first = Life(tmp_path)
    first.push(0)
    first.kill()
    for number in range(2, count + 1):
        shutil.copytree(tmp_path / "1", tmp_path / str(number))
    assert survey(str(tmp_path)) == ([(URL, 1)] * count, 0)
    before = descriptors()
    last = Life(tmp_path)
    found: list[int] = []
    for number in range(1, 10):
        assert len(descriptors() - before) < 2 * _MOST_LEFT
        found += last.receive()
        last.push(number)
    assert found == [0] * _MOST_LEFT + [0] + found[_MOST_LEFT + 1 :]
    assert found.count(0) == count
    assert last.receive() == [9]
    last.close()
    assert [file.name for file in files(tmp_path)] == ["lock"]


def test_a_dead_lane_of_which_all_was_dropped(tmp_path: Path) -> None:
    """It is done with, and makes way for the next."""
    lives = [Life(tmp_path, MIB) for _ in range(2)]
    for life in lives:
        life.push(0, size=1000)
    for life in lives:
        life.kill()
    last = Life(tmp_path, MIB)
    assert len(last.spool.left) == 1
    last.push(*range(1, 1500), size=1000)
    assert sorted(last.receive())[-1] == 1499
    assert last.spool.left == []
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["1"]
    last.close()


def test_another_url(tmp_path: Path) -> None:
    """What was meant for a server that is no longer named goes to the one that is."""
    first = Life(tmp_path, url="tcp:old:1")
    first.push(1)
    first.close()
    second = Life(tmp_path, url="tcp:new:1")
    assert second.receive() == [1]
    second.close()


def test_each_sink_its_own(tmp_path: Path) -> None:
    """Two sinks each get what was meant for them, in whatever order they come."""
    for urls in (["a", "b"], ["b", "a"], ["b", "c"]):
        depot = Depot(str(tmp_path), MIB, urls)
        monitor = cast("Monitor", Bench())
        spools = {url: Spool(monitor, depot, url, MIB) for url in urls}
        found = {
            url: [n for item in iter(s.pop, None) for n in numbers(item[0])]
            for url, s in spools.items()
        }
        if urls == ["b", "a"]:
            assert found == {"a": [1], "b": [2]}
        elif urls == ["b", "c"]:
            assert found == {"b": [2], "c": [1]}
        for number, spool in enumerate(spools.values(), 1):
            if urls == ["a", "b"]:
                spool.push(batch(number), lifecycle=False)
        for spool in spools.values():
            spool.close()
        depot.close()


def test_without_a_cursor(tmp_path: Path) -> None:
    """Whoever does not know how far things were delivered delivers all of them."""
    first = Life(tmp_path)
    first.push(*range(5))
    first.receive(most=3)
    first.kill()
    state = tmp_path / "1" / "state"
    state.write_bytes(b"\xff" + state.read_bytes()[1:])
    second = Life(tmp_path)
    assert second.receive() == [0, 1, 2, 3, 4]
    assert second.lost() == {}
    second.close()


# ---- Bounds


@pytest.mark.parametrize("size", [0, 100, 5000, 300_000])
def test_never_over_the_bound(tmp_path: Path, size: int) -> None:
    """The oldest logs go first, lifecycle events last, and all are counted."""
    most = 2 * MIB
    life = Life(tmp_path, most)
    count = 4 * most // (size + 100)
    for number in range(count):
        if number % (count // 10):
            life.push(number, size=size)
        else:
            life.push(number, lifecycle=True)
        if number % 64 == 0:
            assert used(tmp_path) <= most
    assert used(tmp_path) <= most
    events = life.spool.events()
    found = life.receive()
    assert len(found) == events
    assert found == sorted(found)
    assert set(range(0, count, count // 10)) <= set(found)
    logs = [n for n in found if n % (count // 10)]
    expected = [n for n in range(count) if n % (count // 10)][-len(logs) :]
    assert logs == expected
    assert life.lost() == {"spool full": count - len(found)}
    assert len(found) * (size + 60) > most // 2
    assert life.close() == 0


def test_lifecycle_events_go_last(tmp_path: Path) -> None:
    """When there is nothing else, the oldest of them go, too."""
    life = Life(tmp_path, MIB)
    life.push(*range(4000), lifecycle=True, size=1000)
    assert used(tmp_path) <= MIB
    found = life.receive()
    assert found == list(range(4000 - len(found), 4000))
    assert life.lost() == {"spool full": 4000 - len(found)}
    life.close()


def test_the_dead_count_too(tmp_path: Path) -> None:
    """The bound is for the whole folder; what others have left is older."""
    first, second = Life(tmp_path, MIB), Life(tmp_path, MIB)
    first.push(*range(400), size=1000)
    second.push(*range(400, 600), size=1000)
    first.kill()
    for number in range(600, 1400):
        second.push(number, size=1000)
        assert used(tmp_path) <= MIB
    found = second.receive()
    assert found == list(range(1400 - len(found), 1400))
    assert second.lost() == {"spool full": 1400 - len(found)}
    second.close()


def test_the_living_count_too(tmp_path: Path) -> None:
    """Two monitors share the bound, though neither can drop the other's."""
    first, second = Life(tmp_path, MIB), Life(tmp_path, MIB)
    for number in range(0, 4000, 2):
        first.push(number, size=1000)
        second.push(number + 1, size=1000)
        assert used(tmp_path) <= MIB
    for life, odd in ((first, 0), (second, 1)):
        found = life.receive()
        lost = life.lost()
        assert lost == {"spool full": 2000 - len(found)}
        assert found == list(range(4000 - 2 * len(found) + odd, 4000, 2))
        life.close()


def test_what_was_dropped_is_known_to_the_next(tmp_path: Path) -> None:
    """A monitor that is killed before it could tell leaves that to its successor."""
    first = Life(tmp_path, MIB)
    first.push(*range(4000), size=1000)
    first.kill()
    second = Life(tmp_path, MIB)
    found = second.receive()
    assert found == list(range(4000 - len(found), 4000))
    assert second.lost() == {"spool full": 4000 - len(found)}
    second.close()


def test_dropped_while_under_way(tmp_path: Path) -> None:
    """What was handed out is not lost before the connection breaks, and told once."""
    life = Life(tmp_path, MIB)
    life.push(*range(500), size=1000)
    out = life.receive(most=3, done=False)
    life.push(*range(500, 3000), size=1000)
    told = life.lost()["spool full"]
    kept = life.spool.events() - len(out)
    assert told + kept + len(out) == 3000
    life.spool.rewind()
    assert life.lost() == {"spool full": len(out)}
    life.spool.rewind()
    assert life.lost() == {}
    assert len(life.receive()) == kept
    assert life.lost() == {}
    life.close()


def test_a_lowered_bound(tmp_path: Path) -> None:
    """A new monitor with a smaller bound makes room for itself."""
    first = Life(tmp_path, 8 * MIB)
    first.push(*range(4000), size=1000)
    first.kill()
    second = Life(tmp_path, MIB)
    second.push(4000)
    assert used(tmp_path) <= MIB
    found = second.receive()
    assert found == list(range(4001 - len(found), 4001))
    assert second.lost() == {"spool full": 4001 - len(found)}
    second.close()


# ---- Damage


def damaged(path: Path, data: bytes) -> None:
    """Write a file anew: the old one may be linked to the original."""
    path.unlink()
    path.write_bytes(data)


def left_behind(path: Path, most: int = 64 * MIB) -> list[Path]:
    """Leave two files of logs and one of lifecycle events; return the three."""
    life = Life(path, most)
    for number in range(12):
        life.push(number, lifecycle=number in (2, 7), size=number)
        if number == 5:
            (lane,) = life.spool.lanes()
            lane.logs.end()
    life.kill()
    logs = sorted(path.glob("1/logs-*"))
    assert len(logs) == 2
    return [*logs, *path.glob("1/life-*")]


def records(data: bytes) -> list[tuple[int, int, int]]:
    """Return where each record begins and ends, and the number of its event."""
    found = []
    start = 0
    while start < len(data):
        header = _record.parse(data, start)
        assert header is not None
        end = start + _record.SIZE + header[0]
        (number,) = numbers(data[start + _record.SIZE : end])
        found.append((start, end, number))
        start = end
    return found


def check_after_damage(path: Path, hurt: set[int]) -> None:
    """All that is whole arrives, in order; what is not is counted, to the event."""
    life = Life(path)
    assert life.spool.events() <= 12
    life.push(12)
    found = life.receive(done=False)
    assert found == [number for number in range(13) if number not in hurt]
    assert life.lost() == ({"corrupt": len(hurt)} if hurt else {})
    life.spool.rewind()
    assert life.receive() == found
    assert life.lost() == {}
    assert life.spool.size == life.spool.events() == 0
    assert life.close() == 0
    assert [file.name for file in files(path)] == ["lock"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_byte_flipped(
    tmp_path_factory: pytest.TempPathFactory, which: int
) -> None:
    """One flipped bit, wherever it is, costs the record it is in and no other."""
    rng = random.Random(which)
    path = tmp_path_factory.mktemp("flip")
    originals = {f: f.read_bytes() for f in (*left_behind(path), path / "1/state")}
    victim = list(originals)[which]
    data = originals[victim]
    for start, end, number in records(data):
        for at in range(start, end):
            (path / "1").mkdir(exist_ok=True)
            for file, content in originals.items():
                file.write_bytes(content)
            flipped = bytearray(data)
            flipped[at] ^= 1 << rng.randrange(8)
            damaged(victim, bytes(flipped))
            check_after_damage(path, {number})


@pytest.mark.parametrize("which", [0, 1, 2])
def test_torn_at_every_byte(
    tmp_path_factory: pytest.TempPathFactory, which: int
) -> None:
    """A file that ends too early costs what is missing."""
    path = tmp_path_factory.mktemp("torn")
    originals = {f: f.read_bytes() for f in (*left_behind(path), path / "1/state")}
    victim = list(originals)[which]
    data = originals[victim]
    found = records(data)
    for at in range(len(data)):
        (path / "1").mkdir(exist_ok=True)
        for file, content in originals.items():
            file.write_bytes(content)
        damaged(victim, data[:at])
        gone = [number for _, end, number in found if end > at]
        life = Life(path)
        life.push(12)
        assert life.receive() == [n for n in range(13) if n not in gone]
        # Of what is missing at the very end, the first is all that can be known.
        is_torn = at not in {start for start, _, _ in found}
        counted = len(gone) if which == 0 else int(is_torn)
        assert sum(life.lost().values()) == counted
        assert life.close() == 0


HURT = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "zero", "insert", "remove", "swap"]),
        st.integers(0, 2),
        st.integers(0, 10**6),
        st.integers(1, 300),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(HURT)
def test_any_damage(
    tmp_path_factory: pytest.TempPathFactory, hurt: list[tuple[str, int, int, int]]
) -> None:
    """Whatever happens to the files: no error, nothing invented, and order is kept."""
    path = tmp_path_factory.mktemp("any")
    victims = left_behind(path)
    for how, which, where, length in hurt:
        data = bytearray(victims[which].read_bytes())
        at = where % (len(data) + 1)
        piece = data[at : at + length]
        if how == "flip" and piece:
            data[at] ^= 1 + length % 255
        elif how == "cut":
            del data[at:]
        elif how == "zero":
            data[at : at + length] = bytes(len(piece))
        elif how == "insert":
            data[at:at] = data[:length]
        elif how == "remove":
            del data[at : at + length]
        elif how == "swap":
            data[:length], data[at : at + length] = piece, data[:length]
        victims[which].write_bytes(bytes(data))
    life = Life(path)
    life.push(12)
    found = life.receive()
    assert set(found) <= set(range(13))
    assert found[-1] == 12
    repeats = len(found) - len(set(found))
    assert repeats == 0 or any(how in ("insert", "swap") for how, *_ in hurt)
    if not repeats and not any(how in ("insert", "swap") for how, *_ in hurt):
        assert found == sorted(found)
        # A file that is torn at its end does not say how much is missing.
        assert sum(life.lost().values()) <= 13 - len(found) + 2
    assert life.spool.size == 0
    assert life.close() == 0


def test_garbage_without_end(tmp_path: Path) -> None:
    """A file of nothing but beginnings is passed by, and counted as one."""
    first = Life(tmp_path)
    first.push(1)
    first.kill()
    (log,) = tmp_path.glob("1/logs-*")
    log.write_bytes(_record.MAGIC * 50_000)
    second = Life(tmp_path)
    assert second.receive() == []
    second.push(2)
    assert second.receive() == [2]
    assert list(second.lost()) == ["corrupt"]
    second.close()


def test_only_damage(tmp_path: Path) -> None:
    """A lane of which nothing is intact is removed, and announced."""
    lives = [Life(tmp_path), Life(tmp_path)]
    for number, life in enumerate(lives):
        life.push(number)
    for life in lives:
        life.kill()
    for log in tmp_path.glob("*/logs-*"):
        log.write_bytes(b"\n" * 1000)
    last = Life(tmp_path)
    assert last.receive() == []
    assert last.spool.size == 0
    assert last.lost() == {"corrupt": 2}
    last.close()
    assert [file.name for file in files(tmp_path)] == ["lock"]


def test_strangers_in_the_folder(tmp_path: Path) -> None:
    """Files that are not ours stay, and disturb nobody."""
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "logs-today").write_text("mine")
    life = Life(tmp_path)
    life.push(1)
    assert life.receive() == [1]
    life.close()
    assert (tmp_path / "notes").read_text() == "mine"
    assert [file.name for file in files(tmp_path / "7")] == ["logs-today"]


def test_links_in_the_folder(tmp_path: Path) -> None:
    """Whoever may write to the folder cannot make us write, or remove, elsewhere."""
    outside, spool = tmp_path / "outside", tmp_path / "spool"
    outside.mkdir()
    precious = outside / "state"
    precious.write_text("precious")
    spool.mkdir()
    for number in "23":
        (spool / number).mkdir()
    (spool / "1").symlink_to(outside)
    (spool / "2" / "state").symlink_to(precious)
    (spool / "3" / f"logs-{0:016}").symlink_to(precious)
    (spool / "3" / f"logs-{1:016}").symlink_to(tmp_path / "nowhere")
    (spool / "3" / f"logs-{2:016}").mkdir()
    os.mkfifo(spool / "3" / f"life-{0:016}")
    life = Life(spool)
    life.push(1)
    assert life.receive() == [1]
    life.close()
    assert [file.name for file in outside.iterdir()] == ["state"]
    assert precious.read_text() == "precious"
    shutil.rmtree(spool)
    spool.mkdir()
    (spool / "lock").symlink_to(tmp_path / "elsewhere")
    life = Life(spool)
    life.push(1)
    assert "too many levels of symbolic links" in life.bench.said[0]
    assert life.receive() == [1]
    assert not (tmp_path / "elsewhere").exists()
    life.close()


# ---- Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("nobody but root may mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def retry_now(life: Life) -> None:
    """Let the second pass after which the disk is tried again."""
    life.spool._retry_at = 0.0


def fill(path: Path) -> None:
    """Write a file as large as the disk allows."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def test_full_disk(small_disk: Path) -> None:
    """It goes on from memory, says so once, and goes back when there is room."""
    (small_disk / "other").write_bytes(bytes(512 * 1024))
    path = small_disk / "spool"
    life = Life(path)
    life.push(*range(600), size=1000)
    assert life.bench.said == [
        f"cannot write to the spool {path}: no space left on device;"
        " new events wait in memory"
    ]
    reason = "no space left on device"
    assert life.bench.sent == [("telemetry/spool", 0, reason)]
    assert life.receive(most=3, done=False)[0] == 0
    assert life.spool.events() == 600
    (small_disk / "other").unlink()
    retry_now(life)
    life.push(600, lifecycle=True)
    assert life.bench.said[1:] == [f"writing to the spool {path} again"]
    assert life.bench.sent[1:] == [("telemetry/spool", 1, None)]
    assert life.spool._memory.size == 0
    life.spool.rewind()
    life.kill()
    second = Life(path)
    assert second.receive() == list(range(601))
    assert second.lost() == {}
    second.close()


def test_full_disk_and_full_memory(small_disk: Path) -> None:
    """What then has to go is the oldest in memory, logs first, and it is counted."""
    path = small_disk / "spool"
    life = Life(path, limit=64 * 1024)
    life.push(-1, lifecycle=True)
    life.push(*range(3000), size=1000)
    life.push(3000, lifecycle=True)
    life.push(*range(3001, 4000), size=1000)
    events = life.spool.events()
    found = life.receive(done=False)
    assert len(found) == events
    assert {-1, 3000, 3999} <= set(found)
    assert life.lost() == {"disk full": 4001 - events}
    # What came from memory may come again in another order, but it comes.
    life.spool.rewind()
    assert life.receive() == found
    assert life.lost() == {}
    life.close()


def test_disk_full_from_the_start(small_disk: Path) -> None:
    """There is not even room for a URL: the events wait in memory, and no try to get
    away from there leaves anything behind."""
    fill(small_disk / "other")
    path = small_disk / "spool"
    check_folder(str(path))
    life = Life(path)
    before = descriptors()
    for number in range(10):
        retry_now(life)
        life.push(number)
    assert descriptors() == before
    assert [entry.name for entry in path.iterdir()] == ["lock"]
    assert "no space left" in life.bench.said[0]
    assert life.receive(most=1) == [0]
    (small_disk / "other").unlink()
    retry_now(life)
    life.push(10)
    assert life.spool._memory.size == 0
    life.kill()
    second = Life(path)
    assert second.receive() == list(range(1, 11))
    second.close()


def test_folder_removed_under_us(tmp_path: Path) -> None:
    """Somebody clears the spool: what was in it is counted, and a new one made."""
    path = tmp_path / "spool"
    life = Life(path)
    life.push(*range(100), size=10_000)
    shutil.rmtree(path)
    life.push(*range(100, 400), size=10_000)
    assert "no such file or directory" in life.bench.said[0]
    retry_now(life)
    life.push(400)
    found = life.receive()
    assert found == list(range(401 - len(found), 401))
    assert len(found) > 1
    assert sum(life.lost().values()) == 401 - len(found)
    life.close()


def test_one_too_large_for_the_bound(tmp_path: Path) -> None:
    """It waits in memory, as much as one batch may."""
    life = Life(tmp_path, MIB, limit=4 * MIB)
    life.push(1)
    life.push(2, size=2 * MIB)
    life.push(3)
    assert used(tmp_path) <= MIB
    assert life.receive() == [1, 2, 3]
    assert "no room" in life.bench.said[0]
    life.close()


@pytest.mark.parametrize("kind", ["file", "below a file", "not ours"])
def test_unusable_folder(tmp_path: Path, kind: str) -> None:
    """One line that names what and why, before anything runs."""
    path = tmp_path / "spool"
    path.touch()
    reason = "not a directory"
    if kind == "below a file":
        path /= "spool"
    elif kind == "not ours":
        path = Path("/proc/spool")
        reason = "no such file or directory"
    with pytest.raises(SinkError, match=f"^cannot use the spool {path}: {reason}$"):
        check_folder(str(path))


def test_folder_is_made(tmp_path: Path) -> None:
    """For its owner alone."""
    check_folder(str(tmp_path / "a" / "spool"))
    assert (tmp_path / "a" / "spool").stat().st_mode & 0o777 == 0o700


# ---- Any course of things


class Courses(RuleBasedStateMachine):
    """Push, deliver, break, kill and end in any order: nothing but repeats."""

    bound = 64 * MIB

    @initialize()
    def begin(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.life = Life(self.path, self.bound)
        self.count = 0
        self.waiting: list[int] = []
        self.out: list[int] = []
        self.pieces: list[int] = []

    @rule(
        count=st.integers(1, 20),
        size=st.sampled_from([0, 500, 20_000, 100_000]),
        lifecycle=st.booleans(),
    )
    def push(self, count: int, size: int, lifecycle: bool) -> None:
        numbers = range(self.count, self.count + count)
        self.life.push(*numbers, size=size, lifecycle=lifecycle)
        self.waiting += numbers
        self.count += count

    @rule(most=st.integers(1, 30))
    def pop(self, most: int) -> None:
        for _ in range(most):
            found = self.life.receive(most=1, done=False)
            if not found:
                break
            self.check(found)
            self.out += found
            self.pieces.append(len(found))

    def check(self, found: list[int]) -> None:
        assert found == self.waiting[: len(found)]
        del self.waiting[: len(found)]

    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, len(self.pieces)))
        self.life.spool.done(count)
        for size in self.pieces[:count]:
            del self.out[:size]
        del self.pieces[:count]

    @rule()
    def rewind(self) -> None:
        self.life.spool.rewind()
        self.back()

    def back(self) -> None:
        self.waiting = [*self.out, *self.waiting]
        self.out.clear()
        self.pieces.clear()

    @rule(how=st.sampled_from(["kill", "close"]))
    def die(self, how: str) -> None:
        if how == "kill":
            self.life.kill()
        else:
            assert self.life.close() == 0
        self.life = Life(self.path, self.bound)
        self.back()

    @invariant()
    def accounts(self) -> None:
        if hasattr(self, "life"):
            assert self.life.spool.events() == len(self.out) + len(self.waiting)
            assert bool(self.life.spool.size) == bool(self.out or self.waiting)
            assert bool(self.life.spool.waiting) == bool(self.waiting)
            assert used(self.path) <= self.bound

    def teardown(self) -> None:
        if hasattr(self, "life"):
            found = self.life.receive(done=False)
            self.check(found)
            assert self.waiting == []
            self.life.kill()
            shutil.rmtree(self.path)


TestCourses = Courses.TestCase
TestCourses.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_only_who_asks_for_a_spool_pays_for_it() -> None:
    """Nothing of it is imported by a monitor that has none."""
    program = (
        "import sys, forza, forza._monitor, forza.sinks.tcp, forza.cli;"
        "print([name for name in sys.modules if name.startswith('forza.spool')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True
    )
    assert ended.stdout == b"[]\n", ended.stderr
