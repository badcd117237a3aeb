# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whether all arrives, once, while receiver and monitor are killed at random."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import BENCHMARKS, UnavailableError, forza_python
from benchmarks.harness.cell import Cell, GaveUpError, wait_until
from benchmarks.harness.certificate import certificate
from benchmarks.harness.commandline import parser
from benchmarks.harness.delivered import Stored
from benchmarks.harness.receivers import refusing_port
from benchmarks.harness.relay import Relay
from benchmarks.harness.results import Result, emit, note

BENCHMARK = "delivery_soak"
# The mean time between two of a kind, and how long a killed receiver stays away.
RECEIVER_EVERY = 5.0
MONITOR_EVERY = 10.0
RESET_EVERY = 4.0
AWAY = 2.0
# At the end: longer than a client's longest pause between two attempts.
PATIENCE = 120.0


def main() -> None:
    options = parser(
        "An app numbers its lines; a keeper runs the monitor, which sends them with a"
        " spool to forza listen, through a relay that counts. Receiver and monitor are"
        " killed with SIGKILL at random moments, and connections broken. At the end"
        " every line must be stored once, or be announced as dropped. Exit status 1 if"
        " one is not.",
        "python benchmarks/delivery_soak.py --minutes 60",
    )
    options.add_argument(
        "--minutes", type=float, metavar="N", help="how long (default 20; quick: 1)"
    )
    options.add_argument(
        "--rate", type=float, default=1000, metavar="N", help="lines a second (1000)"
    )
    options.add_argument("--tls", action="store_true", help="encrypted all the way")
    options.add_argument(
        "--seed", type=int, help="repeat the random moments of another run"
    )
    given = options.parse_args()
    given.minutes = given.minutes or (1 if given.quick else 20)
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(1 << 32)
    python = forza_python()
    try:
        values = soak(python, given)
    except (GaveUpError, UnavailableError) as error:
        values = {"failed": str(error)}
    emit(BENCHMARK, "forza", values)
    faults = ["failed", "lost", "stored_twice"]
    if not values.get("dropped"):  # which says how many events, not how many batches
        faults.append("batches_missing")
    if any(values.get(fault) for fault in faults):
        sys.exit(1)


class Receiver:
    """`forza listen` in a process of its own, killed and started again."""

    def __init__(self, cell: Cell, python: Path, tls: Path | None) -> None:
        self.cell = cell
        self.python = python
        self.tls = () if tls is None else (f"--tls-cert={tls}",)
        self.port = refusing_port()
        self.folder = cell.path / "stored"
        self.folder.mkdir()
        self.kills = 0
        self.start()

    def start(self) -> None:
        """Start it, on the same port and file."""
        url = f"file:{self.folder}/events?max=64M&keep=999"
        words = (self.python, "-m", "forza", "listen", f"--port={self.port}")
        self.process = self.cell.spawn((*words, *self.tls, "--to", url))

    def kill(self) -> None:
        """Kill it without a warning."""
        self.process.kill()
        self.process.wait()
        self.kills += 1

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        if self.process.wait(timeout=PATIENCE):
            raise GaveUpError(f"the receiver has failed\n{self.cell.output()}")

    def files(self) -> list[Path]:
        """Return its files, the oldest first."""
        numbers = sorted(
            (int(file.suffix[1:]) for file in self.folder.glob("events.[0-9]*")),
            reverse=True,
        )
        names = [f"events.{number}" for number in numbers] + ["events"]
        return [self.folder / name for name in names]


class Kept:
    """A keeper, the monitor that it keeps, and the monitor's app."""

    def __init__(
        self, cell: Cell, python: Path, port: int, rate: float, tls: Path | None
    ) -> None:
        self.cell = cell
        self.python = python
        self.records = cell.path / "records"
        self.records.mkdir()
        self.pidfile = cell.path / "monitor.pid"
        self.spool = cell.path / "spool"
        self.spool.mkdir()
        self.where: tuple[str, ...] = ("-h", "127.0.0.1", "-p", str(port))
        if tls is not None:
            self.where = ("--to", f"tls:127.0.0.1:{port}?ca={tls}")
        self.kills = 0
        words: tuple[str | Path, ...] = (
            *(python, "-m", "forza.aeternum", "run", "-p", self.pidfile),
            *("--park", "never"),  # kills are no crash loop
            *("--", "forza", *self.where, "--flush-timeout", "60"),
            *("--spool", str(self.spool), "--spool-max", "1G"),
            *("--", sys.executable, "-S", BENCHMARKS / "python" / "numbered.py"),
            *(self.records, str(rate)),
        )
        self.keeper = cell.spawn(words)
        self.wait_for_a_run(0)

    def wait_for_a_run(self, before: int) -> None:
        """Wait until a further run of the app has begun."""
        try:
            wait_until(lambda: self.runs() > before, PATIENCE, "a run of the app")
        except GaveUpError as error:
            raise GaveUpError(f"{error}\n{self.cell.output()}") from None

    def runs(self) -> int:
        """Count the app's runs so far."""
        return len(os.listdir(self.records))

    def kill(self, pause: float) -> None:
        """Kill the monitor without a warning; have both started again after a pause."""
        runs = self.runs()
        handle = os.pidfd_open(int(self.pidfile.read_text()))
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        self.kills += 1
        time.sleep(pause)
        if self.runs() == runs:  # else the keeper was faster
            self.keeper.send_signal(signal.SIGUSR1)
        self.wait_for_a_run(runs)

    def stop(self) -> None:
        """End it in order, and deliver what dead monitors have left."""
        self.keeper.terminate()
        self.keeper.wait(timeout=PATIENCE)
        words = (self.python, "-m", "forza", "flush", "--spool", self.spool)
        if self.cell.run((*words, *self.where, "--flush-timeout", "60")):
            raise GaveUpError(f"the spool is not empty\n{self.cell.output()}")


def soak(python: Path, given: argparse.Namespace) -> Result:
    """Run for the time given; return what was sent, stored and lost."""
    chance = random.Random(given.seed)
    with Cell() as cell:
        tls = certificate(cell) if given.tls else None
        receiver = Receiver(cell, python, tls)
        with Relay(receiver.port) as relay:
            kept = Kept(cell, python, relay.port, given.rate, tls)
            resets = torment(chance, given.minutes * 60, receiver, kept, relay)
            note(f"{BENCHMARK}: draining")
            kept.stop()
        receiver.stop()
        stored = Stored(receiver.files())
        found = stored.held_against(kept.records.iterdir())
        # What is encrypted cannot be counted on its way.
        sent = {
            "events_sent": relay.lines,
            "repeated": relay.lines - stored.events,
        }
        return {
            "minutes": given.minutes,
            "rate": given.rate,
            "seed": given.seed,
            "tls": given.tls,
            "receiver_kills": receiver.kills,
            "away_s": AWAY,
            "monitor_kills": kept.kills,
            "resets": resets,
            "connections": relay.connections,
            **({} if tls else sent),
            **found,
        }


def torment(
    chance: random.Random,
    length: float,
    receiver: Receiver,
    kept: Kept,
    relay: Relay,
) -> int:
    """Kill and break for so many seconds; return how many connections were broken."""
    resets = 0

    def kill_receiver() -> None:
        receiver.kill()
        time.sleep(chance.uniform(0, AWAY))
        receiver.start()

    def kill_monitor() -> None:
        kept.kill(chance.uniform(0, 1))

    def reset() -> None:
        nonlocal resets
        resets += relay.reset()

    every: dict[Callable[[], None], float] = {
        kill_receiver: RECEIVER_EVERY,
        kill_monitor: MONITOR_EVERY,
        reset: RESET_EVERY,
    }
    begun = noted = time.monotonic()
    due = {act: begun + chance.expovariate(1 / mean) for act, mean in every.items()}
    while (now := time.monotonic()) - begun < length:
        act = min(due, key=lambda act: due[act])
        if due[act] > now:
            time.sleep(min(due[act] - now, 1.0))
            continue
        act()
        due[act] = time.monotonic() + chance.expovariate(1 / every[act])
        if now - noted > 30:
            noted = now
            note(
                f"{BENCHMARK}: {now - begun:.0f} s, {relay.connections} connections,"
                f" {receiver.kills} and {kept.kills} kills"
            )
        for name, process in (("keeper", kept.keeper), ("receiver", receiver.process)):
            if process.poll() is not None:
                raise GaveUpError(f"the {name} has left\n{kept.cell.output()}")
    return resets


if __name__ == "__main__":
    main()
