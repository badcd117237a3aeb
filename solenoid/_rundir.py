# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Know where everything is in a run directory, and let one solenoid at it at a time."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._errors import AbsentError, LockError, RestrictError
from solenoid._release import current

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the release's folder, which is the app's; in RUN_DIR a link leads to the current's.
START_LOG, FORZA_LOG, STATE = "start.log", "forza.log", "aeternum.state"
EVENTS = "events.ndjson"
_LINKED = (START_LOG, FORZA_LOG, STATE, EVENTS)
# A deployer's, from another machine (solenoid.drones): the lock that it holds while it
# is at work, and what it has sent.
DEPLOY_LOCK, INCOMING = "deploy.lock", ".incoming"


class RunDir:
    """The run directory of one app.

    releases/ID/package, releases/ID/.tmp   the app's own
    releases/ID/{start.log,forza.log,...}   its keeper's and its monitor's
    releases/ID.json                        what is known of it: see _record
    snapshot -> releases/ID                 the current one
    start.log, forza.log, ...               links into the current one
    lock, solenoid.log, spool/
    deploy.lock, .incoming/                 a deployer's, if there is one
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Not resolved: whoever has made a link of it may move it.
        self.path = Path(os.path.abspath(path))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def releases(self) -> Path:
        """Return where the releases are."""
        return self.path / "releases"

    @property
    def log(self) -> Path:
        """Return solenoid's own log."""
        return self.path / "solenoid.log"

    @property
    def lock(self) -> Path:
        """Return the file that one solenoid at a time holds."""
        return self.path / "lock"

    def own(self) -> list[Path]:
        """Return what may be here of ours, but for the lock."""
        names = (*_LINKED, "app.pid", "snapshot", "snapshot.tgz", "spool")
        found = [self.path / name for name in names]
        return [
            *found,
            self.log,
            self.log.with_name(f"{self.log.name}.1"),
            self.releases,
        ]

    def deployers(self) -> list[Path]:
        """Return what may be here of a deployer's."""
        return [self.path / INCOMING, self.path / DEPLOY_LOCK]

    def holds_something(self) -> bool:
        """Say whether any of that is there."""
        return any(map(os.path.lexists, (*self.own(), *self.deployers())))

    def release(self, name: str) -> Path:
        """Return the folder of a release."""
        return self.releases / name

    def current(self) -> str | None:
        """Return the current release's name."""
        return current(self.path)

    def must_exist(self) -> None:
        """Raise AbsentError where no app has ever been, or what `check` does."""
        try:
            there = self.releases.is_dir()
        except OSError as error:
            raise RestrictError(
                f"cannot look into {self.path}: {error.strerror}", blame="user"
            ) from error
        if not there:
            raise AbsentError(f"no app in {self.path}")
        self.check()

    def make(self) -> None:
        """Make what is missing. Raises OSError, or what `check` does."""
        above = (self.path, *self.path.parents)
        for path in reversed([one for one in above if not one.exists()]):
            _open_folder(path)
        self.check()
        if not self.releases.is_dir():
            _open_folder(self.releases)
        for name in _LINKED:
            link = self.path / name
            if not os.path.lexists(link):
                link.symlink_to(Path("snapshot", name))

    def check(self) -> None:
        """Raise RestrictError where others could make us, perhaps root, do things."""
        about = self.path.stat()
        if about.st_uid != os.geteuid():
            raise RestrictError(
                f"{self.path} belongs to user {about.st_uid}: run solenoid as that"
                " user, give it away, or choose another --run-dir",
                blame="user",
            )
        if about.st_mode & 0o002:
            raise RestrictError(
                f"{self.path} can be written by everybody, who could make us do things:"
                " chmod o-w, or choose another --run-dir",
                blame="user",
            )

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Be the only solenoid at work here; yields the lock's descriptor.

        Whoever inherits it is at work, too. Raises LockError.
        """
        path = self.lock
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise LockError(f"cannot open {path}: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(descriptor, 32, 0).decode(errors="replace")
                raise LockError(
                    f"another solenoid is at work in {self.path} (pid {pid})"
                ) from None
            if not os.fstat(descriptor).st_nlink:
                raise LockError(f"another solenoid has just removed {self.path}")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)


def _open_folder(path: Path) -> None:
    """Make a folder that the app's user may enter, whatever our umask is."""
    path.mkdir(exist_ok=True)
    path.chmod(0o755)
