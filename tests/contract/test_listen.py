# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Receive, store each event once, and acknowledge only what is safe."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from forza._event import Encoder
from tests.conftest import CHILDREN, PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.conftest import Forza


class Listener:
    """A `forza listen` of the test's own, which may be killed and started again."""

    def __init__(self, forza: Forza, *args: str, port: int = 0, **options: Any) -> None:
        self.forza = forza
        self.args = args
        options.setdefault("stdout", subprocess.DEVNULL)
        self.program = forza.start("listen", *args, "--port", port, **options)
        self.said = ""
        self.read_until("listening on ")
        self.read_until("\n")
        found = re.search(r"listening on 127\.0\.0\.1:(\d+)", self.said)
        assert found
        self.port = int(found[1])

    def read_until(self, text: str) -> None:
        """Read what it says on stderr until `text` comes."""
        assert self.program.stderr is not None
        fd = self.program.stderr.fileno()
        while text not in self.said:
            assert select.select([fd], [], [], PATIENCE)[0], f"only {self.said!r}"
            data = os.read(fd, 4096)
            assert data, f"it has left, saying {self.said!r}"
            self.said += data.decode()

    def stop(self, signum: int = signal.SIGTERM) -> str:
        """End it in order; return all that it has said."""
        self.program.send_signal(signum)
        ended = self.forza.wait(self.program)
        assert ended.status == 0
        return self.said + ended.stderr

    def kill(self) -> Listener:
        """Kill it without warning, and start another one on the same port."""
        self.program.kill()
        self.program.communicate()
        return Listener(self.forza, *self.args, port=self.port)


class Client:
    """A sender that understands what it is told."""

    def __init__(self, listener: Listener) -> None:
        self.sock = socket.create_connection(("127.0.0.1", listener.port), PATIENCE)
        self.lines = self.sock.makefile("rb")
        self.greeting = orjson.loads(self.lines.readline())

    def send(self, data: bytes) -> None:
        """Send it all."""
        self.sock.sendall(data)

    def wait_for(self, boot: str, seq: int, events: int) -> None:
        """Wait until so much is acknowledged: as soon as it is, or with more."""
        while True:
            line = self.lines.readline()
            assert line, f"closed before batch {seq} was acknowledged"
            ack = orjson.loads(line)["ack"]
            assert ack["boot"] == boot
            if (ack["seq"], ack["events"]) >= (seq, events):
                return

    def close(self) -> None:
        """Hang up."""
        self.lines.close()
        self.sock.close()

    def reset(self) -> None:
        """Hang up the hard way."""
        linger = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close()


@pytest.fixture
def clients() -> Iterator[Callable[[Listener], Client]]:
    """Make clients that are closed after the test."""
    made: list[Client] = []

    def make(listener: Listener) -> Client:
        made.append(Client(listener))
        return made[-1]

    yield make
    for client in made:
        client.close()


if TYPE_CHECKING:
    Clients = Callable[[Listener], Client]


def batch(encoder: Encoder, count: int, text: bytes = b"line\n") -> bytes:
    """Return a batch of so many events."""
    return encoder.lines("logs/stdout", text * count)


def soon(condition: Callable[[], object]) -> None:
    """Wait until a condition holds that no event tells of."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_acknowledges_what_is_stored(
    lean_forza: Forza, tmp_path: Path, clients: Clients
) -> None:
    """It greets, and what it acknowledges is in the file."""
    path = tmp_path / "events"
    client = clients(listener := Listener(lean_forza, "--to", f"file:{path}"))
    assert client.greeting == {"forza": "listen", "version": 1}
    encoder = Encoder("host", "b007", None)
    first, second = encoder.event("s", 1), batch(encoder, 3)
    client.send(first)
    client.wait_for("b007", 1, 1)
    assert path.read_bytes() == first
    client.send(second)
    client.wait_for("b007", 2, 3)
    assert path.read_bytes() == first + second
    assert "4 stored\n" in listener.stop()


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("death", ["none", "kill", "kill without a note", "term"])
def test_repeat_after_a_cut(
    lean_forza: Forza, tmp_path: Path, clients: Clients, end: str, death: str
) -> None:
    """Of a batch that was cut off and comes again, what is there is left out, also
    if the receiver was killed meanwhile."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    encoder = Encoder("host", "b007", None)
    one, two, three = (batch(encoder, 5) for _ in range(3))
    client = clients(listener)
    torso = two[: len(two) // 2]
    client.send(one + torso)
    client.wait_for("b007", 2, torso.count(b"\n"))
    client.close() if end == "close" else client.reset()
    if death.startswith("kill"):
        if "note" in death:
            (tmp_path / "events.boots").unlink()
        listener = listener.kill()
    elif death == "term":
        listener.stop()
        listener = Listener(lean_forza, *listener.args, port=listener.port)
    client = clients(listener)
    client.send(one + two + three)
    client.wait_for("b007", 3, 5)
    assert path.read_bytes() == one + two + three
    listener.stop()


def test_killed_in_the_stream(
    lean_forza: Forza, tmp_path: Path, clients: Clients
) -> None:
    """Killed again and again amid a stream that is sent anew, it has each line once."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    encoder = Encoder("host", "b007", None)
    stream = b"".join(
        batch(encoder, 50, b"%d " % n + b"x" * 100 + b"\n") for n in range(400)
    )
    for turn in range(1, 5):
        client = clients(listener)
        client.send(stream[: len(stream) * turn // 5])
        if turn % 2:  # sometimes all is there, sometimes it is not
            soon(lambda: path.stat().st_size > 1000)
        else:
            least = len(stream) * turn // 6
            soon(lambda least=least: path.stat().st_size > least)  # type: ignore[misc]
        listener = listener.kill()
    client = clients(listener)
    client.send(stream)
    client.wait_for("b007", 400, 50)
    lines = path.read_bytes().splitlines(keepends=True)
    assert [x for x in lines if x.endswith(b"}}\n")] == stream.splitlines(keepends=True)
    # A write that a kill has cut leaves a torso at most, on a line of its own.
    assert len(lines) <= 20_000 + 4
    listener.stop()


def test_foreign_lines(lean_forza: Forza, tmp_path: Path, clients: Clients) -> None:
    """What others send is kept as it is, a last line without an end too."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    text = b'hello\r\n\n{"a":1}\n\xff\xfe\n{"a":1}\n'
    client = clients(listener)
    client.send(text + b"the end")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.lines.read() == b""
    assert path.read_bytes() == text + b"the end\n"
    client = clients(listener)
    event = batch(Encoder("host", "b007", None), 1)
    client.send(event[:-10])
    client.sock.shutdown(socket.SHUT_WR)
    assert client.lines.read() == b""
    assert path.read_bytes() == text + b"the end\n"
    said = listener.stop()
    assert "6 stored, 6 not of forza, 1 cut off" in said


def test_many_at_once(lean_forza: Forza, tmp_path: Path, clients: Clients) -> None:
    """Hundreds of monitors, whose batches come in pieces, are all served."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    senders = [
        (clients(listener), batch(Encoder("h", f"{n:04x}", None), 20))
        for n in range(300)
    ]
    for part in range(4):
        for client, data in senders:
            client.send(data[len(data) * part // 4 : len(data) * (part + 1) // 4])
    for n, (client, _) in enumerate(senders):
        client.wait_for(f"{n:04x}", 1, 20)
    lines = sorted(path.read_bytes().splitlines(keepends=True))
    expected = [x for _, data in senders for x in data.splitlines(keepends=True)]
    assert lines == sorted(expected)
    listener.stop()


def memory(listener: Listener) -> int:
    """Return the most that it ever had resident, in kB."""
    with open(f"/proc/{listener.program.pid}/status", encoding="ascii") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1])


def test_hostile_peers(lean_forza: Forza, tmp_path: Path, clients: Clients) -> None:
    """Endless lines and half lines cost others nothing, and little memory."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    before = memory(listener)
    endless = clients(listener)
    endless.send(b"x" * (20 << 20))
    soon(lambda: path.stat().st_size >= 15 << 20)
    # 200 half lines of 0.9 MB are more than it holds: some of them must go.
    half = [clients(listener) for _ in range(200)]
    left = 0
    for client in half:
        try:
            client.send(b"y" * 900_000)
            left += 1
        except OSError:
            pass
    deaf = clients(listener)  # who never reads what it is told
    encoder = Encoder("host", "deaf", None)
    for _ in range(200):
        deaf.send(batch(encoder, 100))
    client = clients(listener)
    event = batch(Encoder("host", "b007", None), 1)
    client.send(event)
    client.wait_for("b007", 1, 1)
    assert event in path.read_bytes()
    assert memory(listener) - before < 120 << 10
    listener.stop()


def test_resets_right_behind_events(
    lean_forza: Forza, tmp_path: Path, clients: Clients
) -> None:
    """A connection whose error comes together with its last words is given up: also
    if there is nothing to acknowledge, so that no answer meets the error."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    descriptors = f"/proc/{listener.program.pid}/fd"
    before = len(os.listdir(descriptors))
    several = [clients(listener) for _ in range(20)]
    os.kill(listener.program.pid, signal.SIGSTOP)
    for number, client in enumerate(several):
        event = Encoder("host", f"b{number}", None).event("s", 1)
        client.send(event if number % 2 else event[:-9])
        client.reset()
    os.kill(listener.program.pid, signal.SIGCONT)
    soon(lambda: len(os.listdir(descriptors)) == before)
    assert path.read_bytes().count(b"\n") == len(several) / 2
    listener.stop()


def test_more_than_it_can_hold(
    lean_forza: Forza, tmp_path: Path, clients: Clients
) -> None:
    """Out of descriptors, it lets the one go that has been silent for longest."""
    import resource

    path = tmp_path / "events"
    hard = 64 + 32

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    listener = Listener(lean_forza, "--to", f"file:{path}", preexec_fn=few_descriptors)
    encoder = Encoder("host", "b007", None)
    busy = clients(listener)
    for seq in range(1, 101):
        idle = clients(listener)
        busy.send(encoder.event("s", seq))
        busy.wait_for("b007", seq, 1)
    assert idle.greeting
    assert path.read_bytes().count(b"\n") == 100
    listener.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_leaving(
    lean_forza: Forza, tmp_path: Path, clients: Clients, number: int
) -> None:
    """Told to go, it stores what has arrived, acknowledges it, and leaves with 0."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    client = clients(listener)
    data = batch(Encoder("host", "b007", None), 100)
    listener.program.send_signal(signal.SIGSTOP)
    client.send(data)
    listener.program.send_signal(number)
    listener.program.send_signal(signal.SIGCONT)
    client.wait_for("b007", 1, 100)
    assert client.lines.read() == b""
    assert path.read_bytes() == data
    assert lean_forza.wait(listener.program).status == 0


def test_rotation(lean_forza: Forza, tmp_path: Path, clients: Clients) -> None:
    """Full files get a number, none is larger than it may be, and nothing is lost,
    though it is killed and repeats come."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}?max=64K&keep=100")
    encoder = Encoder("host", "b007", None)
    batches = [batch(encoder, 20, b"%d\n" % n) for n in range(200)]
    for begin in range(0, 200, 40):
        client = clients(listener)
        client.send(b"".join(batches[: begin + 40]))
        client.wait_for("b007", begin + 40, 20)
        listener = listener.kill()
    numbers = sorted(
        (int(found.suffix[1:]) for found in tmp_path.glob("events.[0-9]*")),
        reverse=True,
    )
    assert numbers == list(range(len(numbers), 0, -1))
    files = [tmp_path / f"events.{number}" for number in numbers] + [path]
    assert all(file.stat().st_size <= 64 << 10 for file in files)
    assert b"".join(file.read_bytes() for file in files) == b"".join(batches)
    listener.stop()


def test_keep(lean_forza: Forza, tmp_path: Path, clients: Clients) -> None:
    """Of full files no more than `keep` stay."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}?max=64K&keep=2")
    encoder = Encoder("host", "b007", None)
    client = clients(listener)
    for _ in range(200):
        client.send(batch(encoder, 20))
    client.wait_for("b007", 200, 20)
    listener.stop()
    found = {found.name for found in tmp_path.iterdir()}
    assert found == {"events", "events.1", "events.2", "events.boots"}


@pytest.mark.parametrize("how", ["hup", "by itself"])
def test_renamed(lean_forza: Forza, tmp_path: Path, clients: Clients, how: str) -> None:
    """A file that was moved away is made anew: at once on SIGHUP, else soon."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    encoder = Encoder("host", "b007", None)
    client = clients(listener)
    client.send(encoder.event("s", 1))
    client.wait_for("b007", 1, 1)
    path.rename(tmp_path / "moved")
    if how == "hup":
        listener.program.send_signal(signal.SIGHUP)
        soon(path.exists)
    seq = 1
    while not path.exists() or not path.stat().st_size:
        seq += 1
        client.send(encoder.event("s", seq))
        client.wait_for("b007", seq, 1)
        time.sleep(0.01)
    both = (tmp_path / "moved").read_bytes() + path.read_bytes()
    assert [orjson.loads(x)["metric"] for x in both.splitlines()] == [
        *range(1, seq + 1)
    ]
    listener.stop()


def test_stdout(lean_forza: Forza, clients: Clients) -> None:
    """Into a pipe go the events as they are."""
    listener = Listener(lean_forza, stdout=subprocess.PIPE)
    client = clients(listener)
    data = batch(Encoder("host", "b007", None), 3)
    client.send(data * 2)
    client.send(data)
    client.wait_for("b007", 1, 9)
    listener.program.terminate()
    assert lean_forza.wait(listener.program).stdout == data * 3


def test_slow_reader_of_stdout(lean_forza: Forza, clients: Clients) -> None:
    """What its reader has not taken is not acknowledged, and the sender waits."""
    listener = Listener(lean_forza, stdout=subprocess.PIPE)
    client = clients(listener)
    encoder = Encoder("host", "b007", None)
    size = 0
    client.sock.settimeout(1)
    try:
        while True:  # until all buffers between are full
            data = batch(encoder, 100)
            client.send(data)
            size += len(data)
    except TimeoutError:
        pass
    client.sock.settimeout(PATIENCE)
    assert listener.program.stdout is not None
    got = 0
    while got < size:
        got += len(os.read(listener.program.stdout.fileno(), 1 << 20))
    client.wait_for("b007", encoder.seq - 1, 100)
    listener.program.terminate()
    lean_forza.wait(listener.program)


def test_terminal(lean_forza: Forza, clients: Clients) -> None:
    """A person at a terminal sees lines, and no JSON."""
    screen, fd = pty.openpty()
    listener = Listener(lean_forza, stdout=fd)
    client = clients(listener)
    client.send(batch(Encoder("host", "b007", None), 1, b"hello\n"))
    client.wait_for("b007", 1, 1)
    shown = os.read(screen, 4096).decode()
    assert "hello" in shown
    assert "{" not in shown
    listener.stop()
    os.close(fd)
    os.close(screen)


def test_no_room(lean_forza: Forza, clients: Clients) -> None:
    """On a full disk nothing is acknowledged; told to go, it says what is lost."""
    listener = Listener(lean_forza, "--to", "file:/dev/full")
    client = clients(listener)
    client.send(batch(Encoder("host", "b007", None), 1))
    listener.read_until("no space left on device; trying again")
    listener.program.terminate()
    listener.program.send_signal(signal.SIGINT)
    ended = lean_forza.wait(listener.program)
    assert ended.status == 1
    assert client.lines.read() == b""


USAGE = [
    (["x:y"], 3, "'y'"),
    (["70000"], 3, "'70000'"),
    (["--port", "x"], 3, "'x'"),
    (["--port"], 2, "--port needs a value"),
    (["1", "2"], 2, "'2'"),
    (["--port", "1", "2"], 2, "'2'"),
    (["--port", "1", "--port", "2"], 2, "twice"),
    (["--to", "stdout:", "--to", "stdout:"], 2, "twice"),
    (["--to", "tcp:a:1"], 2, "tcp:a:1"),
    (["--to", "file:"], 2, "names no file"),
    (["--to", "file:a?x=1"], 2, "x=1"),
    (["--frob"], 2, "--frob"),
    (["no.such.host.invalid:1"], 125, "no.such.host.invalid"),
    (["0", "--to", "file:/no/such/folder/x"], 125, "/no/such/folder/x"),
]


@pytest.mark.parametrize(("args", "status", "culprit"), USAGE)
def test_usage(lean_forza: Forza, args: list[str], status: int, culprit: str) -> None:
    """A slip gets one line that names it, and its own status."""
    ended = lean_forza.run("listen", *args)
    assert ended.status == status
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("forza: ")
    assert culprit in ended.stderr
    assert ended.stdout == b""


def test_help(lean_forza: Forza) -> None:
    """It explains itself."""
    ended = lean_forza.run("listen", "--help")
    assert ended.status == 0
    assert ended.stdout.startswith(b"usage: forza listen")
    assert ended.stderr == ""


def test_a_program_called_listen(lean_forza: Forza) -> None:
    """After `--` it is a program like any other: here, none."""
    assert lean_forza.run("--", "listen").status == 127


def test_busy_port_and_busy_file(lean_forza: Forza, tmp_path: Path) -> None:
    """Two receivers can share neither a port nor a file."""
    path = tmp_path / "events"
    listener = Listener(lean_forza, "--to", f"file:{path}")
    ended = lean_forza.run("listen", listener.port)
    assert (ended.status, ended.stderr.count("\n")) == (125, 1)
    assert f"127.0.0.1:{listener.port}: address already in use" in ended.stderr
    ended = lean_forza.run("listen", 0, "--to", f"file:{path}")
    assert (ended.status, ended.stderr.count("\n")) == (125, 1)
    assert "another forza listen" in ended.stderr
    listener.stop()


def test_ipv6(lean_forza: Forza, tmp_path: Path) -> None:
    """It listens on an address of either family."""
    program = lean_forza.start("listen", "[::1]:1", "--to", f"file:{tmp_path / 'e'}")
    assert program.stderr is not None
    line = program.stderr.readline().decode()
    if "listening on [::1]:1," not in line:  # no right to port 1, or no IPv6
        assert "cannot listen on [::1]:1" in line
    program.terminate()
    lean_forza.wait(program)


def test_with_forza(forza: Forza, tmp_path: Path) -> None:
    """What an app says arrives in its file, whole and in order."""
    path = tmp_path / "events"
    listener = Listener(forza, "--to", f"file:{path}")
    ended = forza.run(
        *("-h", f"127.0.0.1:{listener.port}", "--"),
        *("python3", CHILDREN / "flood.py", 20_000),
    )
    assert ended.status == 0
    listener.stop()
    events = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    logs = [event for event in events if event["service"] == "logs/stdout"]
    assert len(logs) == 20_000
    assert events[-1]["service"] == "health/process/exit"
    seqs = [event["meta"]["seq"] for event in events]
    assert seqs == sorted(seqs)
    assert set(seqs) == {*range(1, seqs[-1] + 1)}
