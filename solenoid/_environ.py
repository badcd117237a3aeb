# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make the environment of an app; no value is ever part of a message."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from solenoid._errors import EnvironError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

# Ours, and of no use to an app but to become us: credentials, the way in, and what is
# said to one process only.
_PRIVATE = re.compile(
    r"(AWS|AZURE|GOOGLE|OS|ST|SSH|SUDO|XDG|SYSTEMD|PYTHON|LD|npm)_\w+"
    r"|PYTHON\w+|VIRTUAL_ENV|NOTIFY_SOCKET|LISTEN_\w+|WATCHDOG_\w+|LOGNAME|MAIL"
    r"|INVOCATION_ID|JOURNAL_STREAM|NODE_CHANNEL_FD|OLDPWD|PWD|SHLVL|_"
)
_NAME = re.compile(r"[^\s=\0]+")
_LINE = re.compile(
    r"""[^\S\n]*(?:export[^\S\n]+)?(?P<name>[A-Za-z_][\w.-]*)[^\S\n]*=[^\S\n]*
        (?:'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<plain>[^\n'"#][^\n]*)?)
        [^\S\n]*(?:\#[^\n]*)?(?:\n|\Z)""",
    re.VERBOSE | re.DOTALL,
)
_EMPTY = re.compile(r"[^\S\n]*(?:#[^\n]*)?(?:\n|\Z)")
_COMMENT = re.compile(r"\s+#.*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_json(text: str, source: str = "--app-env") -> dict[str, str]:
    """Return the variables of a JSON object of strings, numbers and booleans.

    Raises EnvironError, which says where but not what: it may be a secret.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise EnvironError(f"{source} is not JSON{where}") from None
    if not isinstance(found, dict):
        raise EnvironError(f"{source} is not a JSON object")
    return {name: _text(name, value, source) for name, value in found.items()}


def parse_env_file(text: str, source: str = "the env file") -> dict[str, str]:
    r"""Return the variables of lines `NAME=value`.

    `export` in front, comments, and quotes, also over several lines, are understood:
    'literal', or "with \n, \t, \" and \\". Nothing is replaced. Raises EnvironError.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        if match := _EMPTY.match(text, at):
            at = match.end()
            continue
        match = _LINE.match(text, at)
        if match is None:
            line = text.count("\n", 0, at) + 1
            raise EnvironError(f"{source}, line {line}: not NAME=value")
        found[match["name"]] = _text(match["name"], _unquoted(match), source)
        at = match.end()
    return found


def parse_environ(text: str, source: str) -> dict[str, str]:
    """Return the variables of either form: what begins with a brace is JSON."""
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return parse_json(text.removeprefix("\ufeff"), source)
    return parse_env_file(text, source)


def app_environ(
    base: Mapping[str, str],
    *given: Mapping[str, str],
    package: str | PathLike[str],
    tmp: str | PathLike[str],
    user: str,
    engines: Iterable[str | PathLike[str]] = (),
) -> dict[str, str]:
    """Return an app's environment.

    That is `base`, solenoid's own, without its credentials; over it those `given`, the
    later first; NODE_ENV, `production` unless it is given; and USER, HOME, TEMP,
    TMPDIR and PATH, whatever was given. PATH begins with the package's
    node_modules/.bin and the `engines`' folders, and goes on as given.
    """
    environ = {k: v for k, v in base.items() if not _PRIVATE.fullmatch(k)}
    for one in given:
        environ.update(one)
    environ.setdefault("NODE_ENV", "production")
    path = [f"{package}/node_modules/.bin", *map(str, engines)]
    if environ.get("PATH"):
        path.append(environ["PATH"])
    return {
        **environ,
        "USER": user,
        "HOME": str(package),
        "TEMP": str(tmp),
        "TMPDIR": str(tmp),
        "PATH": ":".join(path),
    }


def _text(name: str, value: object, source: str) -> str:
    if not _NAME.fullmatch(name):
        raise EnvironError(f"{source}: {name!r} cannot be a variable's name")
    if isinstance(value, bool):  # as node writes it
        return "true" if value else "false"
    if not isinstance(value, str | int | float):
        raise EnvironError(f"{source}: {name} is not a string, number or boolean")
    text = str(value)
    if "\0" in text:
        raise EnvironError(f"{source}: {name} has a NUL character in it")
    if not is_variable(name, text):
        raise EnvironError(f"{source}: {name!r} has half a character in it")
    return text


def is_variable(name: str, value: str) -> bool:
    """Say whether the kernel takes it: JSON has halves of characters, and NULs."""
    try:
        os.fsencode(name + value)
    except UnicodeEncodeError:
        return False
    return bool(_NAME.fullmatch(name)) and "\0" not in value


def _unquoted(match: re.Match[str]) -> str:
    if match["single"] is not None:
        return match["single"]
    if match["double"] is not None:
        return _ESCAPE.sub(lambda m: _ESCAPES.get(m[1], m[1]), match["double"])
    return _COMMENT.sub("", match["plain"] or "").strip()
