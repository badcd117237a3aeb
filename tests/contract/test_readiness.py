# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take other signs for the start: what the app says, answers or prints."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.conftest import CHILDREN, PATIENCE, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Event
    from tests.contract.conftest import Forza

NOTIFIES = (sys.executable, str(CHILDREN / "notifies.py"))
WAITS = ("sh", "-c", "while read -r line; do echo $line; done")
START = "health/process/start"


def only_start(server: MetricsServer) -> Event:
    """Return the one start event that there may be, once all is over."""
    server.wait_closed()
    (start,) = server.of(START)
    return start


def start(
    forza: Forza, server: MetricsServer, options: str, *command: str | Path | float
) -> subprocess.Popen[bytes]:
    """Start forza with a stdin that the test holds."""
    return forza.start(
        *("-h", server.address, "--start-timeout", 60),
        *options.split(),
        "--",
        *command,
        stdin=subprocess.PIPE,
    )


def feed(program: subprocess.Popen[bytes], text: str = "go") -> None:
    """Write a line to the app."""
    assert program.stdin is not None
    program.stdin.write(f"{text}\n".encode())
    program.stdin.flush()


# What the app says.


def test_notify(forza: Forza, server: MetricsServer) -> None:
    """READY=1 is the start, and nothing before it is; STATUS is an event."""
    words = ("STATUS=warming up", "READY=0", "wait", "STATUS=at work\\nREADY=1")
    program = start(forza, server, "--ready notify", *NOTIFIES, *words)
    server.wait_for("health/process/status", containing="warming up")
    assert server.of(START) == []
    feed(program)
    (event,) = server.wait_for(START)
    assert (event["metric"], event["meta"]["ready"]) == (1, "notify")
    forza.wait(program)
    assert only_start(server) == event
    said = [event["description"] for event in server.of("health/process/status")]
    assert said == ["warming up", "at work"]


def test_notify_says_where(forza: Forza, server: MetricsServer) -> None:
    """Who says that it is ready, and listens by then, has started just there."""
    script = (
        "import os, socket, sys; s = socket.create_server(('127.0.0.1', 0));"
        "n = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1);"
        "print(s.getsockname()[1], flush=True);"
        "socket.socket(1, 2).sendto(b'READY=1', n); sys.stdin.read()"
    )
    program = start(forza, server, "--ready notify", sys.executable, "-c", script)
    (event,) = server.wait_for(START)
    (printed,) = server.wait_for("logs/stdout")
    assert event["meta"]["port"] == int(printed["description"])
    assert event["meta"]["address"] == "127.0.0.1"
    forza.wait(program)


@pytest.mark.skipif(
    shutil.which("systemd-notify") is None, reason="there is no systemd-notify"
)
def test_systemd_notify(forza: Forza, server: MetricsServer) -> None:
    """systemd's own client, which ends at once, is believed, and does not hang."""
    script = "systemd-notify --status=here; systemd-notify --ready; read -r _"
    program = start(forza, server, "--ready notify", "sh", "-c", script)
    (event,) = server.wait_for(START)
    assert event["meta"]["ready"] == "notify"
    feed(program)
    forza.wait(program)
    assert only_start(server) == event
    assert [e["description"] for e in server.of("health/process/status")] == ["here"]


def test_notify_and_end(forza: Forza, server: MetricsServer) -> None:
    """What was said in the last moment counts."""
    program = start(forza, server, "--ready notify", *NOTIFIES, "READY=1")
    assert program.stdin is not None
    program.stdin.close()
    program.stdin = None
    forza.wait(program)
    assert only_start(server)["metric"] == 1


def test_notify_by_a_child(forza: Forza, server: MetricsServer) -> None:
    """A child's word is as good as its parent's; a barrier waits until it is heard."""
    words = ("child", "READY=1", "wait", "barrier")
    program = start(forza, server, "--ready notify", *NOTIFIES, *words)
    (event,) = server.wait_for(START)
    assert event["metric"] == 1
    feed(program)
    server.wait_for("logs/stdout", 2, containing="heard")
    forza.wait(program)


def test_notify_by_a_stranger(
    forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """A process that is not the app's is not believed, whoever its user is."""
    path = tmp_path / "notify.sock"
    words = ("STATUS=mine", "wait", "STATUS=last")
    program = start(forza, server, f"--ready notify={path}", *NOTIFIES, *words)
    server.wait_for("health/process/status", containing="mine")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"READY=1\nSTATUS=theirs", str(path))
    feed(program)
    server.wait_for("health/process/status", containing="last")
    forza.wait(program)
    assert only_start(server)["metric"] == 0
    said = [event["description"] for event in server.of("health/process/status")]
    assert said == ["mine", "last"]
    assert not path.exists()


def test_notify_path_in_the_way(forza: Forza, tmp_path: Path) -> None:
    """The socket of a killed monitor is replaced; one in use, or a file, is not."""
    path = tmp_path / "notify.sock"
    options = ("--ready", f"notify={path}", "--ready", "port", "--")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        ended = forza.run(*options, "true")
        assert ended.status == 125
        assert (
            ended.stderr == f"forza: cannot listen on {path}: address already in use\n"
        )
    assert forza.run(*options, "true").status == 0
    path.write_text("precious")
    assert forza.run(*options, "true").status == 125
    assert path.read_text() == "precious"


def test_reload_and_stop(forza: Forza, server: MetricsServer) -> None:
    """A reload is told with its end, which is no second start; so is the stopping."""
    words = ("READY=1", "RELOADING=1", "READY=1", "STOPPING=1", "barrier")
    program = start(forza, server, "--ready notify", *NOTIFIES, *words)
    server.wait_for("health/process/stopping")
    forza.wait(program)
    assert only_start(server)["metric"] == 1
    reloads = [event["metric"] for event in server.of("health/process/reload")]
    assert reloads == [1, 0]


def test_odd_datagrams(forza: Forza, server: MetricsServer) -> None:
    """Nonsense changes nothing, and many at once are taken one by one."""
    odd = ("=", "READY", "WATCHDOG_USEC=x", "X_FORZA_PORT=99999", "\\n\\n", "READY=11")
    more = [f"STATUS={n}" for n in range(100)]
    program = start(forza, server, "--ready notify", *NOTIFIES, *odd, *more)
    server.wait_for("health/process/status", 100)
    forza.wait(program)
    assert only_start(server)["metric"] == 0
    said = [event["description"] for event in server.of("health/process/status")]
    assert said == [str(n) for n in range(100)]


def test_more_time(forza: Forza, server: MetricsServer) -> None:
    """EXTEND_TIMEOUT_USEC puts the time-out off."""
    words = ("EXTEND_TIMEOUT_USEC=60000000", "barrier", "wait", "READY=1")
    program = forza.start(
        *("-h", server.address, "--ready", "notify", "--start-timeout", 5, "--"),
        *(*NOTIFIES, *words),
        stdin=subprocess.PIPE,
    )
    server.wait_for("logs/stdout", containing="heard")
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(6)
    assert server.of(START) == []
    feed(program)
    (event,) = server.wait_for(START)
    assert event["metric"] == 1
    forza.wait(program)


def test_more_time_to_end(forza: Forza, server: MetricsServer) -> None:
    """While it is ending, too: SIGKILL waits, and the app ends by itself."""
    script = (
        "import os, signal, socket, sys\n"
        "name = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)\n"
        "s = socket.socket(1, 2)\n"
        "def end(*_):\n"
        "    s.sendto(b'STOPPING=1\\nEXTEND_TIMEOUT_USEC=60000000', name)\n"
        "    sys.stdin.readline()\n"
        "    os._exit(5)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "s.sendto(b'READY=1', name)\n"
        "signal.pause()\n"
    )
    options = "--ready notify --grace 1.5"
    program = start(forza, server, options, sys.executable, "-c", script)
    server.wait_for(START)
    program.terminate()
    server.wait_for("health/process/stopping")
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(3)
    feed(program)
    assert forza.wait(program).status == 5


def test_environment(forza: Forza, server: MetricsServer) -> None:
    """A service manager's socket is not the app's business where forza has its own."""
    env = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    show = ("sh", "-c", 'echo "$NOTIFY_SOCKET $WATCHDOG_USEC $WATCHDOG_PID"')
    forza.run("-h", server.address, "--watchdog", 2.5, "--", *show, env=env)
    server.wait_closed()
    name, *others = server.text("logs/stdout").split()
    assert name.startswith("@forza/")
    assert others == ["2500000"]


@pytest.mark.parametrize(
    ("options", "script", "ready"),
    [
        ("--ready fd", "echo >&3; read -r _", "fd"),
        ("--ready fd", "echo up and running >&3; read -r _", "fd"),
        ("--ready fd --ready port", "echo port=81 >&3; read -r _", "fd"),
        ("--ready ipc --ipc no", "echo '\"ready\"' >&3; read -r _", "ipc"),
        ("--ready none", "read -r _", "none"),
    ],
)
def test_other_words(
    forza: Forza, server: MetricsServer, options: str, script: str, ready: str
) -> None:
    """A line on descriptor 3, a word on the channel, or nothing at all."""
    program = start(forza, server, options, "sh", "-c", script)
    (event,) = server.wait_for(START)
    assert (event["metric"], event["meta"]["ready"]) == (1, ready)
    assert event["meta"].get("port") == (81 if "port=81" in script else None)
    feed(program)
    forza.wait(program)
    assert only_start(server) == event


def test_ipc(forza: Forza, server: MetricsServer) -> None:
    """node's process.send('ready'), not another word, nor a metric."""
    script = """
      process.send('steady'); process.send({service: 'x', metric: 1})
      process.stdin.once('data', () => process.send('ready'))
      process.stdin.on('end', () => process.exit())
    """
    program = start(forza, server, "--ready ipc", "node", "-e", script)
    server.wait_for("x")
    assert server.of(START) == []
    feed(program)
    (event,) = server.wait_for(START)
    assert event["meta"]["ready"] == "ipc"
    forza.wait(program)


# What it answers and prints.


class Answers:
    """An HTTP server that answers with these statuses, one after the other."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers: tuple[bytes, ...]) -> None:
        for answer in answers:
            sock, _ = self._listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                self.requests.append(sock.recv(4096))
                sock.sendall(answer)

    def close(self) -> None:
        """Wait until all was asked for."""
        self._thread.join(PATIENCE)
        self._listener.close()
        assert not self._thread.is_alive()


def test_http(forza: Forza, server: MetricsServer) -> None:
    """No answer, a bad one or another protocol is none; 204 is."""
    answers = Answers(
        b"HTTP/1.1 503 No\r\n\r\n",
        *(b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 404 No\r\n\r\n", b"HTTP/1.1 20"),
        b"HTTP/1.0 204 Yes\r\n\r\n",
    )
    url = f"http://localhost:{answers.port}/healthz?deep=1"
    program = start(forza, server, f"--ready {url}", *WAITS)
    (event,) = server.wait_for(START)
    answers.close()
    assert (event["metric"], event["meta"]["ready"]) == (1, "http")
    assert len(answers.requests) == 6
    begin = f"GET /healthz?deep=1 HTTP/1.1\r\nHost: localhost:{answers.port}\r\n"
    assert answers.requests[0].startswith(begin.encode())
    forza.wait(program)


def test_http_of_node(forza: Forza, server: MetricsServer) -> None:
    """A real server, on the app's own port: the event says which."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    js = CHILDREN / "listens.js"
    options = f"--ready http://127.0.0.1:{port}"
    program = start(forza, server, options, "node", js, port, "127.0.0.1")
    (event,) = server.wait_for(START)
    assert (event["meta"]["ready"], event["meta"]["port"]) == ("http", port)
    forza.wait(program)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_tcp(forza: Forza, server: MetricsServer, host: str) -> None:
    """A refusal is no start, though the port it is asked for be one's own; an accepted
    connection is."""
    family = socket.AF_INET6 if "::" in host else socket.AF_INET
    place = "::1" if "::" in host else "127.0.0.1"
    with socket.socket(family) as listener:
        listener.bind((place, 0))
        port = listener.getsockname()[1]
        options = f"--ready tcp://{host}:{port}"
        program = start(forza, server, options, *WAITS)
        server.wait_for("health/process/spawn")
        feed(program, "hello")
        server.wait_for("logs/stdout", containing="hello")
        assert server.of(START) == []
        listener.listen()
        (event,) = server.wait_for(START)
        assert (event["metric"], event["meta"]["ready"]) == (1, "tcp")
        forza.wait(program)


@pytest.mark.parametrize("value", ["ready on 80", r"ready on \d+$", "^(?i:READY)"])
@pytest.mark.parametrize("stream", [1, 2])
def test_log(forza: Forza, server: MetricsServer, value: str, stream: int) -> None:
    """A whole line of either stream, by its text or by a pattern."""
    script = (
        f"printf 'not yet rea' >&{stream}; printf 'dy on\\n' >&{stream}; read -r _;"
        f"printf 'rea' >&{stream}; printf 'dy on 80\\r\\n' >&{stream}; read -r _"
    )
    program = forza.start(
        *("-h", server.address, "--start-timeout", 60, "--ready", f"log={value}"),
        *("--", "sh", "-c", script),
        stdin=subprocess.PIPE,
    )
    server.wait_for("logs/stderr" if stream == 2 else "logs/stdout")
    assert server.of(START) == []
    feed(program)
    (event,) = server.wait_for(START)
    assert (event["metric"], event["meta"]["ready"]) == (1, "log")
    feed(program)
    forza.wait(program)


def test_exec(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """A command, run in the app's place until it succeeds."""
    flag, runs = tmp_path / "flag", tmp_path / "runs"
    check = f"exec=echo x >> {runs}; cat; echo out; echo err >&2; test -e {flag}"
    program = forza.start(
        *("-h", server.address, "--start-timeout", 60, "--ready", check, "--", *WAITS),
        stdin=subprocess.PIPE,
    )
    server.wait_for("health/process/spawn")
    while not runs.exists() or runs.read_text().count("x") < 3:
        assert server.of(START) == []
    flag.touch()
    (event,) = server.wait_for(START)
    assert (event["metric"], event["meta"]["ready"]) == (1, "exec")
    ended = forza.wait(program)
    assert ended.stdout == b""
    assert "err" not in ended.stderr
    server.wait_closed()
    assert server.text("logs/stdout") == ""


def test_exec_that_hangs(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """A command that runs when the app ends is killed, with all that it has started."""
    began = tmp_path / "began"
    check = f"exec=sleep 1000 & touch {began}; sleep 1000"
    program = forza.start(
        *("-h", server.address, "--ready", check, "--", *WAITS), stdin=subprocess.PIPE
    )
    server.wait_for("health/process/spawn")
    while not began.exists():
        pass
    forza.wait(program)  # and the fixture sees that nobody is left
    assert only_start(server)["meta"]["reason"] == "exit"


def test_exec_is_tried_anew(
    lean_forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """A command that takes too long is killed, with all of its group, and tried anew;
    the time-out of the start does not wait for it."""
    runs = tmp_path / "runs"
    check = f"exec=echo $$ >> {runs}; test $(wc -l < {runs}) = 2 || sleep 1000"
    program = lean_forza.start(
        *("-h", server.address, "--start-timeout", 0.5, "--ready", check),
        *("--", *WAITS),
        stdin=subprocess.PIPE,
    )
    (event,) = server.wait_for(START)
    assert (event["metric"], event["meta"]["reason"]) == (0, "timeout")
    lean_forza.wait(program)
    runs.unlink(missing_ok=True)
    program = lean_forza.start(
        *("-h", server.address, "--start-timeout", 1000, "--ready", check),
        *("--", *WAITS),
        stdin=subprocess.PIPE,
    )
    good = server.wait_for(START, 2)[1]
    assert (good["metric"], good["meta"]["ready"]) == (1, "exec")
    hung, _ = runs.read_text().split()
    assert not os.path.exists(f"/proc/{hung}")
    lean_forza.wait(program)


def test_first_of_several(forza: Forza, server: MetricsServer) -> None:
    """Of several signs the first counts, and there is but one start."""
    script = "echo now; read -r _; echo >&3; read -r _"
    options = "--ready fd --ready log=now --ready port"
    program = start(forza, server, options, "sh", "-c", script)
    (event,) = server.wait_for(START)
    assert event["meta"]["ready"] == "log"
    feed(program)
    feed(program)
    forza.wait(program)
    assert only_start(server) == event


# Whether it lasts.


def test_stable(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """Who dies in the stability window has not started: reason and last words."""
    log = tmp_path / "start.log"
    script = "echo port=80 >&3; head -c 100000 /dev/zero | tr '\\0' x; exit 3"
    options = f"--stable 60 --start-log {log}"
    ended = forza.wait(start(forza, server, options, "sh", "-c", script))
    event = only_start(server)
    assert ended.status == 3
    assert (event["metric"], event["meta"]["reason"]) == (0, "unstable")
    assert event["description"] == "x" * 65536
    assert orjson.loads(log.read_bytes()) == event
    assert server.of("health/process/listen") == []


def test_stable_enough(forza: Forza, server: MetricsServer) -> None:
    """Who lives that long has started; what it said meanwhile of ports comes after."""
    script = "echo port=80 >&3; echo port=81 >&3; read -r _"
    program = start(forza, server, "--stable 0.3", "sh", "-c", script)
    (listen,) = server.wait_for("health/process/listen")
    event = server.of(START)[0]
    assert (event["metric"], event["meta"]["port"]) == (1, 80)
    assert listen["meta"]["port"] == 81
    assert server.events.index(event) < server.events.index(listen)
    feed(program)
    forza.wait(program)
    assert only_start(server) == event


def test_stable_without_a_sign(forza: Forza, server: MetricsServer) -> None:
    """A worker that only has to live, and does not."""
    ended = forza.run(
        *("-h", server.address, "--ready", "none", "--stable", 60, "--", "false")
    )
    assert ended.status == 1
    assert only_start(server)["meta"]["reason"] == "unstable"


def test_watchdog(forza: Forza, server: MetricsServer) -> None:
    """An app that falls silent gets SIGABRT; the exit says why."""
    options = "--ready notify --watchdog 0.5"
    words = ("READY=1", "WATCHDOG=1")
    program = start(forza, server, options, *NOTIFIES, *words)
    (end,) = server.wait_for("health/process/exit")
    assert forza.wait(program).status == 128 + signal.SIGABRT
    assert only_start(server)["metric"] == 1
    assert end["meta"]["signal"] == "SIGABRT"
    assert end["meta"]["reason"] == "watchdog"


def test_watchdog_that_is_fed(forza: Forza, server: MetricsServer) -> None:
    """As long as it is fed it is quiet; before the start it is asleep."""
    script = (
        "import os, socket, sys, time\n"
        "name = os.environ['NOTIFY_SOCKET'].replace('@', chr(0), 1)\n"
        "s = socket.socket(1, 2)\n"
        "say = lambda text: s.sendto(text, name)\n"
        "period = int(os.environ['WATCHDOG_USEC']) / 1e6\n"
        "sys.stdin.readline()\n"
        "say(b'READY=1')\n"
        "for _ in range(20): say(b'WATCHDOG=1'); time.sleep(period / 10)\n"
        "print('fed', flush=True)\n"
        "say(b'WATCHDOG=trigger')\n"
        "time.sleep(1000)\n"
    )
    options = "--ready notify --watchdog 3"
    program = start(forza, server, options, sys.executable, "-c", script)
    feed(program)
    server.wait_for("logs/stdout", containing="fed")
    server.wait_for("health/process/exit")
    forza.wait(program)
    assert server.of("health/process/exit")[0]["meta"]["reason"] == "watchdog"


def test_watchdog_and_a_stubborn_app(forza: Forza, server: MetricsServer) -> None:
    """Who ignores SIGABRT is killed after the grace period."""
    script = "trap '' ABRT; echo port=80 >&3; while :; do sleep 0.1; done"
    options = "--watchdog 0.3 --grace 0.3"
    program = start(forza, server, options, "sh", "-c", script)
    (end,) = server.wait_for("health/process/exit")
    forza.wait(program)
    assert end["meta"]["signal"] == "SIGKILL"
    assert end["meta"]["reason"] == "watchdog"


def test_start_log_is_never_half(
    forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """Who reads the start log all the time sees nothing, or the whole line."""
    log = tmp_path / "start.log"
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            if log.exists():
                seen.add(log.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    script = "head -c 300000 /dev/zero | tr '\\0' '\\1'"
    forza.run("-h", server.address, "--start-log", log, "--", "sh", "-c", script)
    stop.set()
    reader.join(PATIENCE)
    event = only_start(server)
    whole = log.read_bytes()
    assert orjson.loads(whole) == event
    assert len(whole) > 6 * 65536
    assert seen <= {b"", whole}
    assert os.listdir(tmp_path) == ["start.log"]


def test_start_log_that_is_a_pipe(
    forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """A pipe stays a pipe, and a link a link."""
    pipe, link, target = (tmp_path / name for name in ("pipe", "link", "target"))
    os.mkfifo(pipe)
    link.symlink_to(target)
    fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for log in pipe, link:
        forza.run("--to", "file:/dev/null", "--start-log", log, "--", "true")
    assert orjson.loads(os.read(fd, 65536))["metric"] == 0
    os.close(fd)
    assert link.is_symlink()
    assert orjson.loads(target.read_bytes())["metric"] == 0


def test_start_log_in_a_closed_folder(
    forza: Forza, server: MetricsServer, tmp_path: Path
) -> None:
    """Where nothing can be put beside the file, the line goes into the file itself."""
    program = forza.start(
        *("-h", server.address, "--start-log", tmp_path / "log"),
        *("--", "sh", "-c", "read -r _; echo port=80 >&3"),
        stdin=subprocess.PIPE,
    )
    server.wait_for("health/process/spawn")
    (tmp_path / f"log.{program.pid}").touch()  # so much as a folder that refuses
    feed(program)
    forza.wait(program)
    server.wait_closed()
    assert orjson.loads((tmp_path / "log").read_bytes()) == only_start(server)


# Slips.


@pytest.mark.parametrize(
    "word",
    [
        *("", "ports", "port=1", "https://a/", "http://", "http://:80", "tcp://a"),
        *("tcp://a:0", "tcp://a:1/x", "tcp://::1:1", "log=", "log=(", "exec="),
        *("notify=", "notify=x", "notify=/" + "x" * 108, "http://a:b/", "none=1"),
        *("tcp://a:99999", "http://[::1", "http://a b/"),
    ],
)
def test_slip(lean_forza: Forza, word: str) -> None:
    """What can never be is said at once, in one line: status 2."""
    ended = lean_forza.run("--ready", word, "--", "true")
    assert ended.status == 2
    assert ended.stderr.startswith("forza: ")
    assert ended.stderr.count("\n") == 1
    assert "--ready" in ended.stderr
    assert ended.stdout == b""


@pytest.mark.parametrize(
    "options",
    [
        "--ready none --ready port",
        "--stable -1",
        "--watchdog x",
        "--bind-hook maybe",
        "--plugin logs --ready port",
        "--plugin logs --bind-any",
    ],
)
def test_slips(lean_forza: Forza, options: str) -> None:
    """So is what does not go together."""
    ended = lean_forza.run(*options.split(), "--", "true")
    assert ended.status == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == b""


def test_a_plugin_of_ones_own_beside_it(forza: Forza, server: MetricsServer) -> None:
    """Readiness works the same where a foreign plugin puts off the spawn."""
    options = "--plugin all --plugin forza.plugins.uptime:Uptime --ready notify"
    program = start(forza, server, options, *NOTIFIES, "READY=1")
    (event,) = server.wait_for(START)
    assert event["metric"] == 1
    forza.wait(program)


def test_missing_command(forza: Forza, server: MetricsServer, tmp_path: Path) -> None:
    """A command that is not there has not started, and leaves no socket behind."""
    ready = f"notify={tmp_path}/socket"
    ended = forza.run("-h", server.address, "--ready", ready, "--", "/missing")
    assert ended.status == 127
    assert only_start(server)["metric"] == 0
    assert os.listdir(tmp_path) == []
