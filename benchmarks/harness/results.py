# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""One JSON line for each result, with all that is needed to repeat it."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from .cache import REPOSITORY, installed_versions

__all__ = ["Result", "emit", "note"]

Result = dict[str, object]


def emit(benchmark: str, subject: str, values: Result) -> None:
    """Print a result, its conditions after its values."""
    line = {"benchmark": benchmark, "subject": subject, **values, **conditions()}
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a watching person what is going on."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def conditions() -> Result:
    """Return when and where, with which versions, and how to do it again.

    The load average tells whether others were using the machine.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": command(),
        "commit": commit(),
        **machine(),
        "load": round(os.getloadavg()[0], 2),
        "versions": installed_versions(),
    }


def command() -> str:
    """Return the command line without the paths of this machine."""
    script = Path(sys.argv[0]).resolve()
    with suppress(ValueError):
        script = script.relative_to(REPOSITORY)
    return " ".join(["python", str(script), *sys.argv[1:]])


@functools.cache
def commit() -> str:
    """Return the commit that is measured, with a + if files have changed."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "forza"],
            check=True,
            capture_output=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


@functools.cache
def machine() -> Result:
    """Describe the hardware, the kernel and the interpreter."""
    model = platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "machine": f"{os.cpu_count()} cores of {model}, {pages / 2**30:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
