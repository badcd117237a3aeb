# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand the command line."""

from __future__ import annotations

import sys

from forza._errors import (
    EXIT_PORT,
    EXIT_USAGE,
    PluginError,
    PortError,
    UsageError,
)
from forza.plugins import BUILT_IN, is_known, number, short_name, unknown
from forza.sinks import DEFAULT_HOST, DEFAULT_PORT, check, port, server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_SHORT = {"-h": "--host", "-p": "--port", "-v": "--version"}
_WITHOUT_VALUE = ("--help", "--keep", "--legacy-chunks", "--version")
_KNOWN = (
    "app-name",
    "app-user",
    "buffer",
    "flush-timeout",
    "grace",
    "host",
    "hostname",
    "ipc",
    "plugin",
    "port",
    "start-log",
    "to",
)
# What the seven plugins understand, so that a slip is found before anything runs.
_PLUGIN_OPTIONS = {
    "cpu": ("interval",),
    "logs": ("chunks",),
    "process": (),
    "mem": ("interval",),
    "heartbeat": ("interval",),
    "uptime": ("interval",),
    "start": ("timeout",),
}
_SIZES = {"": 1, "K": 1024, "M": 1024 * 1024}
_IPC = {"auto": None, "yes": True, "no": False}
_SEE = "; try 'forza --help'"
_SMALLEST_BUFFER = 64 * 1024


def main() -> None:
    """Run the program: the entry point of the script `forza`. Does not return."""
    argv = sys.argv[1:]
    try:
        shown = asked_for(argv)
        args, settings = ((), {}) if shown else parse(argv)
    except UsageError as error:
        sys.stderr.write(f"forza: {error}\n")
        bad_port = isinstance(error, PortError)
        raise SystemExit(EXIT_PORT if bad_port else EXIT_USAGE) from None
    if shown == "--version":
        from forza._version import __version__

        print(f"forza {__version__}")  # noqa: T201
    elif shown == "--help":
        from forza._help import TEXT

        print(TEXT, end="")  # noqa: T201
    elif settings.pop("keep", False):
        from forza.aeternum import keep

        keep(args, settings, {})
    else:
        from forza._program import start

        start(args, settings)


def asked_for(argv: Sequence[str]) -> str:
    """Return `--help` or `--version`, if that is all that is wanted."""
    options, _ = _split(argv)
    return next((name for name, _ in options if name in ("--help", "--version")), "")


def parse(argv: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the app's own words, and Monitor's arguments. Raises UsageError."""
    options, args = _split(argv)
    if not args:
        raise UsageError(f"no command given{_SEE}")
    plugins = _plugins(options)
    settings = {
        "to": _urls(options) or ("stdout:",),
        "plugins": plugins,
        "plugin_options": _plugin_options(options, plugins),
        **_settings(options),
    }
    return args, settings


def _split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Separate forza's options, each with its value, from the app's own words."""
    options: list[tuple[str, str]] = []
    words = list(reversed(argv))
    while words and words[-1].startswith("-"):
        word = words.pop()
        if word == "--":
            break
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name in _WITHOUT_VALUE:
            if equals:
                raise UsageError(f"option {name} takes no value")
        elif not name.startswith("--") or not (
            name[2:] in _KNOWN or "-" in name[2:]  # --PLUGIN-OPTION, looked at later
        ):
            raise UsageError(f"unknown option {word}{_SEE}")
        elif not equals:
            if words and (not words[-1].startswith("-") or _is_number(words[-1])):
                value = words.pop()
            elif name[2:] not in _KNOWN:
                raise UsageError(f"unknown option {word}, or no value for it{_SEE}")
            elif name != "--host":  # which alone means this machine
                raise UsageError(f"option {word} needs a value{_SEE}")
        options.append((name, value))
    return options, tuple(reversed(words))


def _is_number(word: str) -> bool:
    return word[1:2].isdigit()


def _urls(options: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return the sinks: all hosts together are one, whose servers stand in for each
    other. A port is that of the hosts before it that have none."""
    servers: list[tuple[str, int | None]] = []
    urls: list[str] = []
    last_port = None
    for name, value in options:
        if name == "--host":
            servers += map(server, value.split(","))
        elif name == "--port":
            last_port = port(value)
            servers = [(host, known or last_port) for host, known in servers]
        elif name == "--to":
            check(value)
            urls.append(value)
    if last_port and not servers:
        servers.append((DEFAULT_HOST, last_port))
    last_port = last_port or DEFAULT_PORT
    if servers:
        hosts = (
            f"[{host}]:{known or last_port}"
            if ":" in host
            else f"{host}:{known or last_port}"
            for host, known in servers
        )
        urls.insert(0, "tcp:" + ",".join(hosts))
    return tuple(urls)


def _plugins(options: list[tuple[str, str]]) -> tuple[str, ...]:
    plugins: list[str] = []
    for name, value in options:
        if name == "--plugin":
            if not is_known(value):
                raise PluginError(unknown(value))
            plugins += BUILT_IN if value == "all" else (value,)
    return tuple(plugins) or tuple(BUILT_IN)


def _plugin_options(
    options: list[tuple[str, str]], plugins: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Return, for each plugin, what `--NAME-OPTION VALUE` says about it."""
    names = {short_name(plugin) for plugin in plugins}
    found: dict[str, dict[str, str]] = {}
    for option, value in options:
        if option[2:] in _KNOWN or option in _WITHOUT_VALUE:
            continue
        name, _, key = option[2:].partition("-")
        if name not in names or key not in _PLUGIN_OPTIONS.get(name, (key,)):
            raise UsageError(f"unknown option {option}{_SEE}")
        found.setdefault(name, {}).setdefault(key, value)
        if key in ("interval", "timeout") and name in BUILT_IN:
            number(name, found[name], key, 0.0)
    if ("--legacy-chunks", "") in options:
        found["logs"] = {"chunks": "yes"}
    return found


def _settings(options: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the options that are Monitor's own arguments; the first of each counts."""
    given: dict[str, str] = {}
    for name, value in options:
        given.setdefault(name[2:], value)
    settings: dict[str, Any] = {"keep": True} if "keep" in given else {}
    settings |= {
        name.replace("-", "_"): given[name]
        for name in ("hostname", "app-user", "app-name", "start-log")
        if name in given
    }
    for name in ("grace", "flush-timeout"):
        if name in given:
            settings[name.replace("-", "_")] = _seconds(name, given[name])
    if "buffer" in given:
        settings["buffer"] = _size("buffer", given["buffer"])
    if "ipc" in given:
        if given["ipc"] not in _IPC:
            raise UsageError(f"--ipc must be auto, yes or no, not '{given['ipc']}'")
        settings["ipc"] = _IPC[given["ipc"]]
    return settings


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"--{name} must be a number of seconds, not '{text}'")
    return value


def _size(name: str, text: str) -> int:
    digits = text.rstrip("kKmM")
    factor = _SIZES.get(text[len(digits) :].upper())
    plain = digits.isascii() and digits.isdigit() and len(digits) < 16
    if factor is None or not plain:
        raise UsageError(
            f"--{name} must be a number of bytes, as 65536, 64K or 1M, not '{text}'"
        )
    size = int(digits) * factor
    if size < _SMALLEST_BUFFER:
        raise UsageError(f"--{name} must be at least 64K, not '{text}'")
    return size
