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
from forza._options import (
    FLAGS,
    LIMITS,
    OTHERS,
    PLUGINS,
    SETTINGS,
    START,
    rewriting,
    user,
)
from forza.plugins import BUILT_IN, is_known, number, short_name, unknown
from forza.sinks import DEFAULT_HOST, DEFAULT_PORT, check, is_spooled, port, server

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_SHORT = {"-h": "--host", "-p": "--port", "-v": "--version"}
_ALONE = ("help", "version")
_VERBS = ("listen", "flush", "status", "resume")
_SEE = "; try 'forza --help'"


def main() -> None:
    """Run the program. Does not return."""
    argv = sys.argv[1:]
    if argv[:1] and argv[0] in _VERBS and {"--version", "-v"} & set(argv[1:]):
        argv = ["--version"]
    if argv[:1] == ["listen"]:
        from forza.listen import main as listen

        listen(argv[1:])
    if argv[:1] == ["flush"]:
        from forza.flush import main as flush

        flush(argv[1:])
    if argv[:1] in (["status"], ["resume"]):
        from forza._status import tell

        raise SystemExit(tell(argv[0], argv[1:], "forza"))
    try:
        shown = asked_for(argv)
        args, settings = ((), {}) if shown in _ALONE else parse(argv)
    except UsageError as error:
        sys.stderr.write(f"forza: {error}\n")
        bad_port = isinstance(error, PortError)
        raise SystemExit(EXIT_PORT if bad_port else EXIT_USAGE) from None
    if shown == "version":
        from forza._version import __version__

        print(f"forza {__version__}")  # noqa: T201
    elif shown == "help":
        from forza._help import TEXT

        print(TEXT, end="")  # noqa: T201
    elif shown == "check":
        print(*args)  # noqa: T201
    elif settings.pop("keep", False):
        from forza.aeternum import keep

        keep(args, settings, {})
    else:
        from forza._start import start

        start(args, settings)


def asked_for(argv: Sequence[str]) -> str:
    """Return `help`, `version` or `check`, if that is all that is wanted."""
    options, _ = split(argv)
    return next((name for name, _ in options if name in (*_ALONE, "check")), "")


def parse(argv: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the app's own words, and Monitor's arguments. Raises UsageError.

    Two among the arguments are no Monitor's: `keep`, if a keeper is asked for, and
    `signals`, which of those received are passed on as which others.
    """
    options, args = split(argv)
    if not args:
        raise UsageError(f"no command given{_SEE}")
    plugins = _plugins(options)
    settings: dict[str, Any] = {
        "to": urls(options) or ("stdout:",),
        "plugins": plugins,
        "plugin_options": _plugin_options(options, plugins),
        **_settings(options),
    }
    if rewritten := _rewritten(options):
        settings["signals"] = rewritten
    if "spool" in settings and not any(map(is_spooled, settings["to"])):
        raise UsageError(f"--spool is for servers, and none is named{_SEE}")
    if ("keep", "") in options:
        settings["keep"] = True
    return args, settings


def split(argv: Sequence[str]) -> tuple[list[tuple[str, str]], tuple[str, ...]]:
    """Separate forza's options, each with its value, from the app's own words."""
    options: list[tuple[str, str]] = []
    words = list(reversed(argv))
    while words and words[-1].startswith("-"):
        word = words.pop()
        if word == "--":
            break
        long, equals, value = word.partition("=")
        long = _SHORT.get(long, long)
        name = long[2:]
        known = _is_known(name)
        if name in FLAGS:
            if equals:
                raise UsageError(f"option {long} takes no value")
        elif not long.startswith("--") or not (
            known or "-" in name  # --PLUGIN-OPTION, looked at later
        ):
            raise UsageError(f"unknown option {word}{_SEE}")
        elif not equals:
            if words and (not words[-1].startswith("-") or _is_number(words[-1])):
                value = words.pop()
            elif not known:
                raise UsageError(f"unknown option {word}, or no value for it{_SEE}")
            elif name == "host":
                value = DEFAULT_HOST
            else:
                raise UsageError(f"option {word} needs a value{_SEE}")
        if name == "host" and not all(value.split(",")):
            raise UsageError(f"--host must name a host, not '{value}'{_SEE}")
        options.append((name, value))
    return options, tuple(reversed(words))


def _is_known(name: str) -> bool:
    return name in FLAGS or name in SETTINGS or name in START or name in OTHERS


def _is_number(word: str) -> bool:
    return word[1:2].isdigit()


def urls(options: list[tuple[str, str]]) -> tuple[str, ...]:
    """Return the sinks: all hosts together are one, whose servers stand in for each
    other. A port is that of the hosts before it that have none."""
    servers: list[tuple[str, int | None]] = []
    urls: list[str] = []
    last_port = None
    for name, value in options:
        if name == "host":
            servers += map(server, value.split(","))
        elif name == "port":
            last_port = port(value)
            servers = [(host, known or last_port) for host, known in servers]
        elif name == "to":
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
        if name == "plugin":
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
        if _is_known(option):
            continue
        name, _, key = option.partition("-")
        if name not in names or key not in PLUGINS.get(name, (key,)):
            raise UsageError(f"unknown option --{option}{_SEE}")
        found.setdefault(name, {}).setdefault(key, value)
        if key in ("interval", "timeout") and name in BUILT_IN:
            number(name, found[name], key, 0.0)
    if ("legacy-chunks", "") in options:
        found.setdefault("logs", {})["chunks"] = "yes"
    if "logs" in found:
        from forza.plugins.logs import Wanted

        Wanted(found["logs"])
    if start := _start(options):
        if "start" not in names:
            raise UsageError(f"--{min(start)} needs the plugin 'start'")
        found["start"] = {**found.get("start", {}), **start}
    return found


def _start(options: list[tuple[str, str]]) -> dict[str, str]:
    """Return what the plugin `start` is told: sources of readiness are one a line."""
    found: dict[str, str] = {}
    ready = [word for name, word in options if name == "ready"]
    if ready:
        from forza.ready import sources

        found["ready"] = "\n".join(ready)
        sources(found["ready"])
    for name, word in options:
        if name in START and START[name](name, word) != 0:
            found.setdefault(name, word)
        elif name == "bind-any":
            found[name] = "yes"
    return found


def _rewritten(options: list[tuple[str, str]]) -> dict[int, int]:
    """Return which signal is passed on as which other, the first of each counting."""
    given = [word for name, word in options if name == "signal"]
    return dict(reversed([rewriting("signal", word) for word in given]))


def _settings(options: list[tuple[str, str]]) -> dict[str, object]:
    """Return the options that are Monitor's own arguments; the first of each counts."""
    found: dict[str, object] = {}
    limits: dict[str, object] = {}
    for name, value in options:
        key = name.replace("-", "_")
        chosen = limits if name in LIMITS else found
        if name in SETTINGS and key not in chosen:
            chosen[key] = SETTINGS[name](name, value)
        elif name == "user" and "uid" not in found:
            found |= user(name, value)
    if limits:
        from forza._limits import check as check_limits

        check_limits(limits)
        found["limits"] = limits
    return found
