# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Install what the benchmarks run, once, into the git-ignored benchmarks/.cache."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

__all__ = [
    "BENCHMARKS",
    "REPOSITORY",
    "UnavailableError",
    "compiled",
    "debian_package",
    "forza_python",
    "installed_versions",
    "node",
    "npm_package",
    "python_package",
    "share_no_libpython",
]

BENCHMARKS = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHMARKS.parent
CACHE = BENCHMARKS / ".cache"
INSTALL_TIMEOUT = 900.0
REPORTED = (
    *("forza", "uvloop", "orjson", "psutil", "node"),
    *("supervisor", "circus", "pm2", "forever", "s6", "runit", "honcho"),
    *("asyncssh", "parallel_ssh", "ansible_core", "pyinfra"),
)
PRELOAD = "LD_PRELOAD"
COMPILE = ("cc", "-O2", "-Wall", "-Wextra", "-Werror")


class UnavailableError(Exception):
    """Something that a benchmark compares with cannot be installed here."""


def share_no_libpython() -> None:
    """Restart this program on a libpython of its own, if Python is built with one.

    Else the pages of libpython would be shared between the harness and what it
    measures: PSS and USS would be smaller than where only that runs. The copied
    interpreters of virtual_environment() are not enough, they use the same library.
    """
    names = sysconfig.get_config_vars("LIBDIR", "INSTSONAME", "Py_ENABLE_SHARED")
    folder, file, is_shared = names
    if not is_shared or PRELOAD in os.environ:
        return
    own = CACHE / "harness" / file
    if not own.exists():
        own.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder, file), own)
    os.environ[PRELOAD] = str(own)
    os.execv(sys.executable, sys.orig_argv)


def run(*argv: str | Path, cwd: Path | None = None) -> str:
    """Run an install step quietly and return its output; its error is ours."""
    foreign = ("PYTHON", PRELOAD)
    env = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            cwd=cwd,
            env=env,
            check=False,
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"cannot run {Path(argv[0]).name}: {error}") from error
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        what = " ".join(Path(word).name for word in argv[:4])
        raise UnavailableError(f"{what} failed: {' '.join(last)}")
    return done.stdout


def installed_versions() -> dict[str, str]:
    """Return the versions of what has been installed so far."""
    found = {"node": node_version()}
    for info in CACHE.glob("venv-*/lib/python*/site-packages/*.dist-info"):
        package, _, version = info.name.removesuffix(".dist-info").partition("-")
        package = package.removesuffix("_solenoid")
        found[package] = version
    for home in CACHE.glob("npm-*"):
        package = home.name.removeprefix("npm-")
        with suppress(OSError):
            manifest = home / "node_modules" / package / "package.json"
            found[package] = json.loads(manifest.read_text())["version"]
    for archive in CACHE.glob("deb-*/downloads/*.deb"):
        package, version, _ = archive.name.split("_")
        found[package] = version
    return {name: found[name] for name in REPORTED if name in found}


@functools.cache
def node_version() -> str:
    """Return the version of the node that runs the apps."""
    try:
        return run(node(), "--version").strip().removeprefix("v")
    except UnavailableError as error:
        return str(error)


def compiled(name: str) -> Path:
    """Compile native/NAME.c, statically where the C library allows it."""
    source = BENCHMARKS / "native" / f"{name}.c"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    program = CACHE / "native" / f"{name}-{digest}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        try:
            run(*COMPILE, "-static", "-o", program, source)
        except UnavailableError:
            run(*COMPILE, "-o", program, source)
    return program


def python_package(*packages: str) -> Path:
    """Return the bin directory of a virtual environment with these packages."""
    where = virtual_environment(packages[0])
    stamp = where / "installed"
    if not stamp.exists():
        pip_install(where, *packages)
        stamp.touch()
    return where / "bin"


def forza_python() -> Path:
    """Return the python of an environment with the forza of this repository."""
    where = virtual_environment("forza")
    stamp = where / "installed"
    digest = source_digest()
    with (CACHE / "forza.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benchmarks may be started at once
        if not stamp.exists() or stamp.read_text() != digest:
            pip_install(where, "--force-reinstall", "--no-deps", str(REPOSITORY))
            pip_install(where, str(REPOSITORY))
            # The first monitor compiles; measured is any other.
            run(where / "bin/python", "-m", "forza", "--", "true")
            stamp.write_text(digest)
    return where / "bin" / "python"


def source_digest() -> str:
    """Name the state of forza's sources, so that a change is installed again."""
    digest = hashlib.sha256()
    for source in sorted((REPOSITORY / "forza").rglob("*.[pc]*")):
        if source.suffix not in (".py", ".c"):
            continue
        digest.update(str(source.relative_to(REPOSITORY)).encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def virtual_environment(name: str) -> Path:
    """Make an environment with a copy of the interpreter, not a link to it.

    The harness runs on the same Python. With a link, the kernel would count
    the interpreter's text as shared with the harness, and PSS and USS would
    come out smaller than on a machine that runs only what is measured.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    where = CACHE / f"venv-{version}-{name}"
    if not (where / "bin/python").exists():
        base = getattr(sys, "_base_executable", sys.executable)
        run(base, "-m", "venv", "--copies", where)
    return where


def pip_install(environment: Path, *words: str) -> None:
    """Run the environment's own pip."""
    run(environment / "bin/python", "-m", "pip", "install", "--quiet", *words)


def npm_package(package: str) -> Path:
    """Return the .bin directory of a folder with this npm package in it."""
    where = CACHE / f"npm-{package}"
    programs = where / "node_modules" / ".bin"
    if not (programs / package).exists():
        if not shutil.which("npm"):
            raise UnavailableError("npm is not installed")
        where.mkdir(parents=True, exist_ok=True)
        run("npm", "install", "--silent", "--no-save", "--prefix", where, package)
    return programs


def debian_package(package: str) -> Path:
    """Unpack a Debian package, without installing it, and return its root.

    The libraries that it depends on come along, the C library excepted.
    """
    root = CACHE / f"deb-{package}"
    stamp = root / "unpacked"
    if not stamp.exists():
        if not shutil.which("apt-get"):
            raise UnavailableError("apt-get is not installed: not a Debian")
        downloads = root / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        try:
            run("apt-get", "download", package, cwd=downloads)
        except UnavailableError:
            run("apt-get", "-qq", "update")
            run("apt-get", "download", package, cwd=downloads)
        depends = run("apt-cache", "depends", "--important", package).split()
        libraries = [w for w in depends if w.startswith("lib") and w[:5] != "libc6"]
        if libraries:
            run("apt-get", "download", *libraries, cwd=downloads)
        for archive in downloads.glob("*.deb"):
            run("dpkg", "-x", archive, root)
        stamp.touch()
    return root


def node() -> Path:
    """Return the node that is on the PATH, or the one that the tests installed."""
    found = shutil.which("node")
    if found:
        return Path(found)
    for installed in sorted((REPOSITORY / ".node").glob("**/bin/node")):
        return installed
    raise UnavailableError("node is not installed")
