# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Name the ways in which an app says, or shows, that it has started.

Each has a module of its own, imported only if it is asked for.
"""

from __future__ import annotations

from forza._errors import PluginError, UsageError
from forza.sinks import server

# A listening socket of the app's processes, or `port=N` on descriptor 3.
DEFAULT = "port"
_FORMS = (
    "port, fd, ipc, notify[=PATH], http://HOST:PORT/PATH, tcp://HOST:PORT, "
    "log=REGEX, exec=COMMAND or none"
)
_HTTP = 80
_LONGEST_PATH = 107  # of a unix socket


def sources(text: str) -> list[tuple[str, str]]:
    """Return the kind and the value of each source, of which there is one a line.

    Raises PluginError.
    """
    found = [_source(line) for line in text.split("\n")]
    if len(found) > 1 and ("none", "") in found:
        raise PluginError("--ready none cannot be one of several")
    return found


def _source(line: str) -> tuple[str, str]:
    for kind in "http", "tcp":
        if line.startswith(f"{kind}://"):
            value = line[len(kind) + 3 :]
            address(kind, value)
            return kind, value
    kind, equals, value = line.partition("=")
    bare = kind in ("port", "fd", "ipc", "none") and not equals
    valued = kind in ("log", "exec") and value and "\0" not in value
    if kind == "log" and valued:
        from forza.ready.log import pattern

        pattern(value)
    elif kind == "notify" and (value or not equals):
        if value and not (value[0] == "/" and len(value.encode()) <= _LONGEST_PATH):
            raise PluginError(
                f"--ready notify={value}: it must be an absolute path of at most "
                f"{_LONGEST_PATH} bytes"
            )
    elif not bare and not valued:
        raise PluginError(f"--ready must be {_FORMS}, not '{line}'")
    return kind, value


def address(kind: str, value: str) -> tuple[str, int]:
    """Return the host and the port of `HOST:PORT[/PATH]`. Raises PluginError."""
    authority, slash, _ = value.partition("/")
    right = value.isprintable() and " " not in value and authority[:1] not in ("", ":")
    right = right and authority.count("[") == authority.count("]")
    try:
        host, port = server(authority)
    except UsageError as error:
        raise PluginError(f"--ready {kind}://{value}: {error}") from error
    port = port or (_HTTP if kind == "http" else 0)
    if not right or not port or (slash and kind == "tcp"):
        raise PluginError(f"--ready {kind}://{value}: it must name a host and a port")
    return host, port
