# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Whatever dies, the spool has what was not delivered, and the next one delivers it."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, cast

import orjson
import pytest

from forza.spool._depot import Depot, blocks
from forza.spool._queue import Spool
from tests.conftest import CHILDREN, PATIENCE, Connection, MetricsServer
from tests.contract.test_listen import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forza._monitor import Monitor
    from tests.conftest import Event
    from tests.contract.conftest import Forza

MIB = 1024 * 1024


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def used(path: Path) -> int:
    """Return what a spool takes on disk."""
    total = 0
    for folder, _, names in os.walk(path):
        total += 4096
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += blocks(os.stat(f"{folder}/{name}").st_size)
    return total


def unique(received: list[bytes]) -> list[Event]:
    """Return the events of all connections without repeats.

    An event is known by its boot, its seq and its place in the batch.
    """
    found: list[Event] = []
    known: set[tuple[str, int, int]] = set()
    for data in received:
        last, place = ("", 0), 0
        for line in data.split(b"\n")[:-1]:  # what was cut off comes again whole
            event = orjson.loads(line)
            batch = event["meta"]["boot"], event["meta"]["seq"]
            place = place + 1 if batch == last else 0
            last = batch
            if (*batch, place) not in known:
                known.add((*batch, place))
                found.append(event)
    return found


def lines(events: list[Event], name: str) -> list[int]:
    """Return the numbers of one app's lines."""
    return [
        int(event["description"].split()[1])
        for event in events
        if event["service"] == "logs/stdout" and event["description"].startswith(name)
    ]


def boots(events: list[Event]) -> dict[str, list[int]]:
    """Return the seqs of each boot, in order of arrival."""
    found: dict[str, list[int]] = {}
    for event in events:
        seqs = found.setdefault(event["meta"]["boot"], [])
        if not seqs or seqs[-1] != event["meta"]["seq"]:
            seqs.append(event["meta"]["seq"])
    return found


# ---- Last words


def test_the_server_is_away(lean_forza: Forza, tmp_path: Path) -> None:
    """What a whole life could not send, the next one does, before its own."""
    port = free_port()
    spool = tmp_path / "spool"
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool)
    first = (*args, "--flush-timeout", 0.2, "--", "sh", "-c", "echo first; exit 7")
    ended = lean_forza.run(*first)
    assert ended.status == 7
    assert f"events for tcp:127.0.0.1:{port} wait in {spool}\n" in ended.stderr
    assert "not delivered" not in ended.stderr
    assert spool.stat().st_mode & 0o777 == 0o700
    with MetricsServer(port) as server:
        assert lean_forza.run(*args, "--", "echo", "second").status == 0
        events = server.wait_closed()
    assert [e["description"] for e in events if e["service"] == "logs/stdout"] == [
        "first\n",
        "second\n",
    ]
    assert [e["description"] for e in events if e["service"].endswith("/exit")] == [
        "7",
        "0",
    ]
    for seqs in boots(events).values():
        assert seqs == list(range(1, len(seqs) + 1))
    assert [path.name for path in spool.iterdir()] == ["lock"]


def test_flush(forza: Forza, tmp_path: Path) -> None:
    """It sends what dead monitors have left, says so, and leaves nothing behind."""
    port = free_port()
    spool = tmp_path / "spool"
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool, "--flush-timeout", 0)
    for word in ("one", "two"):
        forza.run(*args, "--plugin", "logs", "--plugin", "process", "--", "echo", word)
    away = forza.run("flush", "--spool", spool, "--flush-timeout", 0.3)
    assert away.status == 1
    assert away.stderr.splitlines()[-1] == "forza: 0 events sent; 6 left"
    with MetricsServer(port) as server:
        ended = forza.run("flush", "--spool", spool)
        assert ended.stderr.splitlines() == [
            f"forza: connected to 127.0.0.1:{port}",
            "forza: 6 events sent; 0 left",
        ]
        assert ended.status == 0
        events = server.wait_closed()
    assert [event["service"].rpartition("/")[2] for event in events] == [
        *("spawn", "stdout", "exit"),
        *("spawn", "stdout", "exit"),
    ]
    again = forza.run("flush", "--spool", spool)
    assert again.stderr == f"forza: nothing is left in {spool}\n"
    assert again.status == 0


def test_flush_of_many(lean_forza: Forza, tmp_path: Path) -> None:
    """What many monitors have left is delivered with few descriptors."""
    spool = tmp_path / "spool"
    args = ("--spool", spool, "--flush-timeout", 0, "--plugin", "process", "--")
    lean_forza.run("-h", f"127.0.0.1:{free_port()}", *args, "true")
    for number in range(2, 301):
        shutil.copytree(spool / "1", spool / str(number))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    with MetricsServer() as server:
        ended = lean_forza.run(
            *("flush", "--spool", spool, "-h", server.address), preexec_fn=limit
        )
        assert ended.stderr.splitlines() == [
            f"forza: connected to {server.address}",
            "forza: 600 events sent; 0 left",
        ]
        server.wait_until(lambda: len(server.events) == 600, "events")
    assert [path.name for path in spool.iterdir()] == ["lock"]


def test_flush_to_a_receiver_that_acknowledges(forza: Forza, tmp_path: Path) -> None:
    """What a spool hands out in one piece is acknowledged batch by batch, and gone."""
    spool, path = tmp_path / "spool", tmp_path / "events"
    args = ("--spool", spool, "--flush-timeout", 0, "--", "echo", "hello")
    forza.run("-h", f"127.0.0.1:{free_port()}", *args)
    listener = Listener(forza, "--to", f"file:{path}")
    there = f"127.0.0.1:{listener.port}"
    ended = forza.run("flush", "--spool", spool, "-h", there)
    assert ended.status == 0, ended.stderr
    assert "; 0 left" in ended.stderr
    listener.stop()
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert len({event["meta"]["seq"] for event in events}) > 1
    assert events[-1]["service"] == "health/process/exit"
    again = forza.run("flush", "--spool", spool)
    assert (again.status, "nothing is left" in again.stderr) == (0, True)


def test_flush_to_somebody_else(
    lean_forza: Forza, tmp_path: Path, server: MetricsServer
) -> None:
    """Whoever is named gets it, be it a file."""
    spool = tmp_path / "spool"
    args = ("-h", f"127.0.0.1:{free_port()}", "--spool", spool, "--flush-timeout", 0)
    for word in ("one", "two", "three"):
        lean_forza.run(*args, "--", "echo", word)
        flush = {
            "one": ("-h", "127.0.0.1", "-p", server.port),
            "two": ("--to", f"file:{tmp_path}/events"),
            "three": ("--to", "stdout:"),
        }[word]
        ended = lean_forza.run("flush", "--spool", spool, *flush)
        assert ended.status == 0, ended.stderr
    assert server.wait_closed()
    assert server.text("logs/stdout") == "one\n"
    assert '"two\\n"' in (tmp_path / "events").read_text()
    assert ended.text("logs/stdout") == "three\n"


def test_flush_leaves_the_living_alone(
    lean_forza: Forza, tmp_path: Path, server: MetricsServer
) -> None:
    """What a running monitor has is not touched."""
    spool = tmp_path / "spool"
    program = lean_forza.start(
        *("-h", server.address, "--spool", spool, "--", "sleep", "1000")
    )
    server.wait_for("health/process/spawn")
    ended = lean_forza.run("flush", "--spool", spool)
    assert ended.status == 0
    assert ended.stderr.splitlines() == [
        f"forza: running monitors have 1 lanes of {spool}: those are theirs",
        f"forza: nothing is left in {spool}",
    ]
    program.terminate()
    assert lean_forza.wait(program).status == 143
    server.wait_for("health/process/exit")


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        ((), 2, "option --spool is needed"),
        (("--spool", "/nowhere"), 125, "cannot use the spool /nowhere: no such file"),
        (("--spool", "/etc/passwd"), 125, "cannot use the spool /etc/passwd: not a"),
        (("--spool", ".", "-p", "0"), 3, "bad port '0'"),
        (("--spool", ".", "--to", "x:"), 2, "cannot send to 'x:'"),
        (("--spool", ".", "--grace", "1"), 2, "unknown option --grace"),
        (("--spool", ".", "now"), 2, "'now' is one word too many"),
    ],
)
def test_flush_refuses(
    lean_forza: Forza, args: tuple[str, ...], status: int, words: str
) -> None:
    """One line says what is wrong."""
    ended = lean_forza.run("flush", *args)
    assert ended.status == status
    assert ended.stderr.startswith(f"forza: {words}")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == b""


def test_flush_help(lean_forza: Forza) -> None:
    """It teaches."""
    ended = lean_forza.run("flush", "--help")
    assert ended.status == 0
    assert b"forza flush --spool DIR" in ended.stdout


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (("--spool", "x"), 2, "--spool is for servers, and none is named"),
        (("-p", "1", "--spool", "x", "--spool-max", "9K"), 2, "--spool-max must be at"),
        (("-p", "1", "--spool", "/etc/passwd"), 125, "cannot use the spool /etc/pas"),
        (("-p", "1", "--spool", "/proc/x/y"), 125, "cannot use the spool /proc/x/y: "),
    ],
)
def test_refused_before_anything_runs(
    lean_forza: Forza, tmp_path: Path, args: tuple[str, ...], status: int, words: str
) -> None:
    """A spool that cannot be had is known before the app starts."""
    ended = lean_forza.run(*args, "--", "touch", tmp_path / "ran")
    assert ended.status == status
    assert ended.stderr.startswith(f"forza: {words}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()


# ---- Killed


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment(lean_forza: Forza, tmp_path: Path, seed: int) -> None:
    """However often monitor and server die: repeats, perhaps, but no hole.

    Of each app's numbered lines there is an unbroken beginning, of each boot's batches,
    too. What is missing at the end was still in the app's pipe.
    """
    rng = random.Random(seed)
    spool = tmp_path / "spool"
    port = free_port()
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool, "--spool-max", "4G", "--")
    received: list[bytes] = []
    server: MetricsServer | None = None
    rounds = 12
    heard = left = cut = 0

    def hang_up(server: MetricsServer) -> int:
        # Amid the stream, and so that all that its kernel has is still read: what a
        # server that dies has not read for a second is lost with it.
        def alive() -> list[Connection]:
            return [c for c in server.connections if not c.ended]

        # A monitor that was only just started is still to connect.
        server.wait_until(alive, "connection")
        there = alive()
        for connection in there:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_WR)
        return len(there)

    def leave(server: MetricsServer) -> None:
        # What a killed monitor has written, its kernel still sends; that a connection
        # was made does not mean that the server knows it. Ours is the last.
        with socket.create_connection(("127.0.0.1", port)) as last:
            name = last.getsockname()
            server.wait_until(
                lambda: name in [c.peer for c in server.connections],
                "last connection",
            )
        server.wait_until(lambda: all(c.ended for c in server.connections), "end")
        server.close()
        received.extend(bytes(c.data) for c in server.connections)

    for number in range(rounds):
        if server is None and rng.random() < 0.6:
            server = MetricsServer(port)
        program = lean_forza.start(
            *(*args, sys.executable, "-S", CHILDREN / "counts.py"),
            *(f"app{number}", rng.choice([1, 20, 2000])),
        )
        # Sometimes in the middle of the start, sometimes when much has gone by.
        if rng.random() < 0.8:
            wait_until(lambda: used(spool) > rng.choice([0, 20_000, 300_000]))
        time.sleep(rng.random() * 0.2)
        if server is not None and (not cut or rng.random() < 0.5):
            cut += hang_up(server)
            time.sleep(rng.random() * 0.2)
        program.send_signal(signal.SIGKILL)
        program.wait()
        heard += server is not None
        if server is not None and rng.random() < 0.5:
            leave(server)
            server = None
        left += used(spool) > 8 * 4096
    assert heard
    assert left
    assert cut
    if server is None:
        server = MetricsServer(port)
    ended = lean_forza.run("--flush-timeout", PATIENCE, *args, "true")
    assert (ended.status, "wait in" in ended.stderr) == (0, False)
    leave(server)
    assert [path.name for path in spool.iterdir()] == ["lock"]
    found = unique(received)
    for number in range(rounds):
        numbers = lines(found, f"app{number} ")
        assert numbers == list(range(len(numbers)))
    seen = boots(found)
    for seqs in seen.values():
        assert sorted(seqs) == list(range(1, len(seqs) + 1))
    # A record that was just being written may be torn: nothing of it was sent.
    torn = [e for e in found if e["service"] == "telemetry/dropped"]
    assert all(event["meta"]["reason"] == "corrupt" for event in torn)
    assert len(torn) < rounds


def wait_until(condition: object) -> None:
    """Wait for something that no event tells of."""
    assert callable(condition)
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_two_apps_share_a_spool(lean_forza: Forza, tmp_path: Path) -> None:
    """Two monitors at once are killed; one after them delivers what both had."""
    port = free_port()
    spool = tmp_path / "spool"
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool, "--")
    programs = [
        lean_forza.start(*args, "sh", "-c", f"echo app {n}; exec sleep 1000")
        for n in range(2)
    ]
    wait_until(lambda: len(list(spool.glob("*/logs-*"))) == 2)
    wait_until(lambda: all(b"app" in p.read_bytes() for p in spool.glob("*/logs-*")))
    for program in programs:
        program.kill()
        program.wait()
    for pid, _ in list(lean_forza.descendants()):
        with contextlib.suppress(ProcessLookupError):  # the guard was quicker
            os.kill(pid, signal.SIGKILL)
    with MetricsServer(port) as server:
        assert lean_forza.run("flush", "--spool", spool).status == 0
        events = server.wait_closed()
    assert sorted(lines(events, "app")) == [0, 1]
    assert len(boots(events)) == 2


# ---- Bounds


def test_bounded_on_disk(lean_forza: Forza, tmp_path: Path) -> None:
    """A flood for a server that is away: never over the bound, and all accounted."""
    port = free_port()
    spool = tmp_path / "spool"
    highest = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.002):
            highest = max(highest, used(spool))

    watcher = threading.Thread(target=watch)
    watcher.start()
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool, "--spool-max", "2M")
    flood = (sys.executable, "-S", CHILDREN / "flood.py", 100_000)
    ended = lean_forza.run(*args, "--flush-timeout", 0, "--", *flood)
    over.set()
    watcher.join()
    assert ended.status == 0
    assert MIB < highest <= 2 * MIB
    with MetricsServer(port) as server:
        assert lean_forza.run("flush", "--spool", spool).status == 0
        events = server.wait_closed()
    numbers = [
        int(e["description"].split()[1])
        for e in events
        if e["service"] == "logs/stdout"
    ]
    assert numbers == list(range(100_000 - len(numbers), 100_000))
    dropped = [e for e in events if e["service"] == "telemetry/dropped"]
    assert {event["meta"]["reason"] for event in dropped} == {"spool full"}
    others = [e for e in events if not e["service"].startswith(("logs/", "telemetry/"))]
    missing = sum(event["metric"] for event in dropped)
    # Readings may be among those dropped: cpu, memory, uptime, heartbeat at once.
    assert 0 <= missing - (100_000 - len(numbers)) <= 8
    kinds = [event["service"].rpartition("/")[2] for event in others]
    assert kinds[0] == "spawn"
    assert kinds[-1] == "exit"


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


def test_full_disk(lean_forza: Forza, small_disk: Path) -> None:
    """The app runs on, what does not fit is counted, and it is said in both ways."""
    port = free_port()
    args = ("-h", f"127.0.0.1:{port}", "--spool", small_disk / "s")
    over = small_disk.parent / "over"
    flood = f"{sys.executable} -S {CHILDREN / 'flood.py'} 50000; touch {over}"
    program = lean_forza.start(*args, "--", "sh", "-c", f"{flood}; exec sleep 1000")
    wait_until(over.exists)
    with MetricsServer(port) as server:
        server.wait_for("telemetry/dropped")
        program.send_signal(signal.SIGTERM)
        ended = lean_forza.wait(program)
        events = server.wait_closed()
    assert ended.status == 143
    said = [line for line in ended.stderr.splitlines() if "spool" in line]
    assert said[0] == (
        f"forza: cannot write to the spool {small_disk}/s:"
        " no space left on device; new events wait in memory"
    )
    told = [
        event["metric"] for event in events if event["service"] == "telemetry/spool"
    ]
    assert told[0] == 0
    logs = [e["description"] for e in events if e["service"] == "logs/stdout"]
    assert len(logs) > 1000
    dropped = [e for e in events if e["service"] == "telemetry/dropped"]
    assert {event["meta"]["reason"] for event in dropped} == {"disk full"}
    # A few readings may be missing as well, and a line may have come in two pieces.
    missing = sum(event["metric"] for event in dropped)
    assert 0 <= missing + len(logs) - 50_000 <= 20


def test_damaged_between_two_lives(lean_forza: Forza, tmp_path: Path) -> None:
    """What a bad disk has done is announced; all else arrives."""
    port = free_port()
    spool = tmp_path / "spool"
    args = ("-h", f"127.0.0.1:{port}", "--spool", spool)
    logs = ("--flush-timeout", 0, "--plugin", "logs")
    lean_forza.run(*args, *logs, "--", "sh", "-c", "echo a; echo b >&2")
    (file,) = spool.glob("1/logs-*")
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"a\\n"', b'"x\\n"'))
    with MetricsServer(port) as server:
        script = "echo c; exec sleep 1000"
        program = lean_forza.start(*args, "--plugin", "logs", "--", "sh", "-c", script)
        server.wait_for("telemetry/dropped")
        server.wait_for("logs/stdout", containing="c")
        program.terminate()
        lean_forza.wait(program)
        events = server.wait_closed()
    assert [e["description"] for e in events if e["service"][:4] == "logs"] == [
        "b\n",
        "c\n",
    ]
    (dropped,) = (e for e in events if e["service"] == "telemetry/dropped")
    assert dropped["metric"] == 1
    assert dropped["meta"]["reason"] == "corrupt"
    assert dropped["meta"]["sink"] == f"tcp:{server.address}"


# ---- Memory


class Silent:
    """What a spool needs of a monitor to be filled."""

    silent = True
    loop = None

    def say(self, text: str, *, problem: bool = True) -> None:
        pytest.fail(text)


def fill(path: Path, url: str, megabytes: int) -> int:
    """Leave a backlog behind; return how many events it has."""
    depot = Depot(str(path), 1024 * MIB, [url])
    spool = Spool(cast("Monitor", Silent()), depot, url, MIB)
    event = b'{"metric":1.0,"time":1.5,"host":"h","description":"%s\\n",' % (b"x" * 99)
    event += b'"service":"logs/stdout","meta":{"boot":"0","seq":1}}\n'
    count = 0
    # Some in large batches, as a flood comes, and some one by one.
    while spool.size < megabytes * MIB:
        spool.push(event * 1000, lifecycle=False)
        for _ in range(50):
            spool.push(event, lifecycle=False)
        count += 1050
    for lane in spool.lanes():
        lane.logs.close()
        os.close(lane._state)
    os.close(depot._lock)
    return count


def peak(pid: int) -> int:
    """Return the most that a process has had resident so far, in kB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1])


class Counter(threading.Thread):
    """A server that counts log lines, sees a heartbeat, and keeps nothing."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.lines = 0
        self.heartbeat = threading.Event()

    def run(self) -> None:
        """Count until the client goes."""
        with self.listener, self.listener.accept()[0] as connection:
            tail = b""
            while data := connection.recv(1 << 20):
                whole, _, tail = (tail + data).rpartition(b"\n")
                self.lines += whole.count(b'"logs/stdout"')
                if b'"health/process/heartbeat"' in whole:
                    self.heartbeat.set()


def test_replay_needs_no_memory(lean_forza: Forza, tmp_path: Path) -> None:
    """Hundreds of megabytes are replayed with less than 5 MB more than nothing is."""
    peaks = []
    for megabytes in (0, 300):
        server = Counter()
        server.start()
        spool = tmp_path / f"spool{megabytes}"
        count = fill(spool, f"tcp:{server.address}", megabytes)
        program = lean_forza.start(
            *("-h", server.address, "--spool", spool, "--spool-max", "1G"),
            *("--", "sleep", "1000"),
        )
        assert server.heartbeat.wait(PATIENCE)
        peaks.append(peak(program.pid))
        program.terminate()
        lean_forza.wait(program)
        server.join(PATIENCE)
        assert server.lines == count
    assert peaks[1] - peaks[0] < 5 * 1024
