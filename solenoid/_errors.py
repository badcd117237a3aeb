# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name what can go wrong on the way to a running app, and whose fault it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# haibu's good idea: an operator is called for the one, the app's owner for the other.
Blame = Literal["user", "system"]


class SolenoidError(Exception):
    """Any failure of solenoid's own.

    `step` names the step that failed; `blame` says who can mend it: the `user` whose
    app it is, or whoever keeps the `system`.
    """

    step = "solenoid"
    blame: Blame = "system"

    def __init__(self, message: str, *, blame: Blame | None = None) -> None:
        super().__init__(message)
        if blame is not None:
            self.blame = blame


class UsageError(SolenoidError):
    """The command line, or what was asked for, makes no sense."""

    step = "usage"
    blame: Blame = "user"


class StorageError(SolenoidError):
    """A storage is unknown, not installed or refuses its options."""

    step = "storage"


class FetchError(SolenoidError):
    """An object could not be fetched; nothing was left at its place."""

    step = "fetch"


class NotFoundError(FetchError):
    """There is no such object."""

    blame: Blame = "user"


class AccessError(FetchError):
    """The storage refuses: no credentials, wrong ones, or a signature too old."""


class DigestError(FetchError):
    """What came is not what was asked for: its SHA-256 is another."""


class TransientError(FetchError):
    """A failure that may pass: storages raise it, and `fetch` tries again.

    `retry_after` is how many seconds the storage has asked us to wait.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ChangedError(FetchError):
    """The object was replaced while it was being fetched."""


class PushError(SolenoidError):
    """A snapshot could not be stored."""

    step = "push"


class UnpackError(SolenoidError):
    """A snapshot is no archive, or holds what is refused: `entry` names it."""

    step = "unpack"
    blame: Blame = "user"

    def __init__(
        self, message: str, *, blame: Blame | None = None, entry: str | None = None
    ) -> None:
        super().__init__(message, blame=blame)
        self.entry = entry


class ActivateError(SolenoidError):
    """A release could not be made the current one."""

    step = "activate"


class CleanError(SolenoidError):
    """A release, or the whole run directory, could not be removed."""

    step = "clean"


class PackageError(SolenoidError):
    """The package does not say, or not clearly, how it is to be started."""

    step = "package"
    blame: Blame = "user"


class EngineError(SolenoidError):
    """No engine fits what the package asks for."""

    step = "engines"
    blame: Blame = "user"


class InstallError(SolenoidError):
    """npm could not install the dependencies; `output` is the end of what it said."""

    step = "install"

    def __init__(
        self, message: str, *, blame: Blame | None = None, output: str = ""
    ) -> None:
        super().__init__(message, blame=blame)
        self.output = output


class PackError(SolenoidError):
    """A folder could not be made into a snapshot."""

    step = "pack"
    blame: Blame = "user"


class ConfigError(SolenoidError):
    """The configuration cannot be read; the message names the file and the key."""

    step = "config"


class EnvironError(SolenoidError):
    """An app's variables cannot be understood; the message has none of their values."""

    step = "environment"
    blame: Blame = "user"


class RestrictError(SolenoidError):
    """An app cannot be given its user, or its files."""

    step = "restrict"


class LockError(SolenoidError):
    """Another solenoid is at work in the run directory."""

    step = "lock"


class AbsentError(SolenoidError):
    """There is no app, or no such release, in the run directory."""

    step = "find"
    blame: Blame = "user"


class LaunchError(SolenoidError):
    """Keeper or monitor could not be started; `output` is what they have said.

    `running` is the release that runs nevertheless.
    """

    step = "launch"

    def __init__(
        self,
        message: str,
        *,
        blame: Blame | None = None,
        output: str = "",
        running: str | None = None,
    ) -> None:
        super().__init__(message, blame=blame)
        self.output = output
        self.running = running


class StartError(LaunchError):
    """The app has not started: `event` is its start event, `output` its last words."""

    step = "start"
    blame: Blame = "user"

    def __init__(
        self,
        message: str,
        *,
        blame: Blame | None = None,
        output: str = "",
        running: str | None = None,
        event: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, blame=blame, output=output, running=running)
        self.event = event


class StopError(SolenoidError):
    """What belongs to an app could not be ended."""

    step = "stop"
