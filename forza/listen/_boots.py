# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Remember which batches of which monitor are there, and sift repeats out."""

from __future__ import annotations

from bisect import bisect_right

TYPE_CHECKING = False
if TYPE_CHECKING:
    # A boot, a batch of it, and how many of that batch's events have come.
    Place = tuple[bytes, int, int]

# So many monitors' lives are remembered, 0.5 kB each, 4 kB if it has as many gaps as
# are told apart; the one that was not heard of for longest is forgotten first, and its
# repeats would be stored again.
_MOST_BOOTS = 10_000
# A boot has a gap for each run of batches that its monitor dropped, and unfinished
# batches where connections broke. Beyond this the oldest are no longer told apart.
_MOST_SPANS = 32
_MOST_PARTS = 8
# One connection carries one monitor's events, and those that it found in a spool;
# several monitors' mixed up line by line only if somebody has merged their streams.
_MOST_MIXED = 64

_META = b'"meta":{"boot":"'
_SEQ = b'","seq":'
_END = b"}}\n"
_LONGEST_KEY = 64


class Boot:
    """What has come of one monitor's life: whole batches, and parts of others."""

    __slots__ = ("parts", "spans")

    def __init__(self) -> None:
        self.spans: list[list[int]] = []  # first and last, in order, apart
        self.parts: dict[int, int] = {}

    def has(self, seq: int) -> int:
        """Return how many events of a batch are there; -1: all of them."""
        at = bisect_right(self.spans, [seq, seq]) - 1
        # A span that begins with `seq` may sort after [seq, seq].
        for span in self.spans[max(at, 0) : at + 2]:
            if span[0] <= seq <= span[1]:
                return -1
        return self.parts.get(seq, 0)

    def add_part(self, seq: int, count: int) -> None:
        """Note that the first `count` events of a batch are there."""
        known = self.has(seq)
        if 0 <= known < count:
            self.parts[seq] = count
            if len(self.parts) > _MOST_PARTS:
                self.finish(min(self.parts))

    def finish(self, seq: int) -> None:
        """Note that a batch is whole."""
        self.parts.pop(seq, None)
        spans = self.spans
        if spans and spans[-1][1] == seq - 1:  # as nearly always
            spans[-1][1] = seq
            return
        if self.has(seq) < 0:
            return
        at = bisect_right(spans, [seq, seq])
        if at < len(spans) and spans[at][0] == seq + 1:
            spans[at][0] = seq
        else:
            spans.insert(at, [seq, seq])
        if at and spans[at - 1][1] == spans[at][0] - 1:
            spans[at - 1][1] = spans.pop(at)[1]
        if len(spans) > _MOST_SPANS:
            spans[0][1] = spans.pop(1)[1]


class Boots:
    """All boots that have been heard of, the latest last."""

    __slots__ = ("_boots",)

    def __init__(self) -> None:
        self._boots: dict[bytes, Boot] = {}

    def find(self, name: bytes) -> Boot:
        """Return what is known of a boot, and move it to the end."""
        boot = self._boots.pop(name, None) or Boot()
        self._boots[name] = boot
        if len(self._boots) > _MOST_BOOTS:
            del self._boots[next(iter(self._boots))]
        return boot

    def dump(self) -> dict[str, list[object]]:
        """Return it as JSON can tell it."""
        return {
            name.decode(): [boot.spans, list(boot.parts.items())]
            for name, boot in self._boots.items()
        }

    def load(
        self, dumped: dict[str, tuple[list[list[int]], list[tuple[int, int]]]]
    ) -> None:
        """Take over what `dump` has returned."""
        for name, (spans, parts) in dumped.items():
            boot = self.find(name.encode())
            boot.spans = spans
            boot.parts = dict(parts)


class Sifter:
    """Reads the lines of one stream, and leaves out the events that are known.

    An event is told by its place: the n-th of its boot and seq in this stream. So of a
    batch that was cut off and comes again, just what was missing is kept. A batch is
    whole once its boot has gone on to another. Lines that are no events of forza's are
    kept as they are.
    """

    __slots__ = (
        "_at",
        "_boot",
        "_boots",
        "_have",
        "_key",
        "_most",
        "_name",
        "_places",
        "_seq",
        "_stored",
        "foreign",
        "repeats",
    )

    def __init__(self, boots: Boots, *, stored: bool = False) -> None:
        """Read what somebody sends, or what is `stored`: has no repeats, goes on."""
        self.repeats = 0
        self.foreign = 0
        self._boots = boots
        self._stored = stored
        self._most = _MOST_BOOTS if stored else _MOST_MIXED
        self._key = b"\n"  # which is in no line
        self._name = b""
        self._boot = Boot()
        self._seq = 0
        self._at = 0
        self._have = 0
        # Where other boots were when this one interrupted them.
        self._places: dict[bytes, tuple[int, int]] = {}

    @property
    def place(self) -> Place | None:
        """Where the stream is, or None before its first event."""
        return (self._name, self._seq, self._at) if self._name else None

    def sift(self, data: bytes) -> bytes:
        """Return the lines of `data`, which ends with one, that are not known yet."""
        kept: list[bytes] = []
        begin = at = meta = 0
        size = len(data)
        if self._name:  # another stream may have brought more of this batch
            self._boot = self._boots.find(self._name)
            self._have = self._boot.has(self._seq)
        while at < size:
            end = data.find(b"\n", at) + 1
            if meta < at or not at:
                meta = data.find(_META, at)
                if meta < 0:
                    meta = size
            if meta >= end or not data.startswith(_END, end - 3):
                self.foreign += 1
            elif data.startswith(self._key, meta) or self._turn(data, meta):
                self._at += 1
                if self._at <= self._have or self._have < 0:
                    self.repeats += 1
                    if begin < at:
                        kept.append(data[begin:at])
                    begin = end
            else:
                self.foreign += 1
            at = end
        if self._name:
            self._boot.add_part(self._seq, self._at)
        if not kept:
            return data[begin:] if begin else data
        kept.append(data[begin:])
        return b"".join(kept)

    def _turn(self, data: bytes, meta: int) -> bool:
        """Go on to the batch that `meta` names; False if it names none."""
        begin = meta + len(_META)
        name, middle, rest = data[begin : begin + _LONGEST_KEY].partition(_SEQ)
        digits = rest.replace(b"}", b",").partition(b",")[0]
        if not (middle and name.isalnum() and digits.isdigit() and len(digits) < 19):
            return False
        seq = int(digits)
        if self._name:
            self._boot.add_part(self._seq, self._at)
        if name != self._name:
            self._change_boot(name)
        if seq != self._seq:
            if self._at:
                self._boot.finish(self._seq)
            # Of what is stored, the beginning may lie before where the reading began.
            self._seq, self._at = seq, self._boot.parts.get(seq, 0) * self._stored
        self._have = self._boot.has(seq)
        self._key = data[meta : begin + len(name) + len(_SEQ) + len(digits) + 1]
        return True

    def _change_boot(self, name: bytes) -> None:
        if self._name:
            self._places[self._name] = self._seq, self._at
            if len(self._places) > self._most:
                del self._places[next(iter(self._places))]
        self._name = name
        self._boot = self._boots.find(name)
        self._seq, self._at = self._places.pop(name, (0, 0))
