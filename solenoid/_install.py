# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Install an app's dependencies by npm, as the app's user, without our secrets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from solenoid._errors import InstallError
from solenoid._thread import in_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    Activity = Callable[[str], None]

_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
# What it takes to reach a registry; everything else stays with us.
_PASSED = (
    *("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "LANG", "LC_ALL", "TZ"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
# npm's codes for what the app's owner has not done wrong.
_SYSTEM_CODES = (
    *("ENOTFOUND", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "EAI_AGAIN", "ENOSPC"),
    *("EACCES", "EPERM", "E500", "E502", "E503", "E504", "ERR_SOCKET_TIMEOUT"),
)
_TAIL = 8192
_EVERY = 0.1
# What it says of each package it fetches: to be shown as it goes, not as a reason.
_NEWS = "npm http "


async def install(
    package: str | os.PathLike[str],
    engine_bin: str | os.PathLike[str],
    *,
    uid: int | None = None,
    gid: int | None = None,
    scripts: bool = False,
    time_limit: float = 900.0,
    activity: Activity | None = None,
) -> bool:
    """Run `npm ci --omit=dev` in a package's folder; say whether that was needed.

    It is needed if there is a lock file and no `node_modules`. npm is the engine's,
    else the one in our PATH, run by the engine's node. Scripts of dependencies run
    only with `scripts`. With `uid` and `gid` it runs as that user, who then owns the
    folder and what npm has made. After `time_limit` seconds it is ended. `activity` is
    told, in another thread and again and again, the last line that npm has said.

    Raises InstallError; no `node_modules` is left then, nor when it is cancelled.
    """
    folder, engine = Path(package), Path(engine_bin)
    return await in_thread(
        lambda stop: _install(
            folder, engine, uid, gid, scripts, time_limit, activity, stop
        )
    )


def _install(
    package: Path,
    engine_bin: Path,
    uid: int | None,
    gid: int | None,
    scripts: bool,
    time_limit: float,
    activity: Activity | None,
    stop: threading.Event,
) -> bool:
    modules = package / "node_modules"
    if not is_due(package):
        return False
    import shutil
    import tempfile  # these take a megabyte, for what is seldom

    words = [*_npm(engine_bin), "ci", "--omit=dev", "--no-audit", "--no-fund"]
    if not scripts:
        words.append("--ignore-scripts")
    if activity is not None:
        words.append("--loglevel=http")  # by itself it says nothing until it is done
    try:
        with tempfile.TemporaryDirectory(prefix="solenoid-") as home:
            if uid is not None or gid is not None:
                for path in (package, Path(home)):
                    os.chown(
                        path, -1 if uid is None else uid, -1 if gid is None else gid
                    )
            with tempfile.TemporaryFile() as output:
                environ = _environ(home, engine_bin)
                child = _start(words, package, environ, output, uid, gid)
                deadline = time.monotonic() + time_limit
                code = _wait(child, deadline, stop, output, activity)
                if code:
                    raise _failed(code, _tail(output))
    except OSError as error:
        raise InstallError(f"cannot run npm: {error}") from error
    except BaseException:
        shutil.rmtree(modules, ignore_errors=True)
        raise
    return True


def is_due(package: Path) -> bool:
    """Say whether there is a lock file and nothing installed."""
    locked = any((package / name).is_file() for name in _LOCKS)
    return locked and not os.path.lexists(package / "node_modules")


def _npm(engine_bin: Path) -> list[str]:
    import shutil

    node = engine_bin / "node"
    if not node.is_file():
        raise InstallError(f"no node in {engine_bin}")
    own = engine_bin / "npm"
    found = str(own) if own.is_file() else shutil.which("npm")
    if found is None:
        raise InstallError(f"no npm in {engine_bin} nor in PATH")
    real = os.path.realpath(found)
    return [str(node), real] if real.endswith(".js") else [found]


def _environ(home: str, engine_bin: Path) -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
    # A proxy's password is a secret, too.
    kept = {name: value for name, value in passed.items() if "@" not in value}
    return {
        **kept,
        "PATH": f"{engine_bin}:{_SYSTEM_PATH}",
        # Without a home of its own npm would read, and write, somebody else's.
        "HOME": home,
        "TMPDIR": home,
        "NODE_ENV": "production",
        "npm_config_cache": f"{home}/cache",
        "npm_config_update_notifier": "false",
    }


def _start(
    words: Sequence[str],
    package: Path,
    environ: dict[str, str],
    output: IO[bytes],
    uid: int | None,
    gid: int | None,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        cwd=package,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        umask=0o022,
        start_new_session=True,
    )


def _wait(
    child: subprocess.Popen[bytes],
    deadline: float,
    stop: threading.Event,
    output: IO[bytes],
    activity: Activity | None,
) -> int:
    """Return npm's status; end it, and whatever it has started, when time is up."""
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_EVERY)
            if activity is not None:
                activity(_last_line(output))
            if stop.is_set():
                raise InstallError("cancelled")
            if time.monotonic() > deadline:
                raise InstallError("npm took too long")
    finally:
        # Before it is reaped its number, and its group's, is nobody else's.
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _last_line(output: IO[bytes]) -> str:
    # Not by seek: npm writes where the file's position is, which is ours, too.
    size = os.fstat(output.fileno()).st_size
    end = os.pread(output.fileno(), _TAIL, max(0, size - _TAIL))
    lines = end.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix(_NEWS) if lines else ""


def _tail(output: IO[bytes]) -> str:
    end = output.seek(0, os.SEEK_END)
    output.seek(max(0, end - 4 * _TAIL))
    lines = output.read().decode("utf-8", "replace").splitlines()
    said = "\n".join(line for line in lines if not line.startswith(_NEWS))
    return said.strip()[-_TAIL:]


def _failed(code: int, output: str) -> InstallError:
    why = f"npm ci ended with {code}" if code > 0 else f"npm ci was killed by {-code}"
    errors = [line for line in output.splitlines() if line.startswith("npm error ")]
    code_line = next((e for e in errors if e.startswith("npm error code ")), "")
    name = code_line.rpartition(" ")[2]
    said = [line.removeprefix("npm error ") for line in errors if line != code_line]
    detail = ": ".join(filter(None, (name, said[0] if said else "")))
    system = name in _SYSTEM_CODES or code < 0
    return InstallError(
        f"{why} ({detail})" if detail else why,
        blame="system" if system else "user",
        output=output,
    )
