# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make a snapshot of a folder: what npm would pack, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from solenoid._errors import PackError
from solenoid._target import Target, digest_beside, write_digest
from solenoid._thread import in_thread

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    Progress = Callable[[int, int | None], None]

# npm never packs the first, which `npm ci` needs on the drone.
_LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
# npm's own date, from which everything in its archives is.
_DATE = 499162500
# How long npm may take to list the largest folder on the slowest machine.
_PATIENCE, _LOOK_AGAIN = 300.0, 0.2


@dataclass(frozen=True, slots=True)
class Packed:
    """A snapshot that was made."""

    path: Path
    name: str
    version: str
    files: int
    size: int
    sha256: str


async def pack(
    folder: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    modules: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Pack a package's folder into the file `to`, under the name `package/`.

    If `to` is a folder, it gets NAME-VERSION.tgz, as npm calls it.
    Which files, npm says (`files`, .npmignore, .gitignore, bundled dependencies); no
    script is run. The lock file comes along, and with `modules` all of node_modules.
    Dates, owners and order are always the same, so that the same files give the same
    digest, which is written beside it, into TO.sha256. `progress` is told, in another
    thread, the bytes read so far and in all. Raises PackError.
    """
    source, target = Path(folder), Path(to)
    return await in_thread(lambda stop: _pack(source, target, modules, progress, stop))


def _pack(
    folder: Path,
    to: Path,
    modules: bool,
    progress: Progress | None,
    stop: threading.Event,
) -> Packed:
    about = _listed(folder, stop)
    if os.path.isdir(to):
        # As npm: @shop/server 1.0.0 is shop-server-1.0.0.tgz.
        plain = str(about["name"]).removeprefix("@").replace("/", "-")
        to /= f"{plain}-{about['version']}.tgz"
    names = {str(file["path"]) for file in about["files"]}
    names |= {name for name in _LOCKS if (folder / name).is_file()}
    if modules:
        names |= set(_all_of(folder, "node_modules"))
    # Made in the folder itself, it would have the one before in it the next time.
    names -= {os.path.relpath(path, folder) for path in (to, digest_beside(to))}
    try:
        with Target(to) as target:
            with (
                open(target.descriptor, "wb", closefd=False) as raw,
                gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
                tarfile.open(fileobj=cast("Any", packed), mode="w|") as tar,
            ):
                whole = sum(os.lstat(folder / name).st_size for name in names)
                read = 0
                for name in sorted(names):
                    if stop.is_set():
                        raise PackError("cancelled")
                    _add(tar, folder, name)
                    read += os.lstat(folder / name).st_size
                    if progress is not None:
                        progress(min(read, whole), whole)
            digest = hashlib.sha256()
            size = 0
            while data := os.pread(target.descriptor, 1 << 20, size):
                digest.update(data)
                size += len(data)
            os.fchmod(target.descriptor, 0o644)
            # The digest of another would be worse than none meanwhile.
            digest_beside(to).unlink(missing_ok=True)
            target.commit()
        write_digest(to, digest.hexdigest())
    except OSError as error:
        why = f"cannot pack {folder}: {error.filename or to}: {error.strerror}"
        raise PackError(why) from error
    return Packed(
        to, about["name"], about["version"], len(names), size, digest.hexdigest()
    )


def _add(tar: tarfile.TarFile, folder: Path, name: str) -> None:
    info = tar.gettarinfo(folder / name, f"package/{name}")
    if not (info.isreg() or info.issym() or info.islnk()):
        raise PackError(f"cannot pack {name}: neither a file nor a link")
    if info.islnk():  # a second name for a file: packed as one of its own
        info.type, info.linkname = tarfile.REGTYPE, ""
        info.size = os.path.getsize(folder / name)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = _DATE
    info.mode = 0o755 if info.mode & 0o111 else 0o644
    if info.isreg():
        with (folder / name).open("rb") as file:
            tar.addfile(info, file)
    else:
        tar.addfile(info)


def _all_of(folder: Path, below: str) -> Iterator[str]:
    for at, folders, files in os.walk(folder / below):
        links = (name for name in folders if os.path.islink(os.path.join(at, name)))
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(at, name), folder)


def _listed(folder: Path, stop: threading.Event) -> dict[str, Any]:
    """Ask npm what it would pack."""
    _look_at(folder / "package.json", folder)
    npm = shutil.which("npm")
    if npm is None:
        raise PackError(
            f"cannot pack {folder}: there is no npm in PATH, which says what is packed;"
            " it comes with node",
            blame="system",
        )
    words = [npm, "pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error"]
    # To look at a folder takes no network, which npm would ask for its own news.
    quiet = {"npm_config_offline": "true", "npm_config_update_notifier": "false"}
    status, out, err = _run(folder, words, {**os.environ, **quiet}, stop)
    try:
        found = json.loads(out)
        # A list until npm 11, an object by the package's name since.
        first = found[0] if isinstance(found, list) else next(iter(found.values()))
        if status == 0 and {"files", "name", "version"} <= set(first):
            return dict(first)
        said = str(first["summary"]).splitlines()[0]  # of {"error": {...}}
    except (ValueError, TypeError, LookupError, AttributeError, StopIteration):
        said = next(iter(err.strip().splitlines()), f"status {status}")
    raise PackError(f"cannot pack {folder}: npm pack: {said}")


def _run(
    folder: Path, words: list[str], environ: dict[str, str], stop: threading.Event
) -> tuple[int, str, str]:
    """Run npm to its end; it and what it starts end with us, or when time is up."""
    deadline = time.monotonic() + _PATIENCE
    with subprocess.Popen(
        words,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    out, err = child.communicate(timeout=_LOOK_AGAIN)
                    return child.returncode, out, err
                if stop.is_set():
                    raise PackError("cancelled")
                if time.monotonic() > deadline:
                    why = f"npm pack did not end in {_PATIENCE:g} s"
                    raise PackError(f"cannot pack {folder}: {why}", blame="system")
        except BaseException:
            # Its children may hold the pipes, though npm itself has ended.
            os.killpg(child.pid, signal.SIGKILL)
            raise


def _look_at(path: Path, folder: Path) -> None:
    """Say what is wrong with a package.json, of which npm gives but a code."""
    try:
        found = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        kind = "" if folder.is_dir() else f": {folder} is not a folder"
        raise PackError(f"cannot pack {folder}: no package.json in it{kind}") from None
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        raise PackError(f"{path}, {at}: {error.msg}") from None
    except UnicodeDecodeError:
        raise PackError(f"{path} is not UTF-8") from None
    if not isinstance(found, dict):
        raise PackError(f"{path} is not a JSON object")
    for name in ("name", "version"):
        if not (isinstance(found.get(name), str) and found[name]):
            raise PackError(f"{path} has no {name}")
