# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What it takes to bring and to start a snapshot, from each storage, beside pipes."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import solenoid
from benchmarks.harness.cache import UnavailableError, python_package
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.statistics import median
from benchmarks.unpack import sample
from solenoid.storage.s3 import S3Storage

BENCHMARK = "deploy"
ROOT = Path(__file__).resolve().parent.parent
BUCKET, KEY = "snapshots", "sample.tgz"
IDENTITY = ("an-id", "a-secret")
PATIENCE = 60.0
HUGE = 2 << 30
SERVER = """\
const http = require('http');
http.createServer((_, response) => response.end('ok')).listen(0, '127.0.0.1');
"""
# Runs the command and says what it took: the largest of its processes counts. A small
# interpreter, since a child's high-water mark begins at its parent's.
MEASURE = """
import os, sys, time
begun = time.monotonic()
child = os.fork()
if not child:
    os.dup2(2, 1)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(child, 0)
taken = time.monotonic() - begun
print(os.waitstatus_to_exitcode(status), taken, used.ru_maxrss)
"""
FETCH = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[4])
import solenoid
asyncio.run(solenoid.fetch(*sys.argv[1:3], options=json.loads(sys.argv[3])))
"""


@dataclass(frozen=True)
class Place:
    """A server with the snapshot in it, and the ways to it."""

    endpoint: str
    options: dict[str, object]
    file: Path

    def link(self, key: str = KEY) -> str:
        """Return a URL that needs no credentials."""

        async def sign() -> str:
            storage = S3Storage(self.options)
            try:
                return await storage.presign(f"s3://{BUCKET}/{key}", 3600)
            finally:
                await storage.close()

        return asyncio.run(sign())


Ways = dict[str, Callable[[Place, Path], list[str]]]


def main() -> None:
    options = argparse.ArgumentParser(
        description="Seconds and peak memory to bring a snapshot (download: fetch,"
        " check, unpack, to disk), to have its app running (start), to go back"
        " (rollback), and to fetch 2 GiB (huge), each from a server on loopback, and"
        " of what one would use instead."
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="two rounds, no 2 GiB")
    options.add_argument("--huge", action="store_true", help="only the 2 GiB")
    given = options.parse_args()
    rounds = 2 if given.quick else given.rounds
    with folder() as made, served(made) as place:
        if not given.huge:
            bring(place, rounds)
            start(place, rounds)
        if not given.quick:
            huge(place)


def bring(place: Place, rounds: int) -> None:
    """From nothing to a folder on disk."""
    ways = solenoids("download", place)
    ways["curl, tar"] = lambda at, to: shell(
        'curl -sf "$1" | tar -xzf - -C "$2"', at.link(), to
    )
    ways["curl, tar, sync -f"] = lambda at, to: shell(
        'curl -sf "$1" | tar -xzf - -C "$2" && sync -f "$2"', at.link(), to
    )
    try:
        aws = python_package("awscli") / "aws"
        ways["aws s3 cp, tar"] = lambda at, to: shell(
            f'"{aws}" --endpoint-url {at.endpoint} s3 cp --quiet'
            f' s3://{BUCKET}/{KEY} - | tar -xzf - -C "$2"',
            "",
            to,
        )
    except UnavailableError as error:
        emit(BENCHMARK, "aws s3 cp, tar", {"unavailable": str(error)})
    measured(place, "bring", ways, rounds)


def start(place: Place, rounds: int) -> None:
    """From nothing to an app that runs, watched and restricted; and back."""
    ways = solenoids("start", place)
    measured(place, "start", ways, rounds, stop=True)
    times, peaks = [], []
    with folder() as made:
        Path(made).chmod(0o755)
        to = Path(made) / "run"
        begin = program("start", place, to, str(place.file))
        try:
            for turn in range(-2, rounds):
                # With the same environment it would be no release to go back from.
                taken([*begin, "--app-env", json.dumps({"TURN": str(turn)})], place)
                if turn < 0:
                    continue
                note(f"deploy: rollback {turn + 1}")
                words = [*SOLENOID, "rollback", "--run-dir", str(to)]
                seconds, peak = taken(words, place)
                times.append(seconds)
                peaks.append(peak)
        finally:  # also of a benchmark that failed nothing goes on running
            taken([*SOLENOID, "clean", "--run-dir", str(to)], place)
    tell("rollback", "solenoid", times, max(peaks), place)


def huge(place: Place) -> None:
    """2 GiB, of which no more than some buffers may be in memory at a time."""
    with folder() as made:
        to = Path(made) / "huge"
        fetch = [sys.executable, "-c", FETCH]
        link, url = place.link("huge"), f"s3://{BUCKET}/huge"
        options = json.dumps(place.options)
        ways = {
            "solenoid, presigned": [*fetch, link, str(to), "{}", str(ROOT)],
            "solenoid, s3:": [*fetch, url, str(to), options, str(ROOT)],
            "curl": ["curl", "-sf", "-o", str(to), link],
        }
        with suppress(UnavailableError):
            aws = str(python_package("awscli") / "aws")
            endpoint = ["--endpoint-url", place.endpoint]
            ways["aws s3 cp"] = [aws, *endpoint, "s3", "cp", "--quiet", url, str(to)]
        for name, words in ways.items():
            note(f"deploy: 2 GiB, {name}")
            seconds, peak = taken(words, place)
            assert to.stat().st_size == HUGE
            to.unlink()
            tell("huge", name, [seconds], peak, place, size=HUGE)


def measured(
    place: Place, part: str, ways: Ways, rounds: int, *, stop: bool = False
) -> None:
    """Do it each way, in interleaved rounds, each time in a new folder."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    peaks = dict.fromkeys(ways, 0)
    for turn in range(-1, rounds):
        note(f"deploy: {part}, round {turn + 1}")
        for name, way in ways.items():
            with folder() as made:
                Path(made).chmod(0o755)
                to = Path(made) / "run"
                if not name.startswith("solenoid"):
                    to.mkdir()
                seconds, peak = taken(way(place, to), place)
                if stop:
                    taken([*SOLENOID, "clean", "--run-dir", str(to)], place)
            if turn >= 0:  # the first fills the page cache and is dropped
                times[name].append(seconds)
                peaks[name] = max(peak, peaks[name])
    for name in ways:
        tell(part, name, times[name], peaks[name], place)


def tell(
    part: str, name: str, times: list[float], peak: int, place: Place, size: int = 0
) -> None:
    """Print a result."""
    values: Result = {
        "part": part,
        "rounds": len(times),
        "s": round(median(times) or 0.0, 2),
        "min_s": round(min(times), 2),
        "peak_mb": round(peak * 1024 / 1e6, 1),
        "mb": round((size or place.file.stat().st_size) / 1e6, 1),
    }
    emit(BENCHMARK, name, values)


def folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder in memory: no disk is compared, nor waited for."""
    return tempfile.TemporaryDirectory(
        prefix="deploy-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )


SOLENOID = [sys.executable, "-m", "solenoid"]


def urls(place: Place) -> dict[str, str]:
    """Return the snapshot's URL in each of the storages."""
    return {
        "file:": str(place.file),
        "presigned": place.link(),
        "s3:": f"s3://{BUCKET}/{KEY}",
    }


def solenoids(command: str, place: Place) -> Ways:
    """Return the ways to have solenoid do it, one for each storage."""

    def way(url: str) -> Callable[[Place, Path], list[str]]:
        return lambda at, to: program(command, at, to, url)

    return {f"solenoid, {name}": way(url) for name, url in urls(place).items()}


def program(command: str, place: Place, to: Path, url: str) -> list[str]:
    """Return the words that have solenoid do it."""
    config = place.file.with_name("conf")
    words = [*SOLENOID, command, "--from", url, "--run-dir", str(to)]
    words += ["--config", str(config)]
    return words if os.geteuid() else [*words, "--system-user", "nobody"]


def shell(line: str, url: str, to: Path) -> list[str]:
    """Return the words that have a shell do it."""
    return ["sh", "-c", line, "sh", url, str(to)]


def taken(words: list[str], place: Place) -> tuple[float, int]:
    """Return the seconds that a command took, and its peak memory in KiB."""
    environ = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("PYTHON", "NODE_", "AWS_", "LD_"))
    }
    environ |= {
        "AWS_ACCESS_KEY_ID": IDENTITY[0],
        "AWS_SECRET_ACCESS_KEY": IDENTITY[1],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-c", MEASURE, *words],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    status, seconds, peak = ended.stdout.split()
    if status != "0":
        raise SystemExit(f"deploy: {words[:4]} failed: {ended.stderr[-2000:]}")
    return float(seconds), int(peak)


@contextmanager
def served(made: str) -> Iterator[Place]:
    """Have an S3 server that checks signatures serve the snapshot."""
    folder = Path(made)
    folder.chmod(0o755)
    (folder / BUCKET).mkdir()
    with (folder / BUCKET / "huge").open("wb") as hole:
        hole.truncate(HUGE)  # which takes no disk
    (folder / "local").mkdir()
    file = folder / "local" / KEY
    complete(sample(), file)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    options: dict[str, object] = {
        "endpoint": endpoint,
        "keyId": IDENTITY[0],
        "key": IDENTITY[1],
        "region": "us-east-1",
    }
    conf = {"storage": {"provider": "amazon", "container": BUCKET, **options}}
    file.with_name("conf").write_text(json.dumps(conf))
    rclone = shutil.which("rclone") or str(Path(sys.executable).with_name("rclone"))
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", str(folder)]
    command += ["--auth-key", ",".join(IDENTITY)]
    environ = {**os.environ, "RCLONE_CONFIG": str(folder / "none")}
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as child:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)
            place = Place(endpoint, options, file)
            digest = asyncio.run(
                solenoid.push(file, f"s3://{BUCKET}/{KEY}", options=options)
            ).sha256
            file.with_name(f"{KEY}.sha256").write_text(digest)
            yield place
        finally:
            child.terminate()


def complete(source: Path, to: Path) -> None:
    """Make an app of the sample: something to start."""
    with tarfile.open(source) as old, tarfile.open(to, "w:gz", compresslevel=6) as new:
        for member in old:
            if member.name == "package/package.json":
                continue
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
        about = {"name": "sample", "version": "1.0.0"}
        text = json.dumps({**about, "scripts": {"start": "node server.js"}})
        for name, content in (("package.json", text), ("server.js", SERVER)):
            with tempfile.NamedTemporaryFile() as file:
                file.write(content.encode())
                file.flush()
                new.add(file.name, f"package/{name}")


if __name__ == "__main__":
    main()
