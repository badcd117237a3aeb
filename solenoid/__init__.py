# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Bring an app from a storage to a running, watched and restricted process.

    fetched = await solenoid.fetch("s3://snapshots/shop-1.2.0.tgz", "snapshot.tgz")

Every step is a function of its own. Importing this package imports nothing else; a
name is loaded when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from solenoid._app import App
    from solenoid._clean import clean
    from solenoid._config import Config, Instrument, Source, read_config
    from solenoid._engines import Engine, EngineSource, find_engines
    from solenoid._environ import app_environ, parse_env_file, parse_environ, parse_json
    from solenoid._errors import (
        AbsentError,
        AccessError,
        ActivateError,
        ChangedError,
        CleanError,
        ConfigError,
        DigestError,
        EngineError,
        EnvironError,
        FetchError,
        InstallError,
        LaunchError,
        LockError,
        NotFoundError,
        PackageError,
        PackError,
        PushError,
        RestrictError,
        SolenoidError,
        StartError,
        StopError,
        StorageError,
        TransientError,
        UnpackError,
        UsageError,
    )
    from solenoid._fetch import Fetched, fetch
    from solenoid._install import install
    from solenoid._launch import Launch
    from solenoid._pack import Packed, pack
    from solenoid._package import Package, Start, read_package
    from solenoid._policy import Policy
    from solenoid._push import Pushed, push
    from solenoid._record import Record
    from solenoid._release import activate, current
    from solenoid._releases import (
        Release,
        find_release,
        previous_good,
        prune,
        releases,
    )
    from solenoid._restart import restart
    from solenoid._restrict import (
        Measure,
        User,
        ensure_user,
        explain,
        restrict_filesystem,
        user_of,
    )
    from solenoid._start import download, start, start_again
    from solenoid._status import Status, status
    from solenoid._stop import Stopped, stop
    from solenoid._switch import Switched
    from solenoid._unpack import Limits, Unpacked, unpack

__all__ = (
    "AbsentError",
    "AccessError",
    "ActivateError",
    "App",
    "ChangedError",
    "CleanError",
    "Config",
    "ConfigError",
    "DigestError",
    "Engine",
    "EngineError",
    "EngineSource",
    "EnvironError",
    "FetchError",
    "Fetched",
    "InstallError",
    "Instrument",
    "Launch",
    "LaunchError",
    "Limits",
    "LockError",
    "Measure",
    "NotFoundError",
    "PackError",
    "Package",
    "PackageError",
    "Packed",
    "Policy",
    "PushError",
    "Pushed",
    "Record",
    "Release",
    "RestrictError",
    "SolenoidError",
    "Source",
    "Start",
    "StartError",
    "Status",
    "StopError",
    "Stopped",
    "StorageError",
    "Switched",
    "TransientError",
    "UnpackError",
    "Unpacked",
    "UsageError",
    "User",
    "activate",
    "app_environ",
    "clean",
    "current",
    "download",
    "ensure_user",
    "explain",
    "fetch",
    "find_engines",
    "find_release",
    "install",
    "pack",
    "parse_env_file",
    "parse_environ",
    "parse_json",
    "previous_good",
    "prune",
    "push",
    "read_config",
    "read_package",
    "releases",
    "restart",
    "restrict_filesystem",
    "start",
    "start_again",
    "status",
    "stop",
    "unpack",
    "user_of",
)

_HOMES = {
    "AbsentError": "_errors",
    "AccessError": "_errors",
    "ActivateError": "_errors",
    "App": "_app",
    "ChangedError": "_errors",
    "CleanError": "_errors",
    "Config": "_config",
    "ConfigError": "_errors",
    "DigestError": "_errors",
    "Engine": "_engines",
    "EngineError": "_errors",
    "EngineSource": "_engines",
    "EnvironError": "_errors",
    "FetchError": "_errors",
    "Fetched": "_fetch",
    "InstallError": "_errors",
    "Instrument": "_config",
    "Launch": "_launch",
    "LaunchError": "_errors",
    "Limits": "_unpack",
    "LockError": "_errors",
    "Measure": "_restrict",
    "NotFoundError": "_errors",
    "PackError": "_errors",
    "Package": "_package",
    "PackageError": "_errors",
    "Packed": "_pack",
    "Policy": "_policy",
    "PushError": "_errors",
    "Pushed": "_push",
    "Record": "_record",
    "Release": "_releases",
    "RestrictError": "_errors",
    "SolenoidError": "_errors",
    "Source": "_config",
    "Start": "_package",
    "StartError": "_errors",
    "Status": "_status",
    "StopError": "_errors",
    "Stopped": "_stop",
    "StorageError": "_errors",
    "Switched": "_switch",
    "TransientError": "_errors",
    "UnpackError": "_errors",
    "Unpacked": "_unpack",
    "UsageError": "_errors",
    "User": "_restrict",
    "activate": "_release",
    "app_environ": "_environ",
    "clean": "_clean",
    "current": "_release",
    "download": "_start",
    "ensure_user": "_restrict",
    "explain": "_restrict",
    "fetch": "_fetch",
    "find_engines": "_engines",
    "find_release": "_releases",
    "install": "_install",
    "pack": "_pack",
    "parse_env_file": "_environ",
    "parse_environ": "_environ",
    "parse_json": "_environ",
    "previous_good": "_releases",
    "prune": "_releases",
    "push": "_push",
    "read_config": "_config",
    "read_package": "_package",
    "releases": "_releases",
    "restart": "_restart",
    "restrict_filesystem": "_restrict",
    "start": "_start",
    "start_again": "_start",
    "status": "_status",
    "stop": "_stop",
    "unpack": "_unpack",
    "user_of": "_restrict",
}


if not TYPE_CHECKING:  # where a slip in a name shall be found

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'solenoid' has no attribute '{name}'")
        home = __import__(f"solenoid.{_HOMES[name]}", None, None, [name])
        value: object = getattr(home, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
