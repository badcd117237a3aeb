# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Sift repeats out of streams, whatever was cut off where, and forget nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forza._event import Encoder
from forza.listen import _output
from forza.listen._boots import Boots, Sifter
from forza.listen._memory import note, recall, save
from forza.listen._output import FileOutput
from tests.forza.conftest import Run


def batches(boot: str, sizes: list[int], app: bool = False) -> list[list[bytes]]:
    """Return what a monitor would send: batches of so many lines."""
    encoder = Encoder("host", boot, ("u", "n") if app else None)
    encoder.set_pid(7)
    made = []
    for number, size in enumerate(sizes):
        text = b"".join(b"%d.%d\n" % (number, line) for line in range(size))
        made.append(encoder.lines("logs/stdout", text).splitlines(keepends=True))
    return made


def flat(made: list[list[bytes]]) -> list[bytes]:
    """Return all lines of batches."""
    return [line for batch in made for line in batch]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    data=st.data(),
    app=st.booleans(),
)
def test_cut_off_anywhere(sizes: list[int], data: st.DataObject, app: bool) -> None:
    """However often it is cut off and goes on at a batch's begin, each comes once."""
    made = batches("00ff", sizes, app)
    boots, kept = Boots(), b""
    begin = 0
    for last in (False, False, True):
        lines = flat(made[begin:])
        end = len(lines) if last else data.draw(st.integers(0, len(lines)))
        sifter = Sifter(boots)
        sent = lines[:end]
        while sent:  # in reads of any size
            size = data.draw(st.integers(1, len(sent)))
            kept += sifter.sift(b"".join(sent[:size]))
            sent = sent[size:]
        # The sender goes on with a batch of which it knows that none was whole after.
        whole, left = begin, end
        while whole < len(made) and left >= len(made[whole]):
            left -= len(made[whole])
            whole += 1
        begin = data.draw(st.integers(0, min(whole, len(made) - 1)))
    assert kept == b"".join(flat(made))


@given(
    order=st.permutations(range(1, 12)),
    again=st.lists(st.integers(1, 11), max_size=10),
)
def test_any_order(order: list[int], again: list[int]) -> None:
    """Batches that come late, by another connection, are no repeats."""
    made = dict(enumerate(batches("a", [2] * 11), 1))
    boots = Boots()
    kept = [Sifter(boots).sift(b"".join(made[seq])) for seq in [*order, *again]]
    assert kept[:11] == [b"".join(made[seq]) for seq in order]
    assert kept[11:] == [b""] * len(again)


def test_two_connections_at_once() -> None:
    """What an old connection still brings, and the new one repeats, is stored once."""
    ((*lines,),) = batches("a", [6])
    boots = Boots()
    old, new = Sifter(boots), Sifter(boots)
    kept = old.sift(b"".join(lines[:2]))
    kept += new.sift(b"".join(lines[:4]))
    kept += old.sift(b"".join(lines[2:5]))
    kept += new.sift(b"".join(lines[4:]))
    kept += old.sift(lines[5])
    assert kept == b"".join(lines)
    assert (old.repeats, new.repeats) == (3, 3)


def test_mixed_streams() -> None:
    """Lines of several monitors on one connection do not confuse it."""
    one, two = flat(batches("a", [3, 3])), flat(batches("b", [3, 3]))
    mixed = [line for pair in zip(one, two, strict=True) for line in pair]
    boots = Boots()
    assert Sifter(boots).sift(b"".join(mixed)) == b"".join(mixed)
    assert Sifter(boots).sift(b"".join(one)) == b""
    assert Sifter(boots).sift(b"".join(two)) == b""


def test_place() -> None:
    """A stream's place is the boot, the batch and how many of its events have come."""
    lines = flat(batches("a", [1, 3]))
    sifter = Sifter(Boots())
    assert sifter.place is None
    sifter.sift(b"not an event\n")
    assert sifter.place is None
    sifter.sift(b"".join(lines[:3]))
    assert sifter.place == (b"a", 2, 2)
    sifter.sift(lines[3])
    assert sifter.place == (b"a", 2, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"hello",
        b'{"service":"s"}',
        b'{"meta":{"boot":"","seq":1}}',
        b'{"meta":{"boot":"a","seq":}}',
        b'{"meta":{"boot":"a","seq":x1}}',
        b'{"meta":{"boot":"a","seq":1',
        b'{"meta":{"boot":"a","seq":1111111111111111111111}}',
        b'{"meta":{"boot":"a b","seq":1}}',
        b'{"meta":{"boot":"' + b"a" * 100 + b'","seq":1}}',
        b'{"meta":{"seq":1,"boot":"a"}}',
        b'{"meta":{"boot":"a","seq":1},"more":1}',
        b"\0" * 100,
    ],
)
def test_foreign_lines(line: bytes) -> None:
    """What is no event of forza's is kept, as often as it comes, and counted."""
    sifter = Sifter(Boots())
    (event,) = flat(batches("a", [1]))
    data = line + b"\n" + event + line + b"\n" + event
    assert sifter.sift(data) == line + b"\n" + event + line + b"\n" + event
    assert sifter.foreign == 2


def test_what_looks_like_an_event_in_a_text() -> None:
    """A log line that quotes an event is the event of its own batch."""
    (inner,) = flat(batches("b", [1]))
    encoder = Encoder("host", "a", None)
    outer = encoder.lines("logs/stdout", inner * 2)
    boots = Boots()
    sifter = Sifter(boots)
    assert sifter.sift(outer) == outer
    assert sifter.place == (b"a", 1, 2)
    own = encoder.event("s", 1, None, {"meta": {"boot": "c", "seq": 9}, "x": {"y": {}}})
    assert sifter.sift(own) == own
    assert sifter.place == (b"a", 2, 1)


def test_memory_is_bounded() -> None:
    """Millions of boots, gaps and torsos take no more than so much."""
    boots = Boots()
    line = b'{"meta":{"boot":"%b","seq":%d}}\n'
    sifter = Sifter(boots)
    for number in range(30_000):
        sifter.sift(line % (b"%d" % number, 1))
    assert len(boots.dump()) == 10_000
    for number in range(0, 3000, 3):
        sifter.sift(line % (b"a", number))
        Sifter(boots).sift(line % (b"b", number))
    spans, _ = boots.dump()["a"]
    _, parts = boots.dump()["b"]
    assert isinstance(spans, list)
    assert isinstance(parts, list)
    assert len(spans) <= 32
    assert len(parts) <= 8
    # What is new is told from it all the same.
    assert sifter.sift(line % (b"a", 3000)) == line % (b"a", 3000)
    assert sifter.sift(line % (b"a", 3000) * 2) != b""


@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=6),
    data=st.data(),
)
def test_recall(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    """After a kill at any byte, with any older note or none, all is known again."""
    folder = tmp_path_factory.mktemp("recall")
    path = folder / "events"
    lines = flat(batches("a", sizes))
    stream = b"".join(lines)
    boots = Boots()
    noted = data.draw(st.one_of(st.none(), st.integers(0, len(lines))))
    # Not up to the length itself, which the time in the events makes vary.
    cut = data.draw(st.integers(0, 5000)) % (len(stream) + 1)
    if noted is not None and cut >= len(b"".join(lines[:noted])):
        path.write_bytes(b"".join(lines[:noted]))
        Sifter(boots).sift(b"".join(lines[:noted]))
        with path.open("rb") as file:
            save(str(path), note(file.fileno(), boots))
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(stream[:cut])
    before = path.read_bytes()
    recalled, end = recall(str(path))
    assert path.read_bytes() == before
    assert not before or (before + end).endswith(b"\n")
    rest = Sifter(recalled).sift(stream)
    whole = stream[:cut].rfind(b"\n") + 1
    if stream[cut : cut + 1] == b"\n":  # only the newline was missing
        whole = cut + 1
    assert stream[:whole] + rest == stream


def test_recall_after_rotation(tmp_path: Path) -> None:
    """What came after the note may be in files that have other names by now."""
    path = tmp_path / "events"
    lines = flat(batches("a", [2] * 8))
    boots = Boots()
    sifter = Sifter(boots)
    path.write_bytes(b"".join(lines[:3]))
    sifter.sift(b"".join(lines[:3]))
    with path.open("rb") as file:
        save(str(path), note(file.fileno(), boots))
    with path.open("ab") as file:
        file.write(b"".join(lines[3:7]))
    path.rename(tmp_path / "events.2")
    (tmp_path / "events.1").write_bytes(b"".join(lines[7:10]))
    path.write_bytes(b"".join(lines[10:13]))
    rest = Sifter(recall(str(path))[0]).sift(b"".join(lines))
    assert rest == b"".join(lines[13:])


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"{}", b'{"forza":"boots"}\n0bad0bad\n']
)
def test_recall_with_a_bad_note(tmp_path: Path, text: bytes) -> None:
    """A note that can't be read is as good as none."""
    path = tmp_path / "events"
    lines = flat(batches("a", [2, 2]))
    path.write_bytes(b"".join(lines[:3]))
    (tmp_path / "events.boots").write_bytes(text)
    assert Sifter(recall(str(path))[0]).sift(b"".join(lines)) == lines[3]


def test_recall_with_a_damaged_note(tmp_path: Path) -> None:
    """Whichever byte of a note is damaged: no event that is not there passes for one
    that is."""
    path = tmp_path / "events"
    lines = flat(batches("a", [1] * 40))
    path.write_bytes(b"".join(lines[:12]))
    boots, _ = recall(str(path))
    with path.open("rb") as file:
        save(str(path), note(file.fileno(), boots))
    good = (tmp_path / "events.boots").read_bytes()
    assert b"[[1,11]]" in good
    for at in range(len(good)):
        for bit in (1, 8):
            bad = bytearray(good)
            bad[at] ^= bit
            (tmp_path / "events.boots").write_bytes(bad)
            rest = Sifter(recall(str(path))[0]).sift(b"".join(lines))
            assert rest == b"".join(lines[12:])


def test_sync_without_a_thread(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that is out of processes a sync is done all the same."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_output, "start_new_thread", refuse)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        output = FileOutput(loop, str(tmp_path / "events"), 0, 5, print)
        output.write(b"something\n")
        done: asyncio.Future[OSError | None] = loop.create_future()
        output.sync(done.set_result)
        assert await done is None
        output.close()

    run(main())
    assert (tmp_path / "events").read_bytes() == b"something\n"


def test_a_torso_that_looks_whole(tmp_path: Path) -> None:
    """An event cut off where two braces end is none, not even at the next restart."""
    path = tmp_path / "events"
    event = Encoder("h", "a", None).event("s", 1, None, {"x": {"y": {"z": 1}}})
    torso = event[: event.index(b"}}") + 2]
    assert not event.startswith(torso + b"\n")
    path.write_bytes(torso)
    for end in (b" \n", b"", b""):
        boots, found = recall(str(path))
        assert found == end
        with path.open("ab") as file:
            file.write(found)
        assert Sifter(boots).sift(event) == event
    assert path.read_bytes() == torso + b" \n"
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(path.read_bytes())
