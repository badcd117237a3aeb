# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Be the process that makes a switch: one release ends and another starts, or back.

    python -I -m solenoid._switcher < PLAN

Tells how it goes on standard output, a line of JSON each; see _switch.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from solenoid._attempt import Attempt, Launched, look_ahead
from solenoid._errors import LaunchError, SolenoidError, StopError
from solenoid._launch import Launch
from solenoid._pidfile import write_pidfile
from solenoid._record import read_record, records, write_record
from solenoid._release import move_link
from solenoid._report import Silence
from solenoid._rundir import STATE, RunDir
from solenoid._stop import keeper_of, patience_for, stop_release

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from solenoid._app import Order
    from solenoid._keeper import Keeper
    from solenoid._record import Record


def main() -> None:
    """Make the switch that standard input describes; tell how it goes, as JSON."""
    plan = json.loads(sys.stdin.readline())
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    run_dir = RunDir(plan["run_dir"])
    try:
        made = _Switch(run_dir, plan["release"], asked)
        done = made.make(Launch.from_json(plan["launch"]), plan["order"])
        _tell(event=done.event, keeper=done.keeper)
    except SolenoidError as error:
        names = ("output", "event", "running")
        _tell(
            step=error.step,
            blame=error.blame,
            error=str(error),
            **{name: getattr(error, name, None) for name in names},
        )
    except OSError as error:
        _tell(step="launch", blame="system", error=str(error))


def _tell(**what: object) -> None:
    # Nobody may listen any more, and it goes on all the same.
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(what).encode() + b"\n")


class _Told:
    """A report that goes to whoever has asked for the switch."""

    def info(self, text: str, /) -> None:
        """Hand it on."""
        _tell(info=text)

    def warn(self, text: str, /) -> None:
        """Hand it on."""
        _tell(warn=text)

    def progress(self, what: str, /) -> None:
        """Want to hear nothing."""

    def activity(self, what: str, /) -> None:
        """Want to hear nothing."""


class _Switch:
    """From one release to another, with all that runs in a run directory in view."""

    def __init__(self, run_dir: RunDir, release: str, asked: Sequence[int]) -> None:
        self.run_dir = run_dir
        self.release = release
        self._asked = asked
        self._told = _Told()
        # As they were, the one that is to be started, perhaps again, included.
        self._records = {record.id: record for record in records(run_dir)}

    def make(self, how: Launch, order: Order) -> Launched:
        """Make the switch, or go back and raise what was in the way."""
        before = read_record(self.run_dir, self.release)
        # Should we be killed, the next one sees in it whom to end.
        write_record(self.run_dir, replace(before, launch=how.to_json()))
        found = self._running()
        running = found[:1]
        self._stop(found[1:])  # what a solenoid has left that was killed
        try:
            done = self._launch(how, running if order == "stop-first" else [])
            self._commit(before, how, done)
        except StopError:  # the old one is neither gone nor well: leave it at that
            self._stop_new()
            raise
        except Exception as error:  # whatever it is, the old release shall run
            self._stop_new()
            failed = replace(before, launch=before.launch or how.to_json())
            write_record(self.run_dir, replace(failed, failed=str(error)))
            raise self._gone_back(running, error) from error
        self._stop([name for name in running if name != self.release])
        return done

    def _launch(self, how: Launch, first: Sequence[str]) -> Launched:
        """Start the new release; those that are to end first do so in between."""
        self._told.info(f"starting release {self.release} as {how.user.name}")
        folder = self.run_dir.release(self.release)
        # Once the first release of all has passed it was said, and taken as it is.
        is_news = not any(record.passed for record in self._records.values())
        lent = look_ahead(folder, how, self._told if is_news else Silence())
        after, patience = None, 0.0
        if self._can_wait(how, first):
            after = self.run_dir.release(first[0]) / STATE
            patience = patience_for(self._records[first[0]])
        else:
            self._stop({self.release, *first})
        with Attempt(folder, how, lent, after, patience) as attempt:
            if after is not None:
                attempt.wait_due(self._is_told_to_end)
                self._stop(first)
            done = attempt.result(self._is_told_to_end)
            if self._is_told_to_end():  # it is as good as if it had not started
                raise LaunchError("told to end", blame="user")
            return done

    def _can_wait(self, how: Launch, first: Sequence[str]) -> bool:
        """Say whether the new app can wait, ready, for the old one's end.

        There has to be one, of the same user, who alone may see it; and nothing may
        take the old one for the new one meanwhile.
        """
        if len(first) != 1 or first[0] == self.release or how.is_probed:
            return False
        launch = self._records[first[0]].launch or {}
        uid: object = launch.get("user", {}).get("uid")
        return uid == how.user.uid

    def _is_told_to_end(self) -> bool:
        return bool(self._asked)

    def _running(self) -> list[str]:
        """Return the releases that have a keeper: one, unless somebody was killed."""
        found = []
        for name in self._records:
            if (keeper := self._keeper(name)) is not None:
                keeper.close()
                found.append(name)
        # The current one is what there is to go back to.
        return sorted(found, key=lambda name: name != self.run_dir.current())

    def _keeper(self, name: str) -> Keeper | None:
        return keeper_of(self.run_dir, self._records[name])

    def _commit(self, before: Record, how: Launch, done: Launched) -> None:
        move_link(self.run_dir.path, self.release)
        write_pidfile(how.pidfile, done.keeper)
        passed = replace(before, launch=how.to_json(), keeper=done.keeper)
        passed = replace(passed, passed=time.time(), failed=None)
        write_record(self.run_dir, passed)
        for path in self.run_dir.release(self.release).glob("environ.*"):
            if path.name != how.environ:
                path.unlink()

    def _stop(self, names: Iterable[str]) -> None:
        """End releases that were there before, as they were started."""
        for name in names:
            if stop_release(self.run_dir, self._records[name]) is not None:
                self._told.info(f"stopped release {name}")

    def _stop_new(self) -> None:
        stop_release(self.run_dir, read_record(self.run_dir, self.release))

    def _gone_back(self, running: Sequence[str], error: Exception) -> LaunchError:
        """Have the release of before run; return the error that says so."""
        if not isinstance(error, LaunchError):
            expected = isinstance(error, SolenoidError | OSError)
            kind = "" if expected else f"{type(error).__name__}: "
            error = LaunchError(f"{kind}{error}")
        for name in running[:1]:
            if self.run_dir.current() == self.release != name:  # it had come so far
                move_link(self.run_dir.path, name)
            if (keeper := self._keeper(name)) is not None:  # it was never ended
                keeper.close()
                error.running = name
                return error
            how = Launch.from_json(self._records[name].launch or {})
            self._asked = ()  # going back is what was asked for
            self._told.info(f"going back to release {name}")
            folder = self.run_dir.release(name)
            try:
                lent = look_ahead(folder, how, Silence())
                with Attempt(folder, how, lent) as attempt:
                    done = attempt.result(self._is_told_to_end)
            except LaunchError as reason:
                self._told.info(f"release {name} does not start either: {reason}")
                return error
            error.running = name
            try:
                write_pidfile(how.pidfile, done.keeper)
                again = replace(read_record(self.run_dir, name), keeper=done.keeper)
                write_record(self.run_dir, again)
            except OSError as reason:
                self._told.warn(f"cannot write {how.pidfile}: {reason.strerror}")
        return error


if __name__ == "__main__":
    main()
