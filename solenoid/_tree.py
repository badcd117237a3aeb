# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make a folder of names that are not trusted; it is there whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from solenoid._errors import UnpackError
from solenoid._target import make_folders, sweep, sync_folder

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

_MAX_LINKS = 40  # as the kernel's
_NAME_MAX = 255
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Tree:
    """A folder in the making, beside its place; `commit` puts it there.

    Folders and links are looked up in what was made here, never on disk: nothing is
    written through a link, so that where a link leads can wait until all are known.
    Files are not kept in mind, of which there are thousands: a name is theirs if it is
    taken and neither a folder's nor a link's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folders = {""}
        self._links: dict[str, str] = {}
        self._inner = ""

    def __enter__(self) -> Self:
        make_folders(self.path.parent)
        sweep(self.path.parent, f".{glob.escape(self.path.name)}.*.part")
        self._name, self._root = self._create()
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._root)
        if self._name:
            import shutil  # half a megabyte, once the large part is over

            shutil.rmtree(self._name, ignore_errors=True)

    @property
    def folders(self) -> int:
        """Return how many folders there are: a name of few bytes may make hundreds."""
        return len(self._folders) - 1

    def folder(self, name: str) -> None:
        """Make a folder, and those above it."""
        self._make(self._place(name), name)

    def file(self, name: str, *, executable: bool) -> int:
        """Return the descriptor of a new file; a second of the same name replaces."""
        place = self._place(name)
        above, _, last = place.rpartition("/")
        if above not in self._folders:
            self._make(above, name)
        if place in self._folders:
            raise refused(name, "a folder of that name is there" if last else "empty")
        mode = 0o755 if executable else 0o644
        try:
            return os.open(place, _NEW, mode, dir_fd=self._root)
        except FileExistsError:
            self._remove(place)
            return os.open(place, _NEW, mode, dir_fd=self._root)

    def link(self, name: str, target: str) -> None:
        """Make a symbolic link; whether it leads out is seen by `check_links`."""
        if not target or "\0" in target or len(os.fsencode(target)) > 4095:
            raise refused(name, "a link to nowhere")
        if target.startswith("/"):
            raise refused(name, f"a link that leads out, to {target!r}")
        place = self._place(name)
        self._make(place.rpartition("/")[0], name)
        if place in self._folders:
            raise refused(name, "a folder of that name is there")
        try:
            os.symlink(target, place, dir_fd=self._root)
        except FileExistsError:
            self._remove(place)
            os.symlink(target, place, dir_fd=self._root)
        self._links[place] = target

    def hard_link(self, name: str, target: str) -> None:
        """Make a second name for a file that came before."""
        try:
            to = self._place(target)
        except UnpackError:
            to = ""
        if not self._is_file(to):
            raise refused(name, f"a hard link to {target!r}, which is no file in it")
        place = self._place(name)
        self._make(place.rpartition("/")[0], name)
        if place == to:
            return
        if place in self._folders:
            raise refused(name, "a folder of that name is there")
        try:
            os.link(to, place, src_dir_fd=self._root, dst_dir_fd=self._root)
        except FileExistsError:
            self._remove(place)
            os.link(to, place, src_dir_fd=self._root, dst_dir_fd=self._root)

    def check_links(self) -> None:
        """Follow each link as the kernel would: none may come by a place outside."""
        for place, target in self._links.items():
            if not self._stays(place):
                raise refused(place, f"a link that leads out, to {target!r}")

    def call_the_top(self, name: str | None) -> None:
        """Give the one folder at the top this name, or with None make it the root."""
        found = os.listdir(self._root)
        if name in found:
            return
        if len(found) != 1 or found[0] not in self._folders:
            raise UnpackError(f"no folder {name or 'at the top'!r} in it")
        if name is not None:
            os.rename(found[0], name, src_dir_fd=self._root, dst_dir_fd=self._root)
            return
        # What leads out of the folder that becomes the root leads out.
        self._links = {place.partition("/")[2]: to for place, to in self._links.items()}
        self.check_links()
        self._inner = f"/{found[0]}"

    def commit(self) -> None:
        """Put the folder in its place, so that it is there after a power cut, too."""
        _sync_file_system(self._name)
        os.chmod(self._root, 0o755)
        os.rename(self._name + self._inner, self.path)
        if not self._inner:
            self._name = ""
        sync_folder(self.path.parent)

    def _create(self) -> tuple[str, int]:
        while True:
            name = f"{self.path.parent}/.{self.path.name}.{os.urandom(4).hex()}.part"
            os.mkdir(name, 0o700)
            # Another's sweep may come between any two of these.
            with suppress(FileNotFoundError):
                root = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(root, fcntl.LOCK_EX)
                if os.fstat(root).st_nlink:
                    return name, root
                os.close(root)

    def _place(self, name: str) -> str:
        """Return the name without what means nothing; refuse what leads elsewhere."""
        if name.startswith("/"):
            raise refused(name, "an absolute name")
        if "\0" in name:
            raise refused(name, "a NUL in its name")
        # Most names are plain, and there are thousands.
        if "//" not in name and "./" not in name and len(name) < _NAME_MAX // 4:
            plain = name.rstrip("/")
            if not plain.endswith("."):
                return plain
        words = [word for word in name.split("/") if word not in ("", ".")]
        if ".." in words:
            raise refused(name, "it leads out ('..')")
        if any(len(os.fsencode(word)) > _NAME_MAX for word in words):
            raise refused(name, f"a name of more than {_NAME_MAX} bytes")
        return "/".join(words)

    def _make(self, place: str, name: str) -> None:
        if place in self._folders:
            return
        self._make(place.rpartition("/")[0], name)
        try:
            os.mkdir(place, 0o755, dir_fd=self._root)
        except FileExistsError:
            kind = "link" if place in self._links else "file"
            raise refused(
                name, f"it would lie in {place!r}, which is a {kind}"
            ) from None
        self._folders.add(place)

    def _is_file(self, place: str) -> bool:
        if place.rpartition("/")[0] not in self._folders or place in self._links:
            return False
        try:
            found = os.stat(place, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode)

    def _remove(self, place: str) -> None:
        os.unlink(place, dir_fd=self._root)
        self._links.pop(place, None)

    def _stays(self, link: str) -> bool:
        at = link.split("/")[:-1]
        todo = self._links[link].split("/")[::-1]
        followed = 1
        while todo:
            word = todo.pop()
            if word in ("", "."):
                continue
            if word == "..":
                if not at:
                    return False
                at.pop()
                continue
            at.append(word)
            target = self._links.get("/".join(at))
            if target is not None:
                followed += 1
                if followed > _MAX_LINKS:
                    return True  # in circles, which leads nowhere
                at.pop()
                todo += target.split("/")[::-1]
        return True


def refused(name: str, why: str) -> UnpackError:
    """Return the error for an entry; its name may hold anything, and be long."""
    shown = name if len(name) <= 200 else f"{name[:150]}...{name[-40:]}"
    return UnpackError(f"refused {shown!r}: {why}", entry=name)


def _sync_file_system(folder: str) -> None:
    """Write all of the file system: quicker than eight thousand times fsync."""
    # To call syncfs from here would take ctypes, and half a megabyte at the peak.
    try:
        ended = subprocess.run(
            ["sync", "-f", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
    except FileNotFoundError:
        os.sync()
        return
    if ended.returncode:
        raise OSError(errno.EIO, ended.stderr.decode(errors="replace").strip())
