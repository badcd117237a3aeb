# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Try to start a release: forza under aeternum, as the app's user; wait for its word.

Forks with code of its own to run in the child, so it is for a process with one thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solenoid import _privilege
from solenoid._confine import AFTER, WAITING
from solenoid._errors import LaunchError, StartError
from solenoid._keeper import Keeper, read_state
from solenoid._reach import barrier, unreachable
from solenoid._rundir import FORZA_LOG, STATE
from solenoid._theirs import json_object, read_tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from solenoid._errors import Blame
    from solenoid._launch import Launch
    from solenoid._report import Report

# What forza itself takes at most beyond the app's own time.
_SLACK = 10.0
_TICK, _SOON = 0.2, 0.02
_TAIL = 8192
_LINE_MOST = 1 << 20
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CANNOT_CONFINE = 125
_USAGE = 2


@dataclass(frozen=True, slots=True)
class Launched:
    """An app that has started: its keeper's pid, and its start event."""

    keeper: int
    event: dict[str, Any]


class Attempt:
    """A release that is being started: its keeper, and the pipe for forza's word."""

    def __init__(
        self,
        release: Path,
        how: Launch,
        lent: bool,
        after: Path | None = None,
        patience: float = 0.0,
    ) -> None:
        """Start the keeper; `lent` is what `look_ahead` has said.

        With `after`, another keeper's state file, the app itself waits until that one
        has ended, which may take `patience` seconds: `wait_due` returns when all the
        rest is there. Raises LaunchError.
        """
        self.release, self.how = release, how
        self._after = after
        self._data = b""
        self._clear()
        if after is not None:
            # The folder is the app's user's, who may have been there before us.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with open(os.open(release / AFTER, flags), "w") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(str(after))
        self._receiving, sending = os.pipe()
        with suppress(OSError):  # a last word is to find room while nobody reads
            fcntl.fcntl(sending, fcntl.F_SETPIPE_SZ, _LINE_MOST)
        try:
            late = patience + _SLACK if after is not None else 0.0
            self.pid = _detach(release, how, sending, lent, late)
        except BaseException:
            os.close(self._receiving)
            self._clear()
            raise
        finally:
            os.close(sending)
        self._keeper = Keeper.of(release / STATE, self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._receiving)
        if self._keeper is not None:
            self._keeper.close()
        self._clear()

    def wait_due(self, interrupted: Callable[[], bool]) -> None:
        """Wait until the app waits for the other one to end.

        Raises LaunchError or StartError if it does not come to that; nothing of it runs
        then.
        """
        deadline = time.monotonic() + _SLACK
        while not (self.release / WAITING).exists():
            if interrupted() or self._read(_SOON) or time.monotonic() > deadline:
                raise self._given_up(interrupted())

    def result(self, interrupted: Callable[[], bool]) -> Launched:
        """Wait for forza's word. Raises StartError, LaunchError; nothing runs then."""
        seconds = self.how.start_timeout + self.how.stable
        # forza's own time is up first, unless it began before it was the app's turn.
        deadline = time.monotonic() + seconds + (0 if self._after else _SLACK)
        while not self._read(_TICK):
            if interrupted() or time.monotonic() > deadline:
                raise self._given_up(interrupted(), late=True)
        event = self._event()
        if event is None or event.get("metric") != 1:
            raise self._given_up(interrupted())
        return Launched(self.pid, event)

    def _read(self, seconds: float) -> bool:
        """Take what comes within a while; say whether there is no more to come."""
        waiting = select.poll()
        waiting.register(self._receiving, select.POLLIN)
        if waiting.poll(seconds * 1000):
            more = os.read(self._receiving, 1 << 16)
            self._data = (self._data + more)[-_LINE_MOST:]
            # At its end all who had the descriptor have ended, or closed it.
            return not more or self._data.endswith(b"\n")
        return self._keeper is None or not self._keeper.lives()

    def _event(self) -> dict[str, Any] | None:
        return json_object(self._data) or None

    def _given_up(self, interrupted: bool, *, late: bool = False) -> LaunchError:
        """End it, and return why."""
        if self._keeper is not None:
            self._keeper.stop(self.how.patience)
        if interrupted:
            return LaunchError("told to end", blame="user")
        while not self._read(_TICK):  # its last words
            pass
        return failed(self.release, self.how, self._event(), late=late)

    def _clear(self) -> None:
        for name in (AFTER, WAITING):
            (self.release / name).unlink(missing_ok=True)


def look_ahead(release: Path, how: Launch, told: Report) -> bool:
    """See what would be in the way; return whether a privilege is needed to read.

    Raises LaunchError.
    """
    user = how.user
    if os.geteuid() == 0 and user.uid == 0:
        raise LaunchError("no app runs as root")
    package = str(release / "package")
    if closed := unreachable(user, [f"{package}/."]):
        raise LaunchError(
            f"user {user.name} may not enter {barrier(closed, user)}:"
            " choose another --run-dir"
        )
    forza, *others = (_place_of(name) for name in ("forza", "uvloop", "orjson"))
    own = [sys.executable, os.__file__, __file__, forza, *others]
    closed = unreachable(user, own)
    if closed is None:
        return False
    wall = barrier(closed, user)
    if how.policy.level == "strict" or not _privilege.can_read_all():
        raise LaunchError(
            f"user {user.name} may not read {wall}, where forza or its Python is:"
            " install them where everybody may, as /opt"
        )
    told.warn(
        f"user {user.name} may not read {wall}, where forza or its Python is: keeper"
        " and monitor get CAP_DAC_READ_SEARCH for that, the app does not; installed"
        " where everybody may read, as in /opt, it would take none"
    )
    if unreachable(user, [forza]):
        told.warn("nor can the app load forza's bind hook: no port is moved for it")
    return True


def _place_of(name: str) -> str:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise LaunchError(f"{name} is not installed beside solenoid")
    return found.origin


def _detach(release: Path, how: Launch, ready: int, lent: bool, late: float) -> int:
    """Start the keeper, and return its pid."""
    root = os.geteuid() == 0
    become = (lambda: _privilege.become(how.user, lent)) if root else None
    try:
        ended = subprocess.run(
            how.command(release, ready, late),
            cwd=release / "package",
            env={"PATH": _PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=(ready,),
            preexec_fn=become,
            umask=0o077,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise LaunchError(f"cannot start the keeper: {error}") from error
    if ended.returncode or not ended.stdout.strip().isdigit():
        said = ended.stderr.strip()
        last = said.splitlines()[-1] if said else f"status {ended.returncode}"
        # What it does not understand are options that were given to be handed on.
        blame: Blame = "user" if ended.returncode == _USAGE else "system"
        raise LaunchError(f"cannot start the keeper: {last}", output=said, blame=blame)
    return int(ended.stdout)


def failed(
    release: Path, how: Launch, event: Mapping[str, Any] | None, *, late: bool = False
) -> LaunchError:
    """Return the error for a start event that says no, or for none at all.

    `late`: it is of an app that was ended, since its time was up.
    """
    if event is None:
        said = read_tail(release / FORZA_LOG, _TAIL).decode("utf-8", "replace").strip()
        last = f": {said.splitlines()[-1]}" if said else ""
        return LaunchError(
            f"the monitor has ended before the app had started{last}", output=said
        )
    meta, last_end = event.get("meta"), read_state(release / STATE)[0].get("last")
    reason = meta.get("reason") if isinstance(meta, dict) else None
    if not isinstance(last_end, dict):
        last_end = {}
    code, number = last_end.get("code"), last_end.get("signal")
    how_ended = f"status {code}" if code is not None else f"signal {number}"
    blame: Blame = "user"
    if late or reason == "timeout":
        text = f"the app had not started after {how.start_timeout:g} s"
    elif reason == "unstable":
        text = f"the app ended within {how.stable:g} s of its start, with {how_ended}"
    else:
        text = f"the app ended before it had started, with {how_ended}"
        blame = "system" if code == _CANNOT_CONFINE else "user"
    output = str(event.get("description") or "")
    return StartError(text, blame=blame, output=output, event=event)
