# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""How long a snapshot takes to unpack, beside tar, in interleaved rounds."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.harness.cache import CACHE
from benchmarks.harness.results import Result, emit, note
from benchmarks.harness.statistics import median

BENCHMARK = "unpack"
PACKAGES = ("webpack@5", "typescript@5", "eslint@9", "lodash@4", "date-fns@4")
ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[3])
if sys.argv[4] == "zlib":
    sys.modules["isal"] = None
import solenoid
asyncio.run(solenoid.unpack(*sys.argv[1:3]))
"""
# solenoid syncs the file system before the folder appears: so does the second.
SHELL = {
    "tar -xzf": "mkdir $2 && tar -xzf $1 -C $2",
    "tar -xzf; sync -f": "mkdir $2 && tar -xzf $1 -C $2 && sync -f $2",
}


def main() -> None:
    options = argparse.ArgumentParser(
        description="Milliseconds to unpack a node_modules tree, each in a process of"
        " its own, interpreter included, and that process's peak memory."
    )
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--quick", action="store_true", help="three rounds")
    options.add_argument("--archive", type=Path, help="this .tgz instead of our own")
    options.add_argument("--folder", type=Path, help="unpack below it (default: /tmp)")
    given = options.parse_args()
    archive = given.archive or sample()
    subjects = {name: ["sh", "-c", line, "sh"] for name, line in SHELL.items()}
    for library in ("zlib", "isal"):
        if library == "zlib" or importlib.util.find_spec(library):
            subjects[f"solenoid, {library}"] = [sys.executable, "-c", PROGRAM]
    times: dict[str, list[float]] = {name: [] for name in subjects}
    peaks: dict[str, int] = {}
    for turn in range(-1, 3 if given.quick else given.rounds):
        note(f"unpack: round {turn + 1}")
        for name, command in subjects.items():
            milliseconds, peak = once(name, command, archive, given.folder)
            if turn >= 0:  # the first fills the page cache and is dropped
                times[name].append(milliseconds)
                peaks[name] = max(peak, peaks.get(name, 0))
    with tarfile.open(archive) as tar:
        about = [member.size for member in tar]
    floor = median(times["tar -xzf"]) or 1.0
    for name in subjects:
        middle = median(times[name]) or 0.0
        values: Result = {
            "rounds": len(times[name]),
            "ms": round(middle, 1),
            "min_ms": round(min(times[name]), 1),
            "of_tar": round(middle / floor, 2),
            "peak_mb": round(peaks[name] / 1024, 1),
            "entries": len(about),
            "mb": round(sum(about) / 1e6, 1),
            "compressed_mb": round(archive.stat().st_size / 1e6, 1),
        }
        emit(BENCHMARK, name, values)


def once(
    name: str, command: list[str], archive: Path, folder: Path | None
) -> tuple[float, int]:
    """Return the milliseconds and the peak memory of one run, in KiB."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        words = [*command, str(archive), f"{made}/into"]
        if name.startswith("solenoid"):
            words += [str(ROOT), name.rpartition(" ")[2]]
        begun = time.monotonic()
        with subprocess.Popen(words) as child:
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        taken = (time.monotonic() - begun) * 1000
        if child.returncode:
            raise SystemExit(f"{name} failed")
        return taken, used.ru_maxrss


def sample() -> Path:
    """Return a snapshot with a real node_modules tree, made once."""
    path = CACHE / "unpack" / "snapshot.tgz"
    if path.exists():
        return path
    package = path.parent / "package"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "sample", "version": "1.0.0"}\n')
    note(f"unpack: installing {', '.join(PACKAGES)}")
    subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES],
        cwd=package,
        stdout=sys.stderr,
        check=True,
    )
    with tarfile.open(path.with_suffix(".part"), "w:gz", compresslevel=6) as tar:
        tar.add(package, "package")
    path.with_suffix(".part").rename(path)
    return path


if __name__ == "__main__":
    main()
