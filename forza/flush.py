# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run `forza flush`: deliver what dead monitors have left in a spool, and exit."""

from __future__ import annotations

import os
import sys

from forza._errors import (
    EXIT_PORT,
    EXIT_SETUP,
    EXIT_USAGE,
    ForzaError,
    PortError,
    UsageError,
)
from forza._options import seconds
from forza.cli import split, urls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

    from forza._monitor import Monitor
    from forza.sinks import Sink
    from forza.spool._queue import Spool
else:
    import _signal as signal

TEXT = """\
usage: forza flush --spool DIR [OPTIONS]

Deliver what monitors that no longer run have left in a spool, and exit. What a running
monitor has there is its own to deliver.

examples:
  forza flush --spool /var/spool/shop           to where it was meant to go
  forza flush --spool /var/spool/shop -h 10.0.0.7 -p 1337
  forza flush --spool /var/spool/shop --to stdout: > events.ndjson

options:
      --spool DIR           what --spool named when the app ran
  -h, --host [HOST[:PORT]]  send it to this server instead; as forza's own options
  -p, --port PORT
      --to URL              tcp:HOST:PORT[,HOST:PORT...], tls:..., file:PATH, ...
      --flush-timeout SECS  give up after so long without progress (default 10)
      --help                print this

exit status: 0 nothing is left; 1 something is, since nobody has taken it; 125 the
spool cannot be used; 3 bad port; 2 other usage errors.
"""

EXIT_LEFT = 1
_SEE = "; try 'forza flush --help'"
_OPTIONS = ("flush-timeout", "host", "port", "spool", "to")
_TIMEOUT = 10.0
_BUFFER = 1024 * 1024
_FOREVER = 1e9
_ENDING: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(argv: Sequence[str]) -> NoReturn:
    """Flush a spool; `argv` is what follows `flush`."""
    from forza._program import say
    from forza._start import open_stdio

    open_stdio()
    try:
        given = parse(argv)
        if given is None:
            print(TEXT, end="")  # noqa: T201
            raise SystemExit(0)
        code = flush(*given)
    except ForzaError as error:
        say(str(error))
        code = EXIT_SETUP
        if isinstance(error, UsageError):
            code = EXIT_PORT if isinstance(error, PortError) else EXIT_USAGE
    sys.stdout.flush()
    os._exit(code)


def parse(argv: Sequence[str]) -> tuple[str, tuple[str, ...], float] | None:
    """Return folder, URLs and time-out; None if help is wanted. Raises UsageError."""
    options, args = split(argv)
    if ("help", "") in options:
        return None
    for name, _ in options:
        if name not in _OPTIONS:
            raise UsageError(f"unknown option --{name}{_SEE}")
    if args:
        raise UsageError(f"'{args[0]}' is one word too many{_SEE}")
    found = dict(reversed(options))
    if not found.get("spool"):
        raise UsageError(f"option --spool is needed{_SEE}")
    patience = _TIMEOUT
    if "flush-timeout" in found:
        patience = seconds("flush-timeout", found["flush-timeout"])
    return found["spool"], urls(options), patience


def flush(path: str, to: Sequence[str], patience: float) -> int:
    """Deliver all that was left; return the status to leave with.

    Raises SinkError if the folder cannot be used, UsageError for a bad URL.
    """
    from forza._program import load_runtime, say, say_trouble
    from forza.sinks import check
    from forza.spool._depot import survey

    left, in_use = survey(path)
    if in_use:
        say(f"running monitors have {in_use} lanes of {path}: those are theirs")
    if not left:
        say(f"nothing is left in {path}")
        return 0
    # In the order of the folders, each once.
    meant_for = tuple(dict.fromkeys(url for url, _ in left))
    for url in to or meant_for:
        try:
            check(url)
        except UsageError as error:
            raise UsageError(
                f"{error}{'' if to else '; name a server'}{_SEE}"
            ) from None
    # Until the loop runs, which would not hear of them.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    make_loop, _ = load_runtime()
    loop = make_loop()
    loop.set_exception_handler(say_trouble)
    flusher = Flusher(loop, say)
    task = loop.create_task(flusher.run(path, to or meant_for, patience))
    task.add_done_callback(lambda _: loop.stop())
    for signum in _ENDING:
        loop.add_signal_handler(signum, flusher.abandon)
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _ENDING)
    loop.run_forever()
    return task.result()


class Flusher:
    """Stand in for a monitor that has no app: all that it sends is on disk already,
    but for what it has to say about that."""

    def __init__(self, loop: AbstractEventLoop, say: Callable[[str], object]) -> None:
        from forza._event import Encoder
        from forza._host import host_name

        self.loop = loop
        self.silent = False
        self.ended = None
        self.backlogs = 0
        self._say = say
        self._said = ""
        self._encoder = Encoder(host_name(), os.urandom(8).hex(), None)
        self._sinks: list[Sink] = []
        self._spools: list[Spool] = []
        self._sent = 0
        self._over = False
        self._dropped: dict[str, float] = {}

    def say(self, text: str, *, problem: bool = True) -> None:
        """Tell the operator how it goes, in trouble or not; the same once in a row."""
        if text != self._said:
            self._said = text
            self._say(text)

    def send(
        self,
        service: str,
        metric: float,
        description: str | None = None,
        meta: Mapping[str, object] | None = None,
        *,
        lifecycle: bool = False,
    ) -> None:
        """Say in-band what is missing."""
        event = self._encoder.event(service, metric, description, meta)
        if service == "telemetry/dropped" and meta is not None:
            reason = str(meta["reason"])
            self._dropped[reason] = self._dropped.get(reason, 0) + metric
        for sink in self._sinks:
            self._sent += 1
            sink.write(event, lifecycle)

    def hold(self, holder: object) -> None:
        """Nobody writes: there is nothing to hold."""

    def release(self, holder: object) -> None:
        """There is nothing to let go."""

    def abandon(self) -> None:
        """Leave what has not been taken by now."""
        self._over = True
        for sink in self._sinks:
            sink.abandon()

    async def run(self, path: str, to: Sequence[str], patience: float) -> int:
        """Deliver all that can be delivered, and say what was; return the status."""
        from forza.spool._depot import survey

        sent = left = 0
        has_more = True
        while has_more and not left and not self._over:
            delivered, left, has_more = await self._round(path, to, patience)
            sent += delivered
        if has_more:
            left = sum(pending for _, pending in survey(path)[0])
        missing = [f"{n:.0f} missing: {why}" for why, n in self._dropped.items()]
        self._say("; ".join([f"{sent} events sent", f"{left} left", *missing]))
        return EXIT_LEFT if left else 0

    async def _round(
        self, path: str, to: Sequence[str], patience: float
    ) -> tuple[int, int, bool]:
        """Deliver what may be open at a time; return how many events were sent, how
        many are left of them, and whether there are more."""
        from typing import cast

        from forza.sinks import open_sink
        from forza.spool._depot import Depot
        from forza.spool._queue import Spool

        monitor = cast("Monitor", self)
        self._sent = 0
        depot = Depot(path, sys.maxsize, to)
        self._spools = [Spool(monitor, depot, url, _BUFFER) for url in to]
        has_more = depot.has_more
        self._sinks = [open_sink(s.url, monitor, s) for s in self._spools]
        # Each gives up when this does, however long the whole takes.
        closing = [self.loop.create_task(s.close(_FOREVER)) for s in self._sinks]
        self._watch(patience, -1)
        lost = 0
        for task in closing:
            lost += await task
        self._timer.cancel()
        depot.close()
        kept = sum(spool.kept for spool in self._spools)
        # What this has added itself comes last.
        own = max(0, self._sent - kept)
        delivered = sum(spool.delivered for spool in self._spools) - own
        return delivered, kept + lost, has_more

    def _watch(self, patience: float, last: int) -> None:
        """Give up when nothing has been taken for so long."""
        delivered = sum(spool.delivered for spool in self._spools)
        if delivered == last:
            self.abandon()
        else:
            self._timer = self.loop.call_later(
                patience, self._watch, patience, delivered
            )
