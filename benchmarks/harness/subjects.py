# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Everything that is measured: forza, what it is held against, its peers."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join as quoted

from .cache import (
    compiled,
    debian_package,
    forza_python,
    npm_package,
    python_package,
)
from .cell import Cell
from .certificate import certificate
from .relay import SecureRelay

__all__ = ["SUBJECTS", "Argv", "Cat", "Forza", "Subject", "named"]

Argv = Sequence[str]
NOTHING = subprocess.DEVNULL


class Subject:
    """One way to run apps and look after their output.

    `prepare` writes what the subject needs, `start` runs it: the time between
    `start` and the app's first instruction is the subject's own.
    """

    name = ""
    note = ""
    """What a reader must know to compare it fairly."""
    shows = ""
    """Its command line, as a reader would type it."""
    sends_events = False
    """Whether the log lines go to a TCP port; else to files."""
    lines = 5_000_000
    """How many log lines it gets through in some seconds."""
    most_drones = 100
    is_forza = False

    @property
    def destination(self) -> str:
        """Say where the log lines go."""
        return "TCP" if self.sends_events else "files in memory"

    def install(self) -> None:
        """Install it; raise UnavailableError if that cannot be done here."""

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        """Write configuration files for these apps."""
        self.apps = apps
        self.port = port

    def start(self, cell: Cell) -> None:
        """Start the apps under their monitor or monitors."""
        raise NotImplementedError

    def stop(self, cell: Cell) -> None:
        """Stop what would restart the apps; the cell ends the rest."""

    def log_files(self, cell: Cell) -> list[Path]:
        """Return the files that hold the apps' stdout."""
        return []


class Forza(Subject):
    """The monitor of this repository, one for each app."""

    name = "forza"
    shows = "python -m forza -h 127.0.0.1 -p PORT -- CMD"
    sends_events = True
    is_forza = True
    environment: Mapping[str, str] | None = None
    options: tuple[str, ...] = ()

    def with_options(self, *options: str) -> Forza:
        """Return the same with more words on its command line."""
        other = copy.copy(self)
        other.options = (*self.options, *options)
        return other

    def install(self) -> None:
        self.words: tuple[str, ...] = (str(forza_python()), "-m", "forza")

    def start(self, cell: Cell) -> None:
        where = (*self.destined(), "--hostname", "bench")
        for app in self.apps:
            words = (*self.words, *where, *self.options, "--", *app)
            cell.spawn(words, env=self.environment)

    def destined(self) -> tuple[str, ...]:
        """Return the options that say where events go."""
        return "-h", "127.0.0.1", "-p", str(self.port)


class PlainForza(Forza):
    """The same without the lean runtime."""

    name = "forza, plain imports"
    shows = "FORZA_RUNTIME=plain " + Forza.shows
    note = "what the lean runtime saves"
    environment: Mapping[str, str] = {"FORZA_RUNTIME": "plain"}


class KeptForza(Forza):
    """A keeper that sleeps in C beside its monitor, and starts that anew if it must."""

    name = "forza --keep"
    shows = "python -m forza --keep -h 127.0.0.1 -p PORT -- CMD"
    note = "restarts the app, as the other supervisors do; a keeper for each app"
    options = ("--keep",)


class SpooledForza(Forza):
    """Every event is on disk, here one in memory, before it is sent."""

    name = "forza --spool"
    shows = "python -m forza --spool DIR -h 127.0.0.1 -p PORT -- CMD"
    note = "its own share of the cost: the folder is in memory, as the harness's are"
    options = ("--spool", "spool")


class SecureForza(Forza):
    """Encrypted, to a server whose certificate is verified."""

    name = "forza --to tls:"
    shows = "python -m forza --to 'tls:127.0.0.1:PORT?ca=FILE' -- CMD"
    note = "for its memory: what decrypts for the receiver is in Python, and slower"
    lines = 1_000_000

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        self.certificate = certificate(cell)
        self.relay = SecureRelay(port, self.certificate)

    def stop(self, cell: Cell) -> None:
        self.relay.__exit__()

    def destined(self) -> tuple[str, ...]:
        return "--to", f"tls:127.0.0.1:{self.relay.port}?ca={self.certificate}"


class Cat(Subject):
    """A pipe into a socket: no events, no metrics, no supervision."""

    name = "cat"
    note = "bytes unchanged, nothing supervised"
    shows = "CMD | cat > TCP"
    sends_events = True

    def start(self, cell: Cell) -> None:
        for app in self.apps:
            child = cell.spawn(app, stdout=subprocess.PIPE)
            assert child.stdout is not None
            with child.stdout, socket.create_connection(("127.0.0.1", self.port)) as s:
                cell.spawn(["cat"], stdin=child.stdout, stdout=s.fileno())


class Pump(Subject):
    """A C program that does to a log line what forza does."""

    name = "C pump"
    note = "the same JSON expansion in C, nothing supervised"
    shows = "CMD | pump PORT"
    sends_events = True

    def install(self) -> None:
        self.program = compiled("pump")

    def start(self, cell: Cell) -> None:
        for app in self.apps:
            child = cell.spawn(app, stdout=subprocess.PIPE)
            assert child.stdout is not None
            with child.stdout:
                cell.spawn([self.program, str(self.port)], stdin=child.stdout)


class Supervisor(Subject):
    """supervisord in the foreground, one log file for each app's stream."""

    name = "supervisor"
    note = "one daemon; logs copied to files, unchanged"
    shows = "supervisord --nodaemon"

    def install(self) -> None:
        self.programs = python_package("supervisor")

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        text = (
            "[supervisord]\nnodaemon=true\nuser=root\n"
            f"logfile={cell.path}/supervisord.log\n"
            f"pidfile={cell.path}/supervisord.pid\n"
        )
        for i, app in enumerate(apps):
            text += (
                f"[program:app{i}]\ncommand={quoted(app)}\n"
                f"stdout_logfile={cell.path}/logs/{i}.out\nstdout_logfile_maxbytes=0\n"
                f"stderr_logfile={cell.path}/logs/{i}.err\nstderr_logfile_maxbytes=0\n"
            )
        (cell.path / "logs").mkdir()
        self.config = cell.write("supervisord.conf", text)

    def start(self, cell: Cell) -> None:
        cell.spawn([self.programs / "supervisord", "-n", "-c", self.config])

    def log_files(self, cell: Cell) -> list[Path]:
        return sorted((cell.path / "logs").glob("*.out"))


class Circus(Supervisor):
    """circusd in the foreground, one log file for each app's stream."""

    name = "circus"
    note = "one daemon; logs copied to files, unchanged"
    shows = "circusd circus.ini"

    def install(self) -> None:
        self.programs = python_package("circus")

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        Subject.prepare(self, cell, apps, port)
        text = (
            "[circus]\nwarmup_delay=0\n"
            f"endpoint=ipc://{cell.path}/endpoint\n"
            f"pubsub_endpoint=ipc://{cell.path}/pubsub\n"
        )
        for i, app in enumerate(apps):
            text += (
                f"[watcher:app{i}]\ncmd={quoted(app)}\ncopy_env=True\n"
                "stdout_stream.class=FileStream\n"
                f"stdout_stream.filename={cell.path}/logs/{i}.out\n"
                "stderr_stream.class=FileStream\n"
                f"stderr_stream.filename={cell.path}/logs/{i}.err\n"
            )
        (cell.path / "logs").mkdir()
        self.config = cell.write("circus.ini", text)

    def start(self, cell: Cell) -> None:
        cell.spawn([self.programs / "circusd", self.config])


class Honcho(Subject):
    """honcho with a Procfile; a tool for a developer's terminal."""

    name = "honcho"
    note = "made for a terminal; stamps each line, one process for each app"
    shows = "honcho start"
    lines = 100_000
    most_drones = 10

    def install(self) -> None:
        self.programs = python_package("honcho")

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        text = "".join(f"app{i}: exec {quoted(app)}\n" for i, app in enumerate(apps))
        self.config = cell.write("Procfile", text)

    def start(self, cell: Cell) -> None:
        with (cell.path / "honcho.out").open("wb") as out:
            cell.spawn(
                [self.programs / "honcho", "start", "-f", self.config], stdout=out
            )

    def log_files(self, cell: Cell) -> list[Path]:
        return [cell.path / "honcho.out"]


class Pm2(Subject):
    """pm2's own daemon, with a home of its own."""

    name = "pm2"
    note = "one daemon; logs copied to files; its code inside a node app not counted"
    shows = "pm2 start apps.json"
    lines = 2_000_000

    def install(self) -> None:
        self.programs = npm_package("pm2")

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        self.home = {
            "PM2_HOME": str(cell.path / "pm2"),
            "PM2_DISABLE_VERSION_CHECK": "1",
        }
        entries = [self.entry(cell, i, app) for i, app in enumerate(apps)]
        self.config = cell.write("apps.json", json.dumps({"apps": entries}))

    def entry(self, cell: Cell, number: int, app: Argv) -> dict[str, object]:
        """Describe an app; a node script as one, anything else as a program."""
        is_script = Path(app[0]).name == "node"
        return {
            "name": f"app{number}",
            "script": app[1] if is_script else app[0],
            "args": list(app[2:] if is_script else app[1:]),
            "interpreter": app[0] if is_script else "none",
            "exec_mode": "fork",
            "out_file": f"{cell.path}/pm2-{number}.out",
            "error_file": f"{cell.path}/pm2-{number}.err",
            "merge_logs": True,
        }

    def start(self, cell: Cell) -> None:
        cell.spawn([self.programs / "pm2", "start", self.config], env=self.home)

    def stop(self, cell: Cell) -> None:
        cell.run([self.programs / "pm2", "kill"], env=self.home)

    def log_files(self, cell: Cell) -> list[Path]:
        return sorted(cell.path.glob("pm2-*.out"))


class Forever(Subject):
    """One node process for each app."""

    name = "forever"
    note = "one node process for each app; logs copied to files"
    shows = "forever start CMD"
    most_drones = 10

    def install(self) -> None:
        self.programs = npm_package("forever")

    def start(self, cell: Cell) -> None:
        for i, app in enumerate(self.apps):
            # forever wants the first argument to be a file that exists, and
            # runs any program before it: -c.  Our apps' first argument may be
            # a word (`idle`), so a file of that name is put beside them.
            script = cell.path / app[1]
            if not script.exists():
                script.touch()
            files = [
                f"{cell.path}/forever-{i}{end}" for end in (".log", ".out", ".err")
            ]
            words = (
                *("start", "-a", "-s", "-l", files[0], "-o", files[1], "-e", files[2]),
                *("--minUptime", "1000", "--spinSleepTime", "1000"),
                *("--workingDir", str(cell.path), "-c", app[0], *app[1:]),
            )
            cell.spawn([self.programs / "forever", *words])

    def stop(self, cell: Cell) -> None:
        cell.run([self.programs / "forever", "stopall"])

    def log_files(self, cell: Cell) -> list[Path]:
        return sorted(cell.path.glob("forever-*.out"))


class S6(Subject):
    """Two s6-supervise and an s6-log for each app; no s6-svscan above them."""

    name = "s6"
    note = "two supervisors and a logger for each app; stamps each line into files"
    shows = "s6-supervise app | s6-supervise log (s6-log t)"
    lines = 2_000_000

    def install(self) -> None:
        # s6-svscan has the path of s6-supervise compiled in, so that it runs
        # only where the package is really installed. It would add one process.
        root = debian_package("s6")
        (libraries,) = root.glob("usr/lib/*-linux-*")
        self.paths = {
            "PATH": f"{root}/usr/bin:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(libraries),
        }

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        for i, app in enumerate(apps):
            logs = cell.path / f"logs/{i}"
            logs.mkdir(parents=True)
            script = f"#!/bin/sh\nexec {quoted(app)}\n"
            cell.write(f"app{i}/run", script, 0o755)
            script = f"#!/bin/sh\nexec s6-log t n1000 s268435455 {logs}\n"
            cell.write(f"log{i}/run", script, 0o755)

    def start(self, cell: Cell) -> None:
        supervise = "s6-supervise"
        for i in range(len(self.apps)):
            read_end, write_end = os.pipe()
            with open(read_end, "rb") as stdin, open(write_end, "wb") as stdout:
                cell.spawn(
                    [supervise, f"{cell.path}/app{i}"], NOTHING, stdout, self.paths
                )
                cell.spawn([supervise, f"{cell.path}/log{i}"], stdin, None, self.paths)

    def log_files(self, cell: Cell) -> list[Path]:
        return [file for file in cell.path.glob("logs/*/*") if file.name[0] in "c@"]


class Runit(Subject):
    """runsvdir over one runsv and one svlogd for each app."""

    name = "runit"
    note = "a supervisor and a logger for each app; stamps each line into files"
    shows = "runsvdir with svlogd -tt"
    lines = 1_000_000

    def install(self) -> None:
        self.root = debian_package("runit")
        self.paths = {"PATH": f"{self.root}/usr/bin:{self.root}/bin:/usr/bin:/bin"}

    def prepare(self, cell: Cell, apps: Sequence[Argv], port: int) -> None:
        super().prepare(cell, apps, port)
        for i, app in enumerate(apps):
            cell.write(f"logs/{i}/config", "s0\n")
            script = f"#!/bin/sh\nexec {quoted(app)}\n"
            cell.write(f"scan/app{i}/run", script, 0o755)
            script = f"#!/bin/sh\nexec svlogd -tt {cell.path}/logs/{i}\n"
            cell.write(f"scan/app{i}/log/run", script, 0o755)

    def start(self, cell: Cell) -> None:
        cell.spawn(["runsvdir", cell.path / "scan"], env=self.paths)

    def log_files(self, cell: Cell) -> list[Path]:
        return [file for file in cell.path.glob("logs/*/*") if file.name[0] in "c@"]


SUBJECTS: tuple[Subject, ...] = (
    Forza(),
    KeptForza(),
    SpooledForza(),
    SecureForza(),
    PlainForza(),
    Cat(),
    Pump(),
    Supervisor(),
    Circus(),
    Pm2(),
    Forever(),
    S6(),
    Runit(),
    Honcho(),
)


def named(name: str) -> Subject:
    """Return the subject of exactly this name."""
    return next(subject for subject in SUBJECTS if subject.name == name)
