# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand aeternum's command line: keep a command running, detached or not."""

from __future__ import annotations

import os
import sys
from errno import EACCES, EISDIR

from forza import _state
from forza._errors import (
    EXIT_HELD,
    EXIT_PORT,
    EXIT_SETUP,
    EXIT_USAGE,
    PortError,
    SpawnError,
    UsageError,
)
from forza._policy import RESTARTS, patience
from forza._unit import INITS, unit
from forza.cli import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

KEEPING = ("start", "run", "unit")
TELLING = ("status", "resume", "restart", "stop")
_SHORT = {
    "-o": "--stdout",
    "-e": "--stderr",
    "-i": "--stdin",
    "-p": "--pidfile",
    "-j": "--json",
}
_SEE = "; try 'aeternum --help'"


def main() -> None:
    """Run the program: the entry point of the script `aeternum`. Does not return."""
    argv = sys.argv[1:]
    if "--help" in argv[:2]:
        from forza._aeternum_help import TEXT

        print(TEXT, end="")  # noqa: T201
        return
    if {"--version", "-v"} & set(argv[:2]):
        from forza._version import __version__

        print(f"aeternum {__version__}")  # noqa: T201
        return
    try:
        if argv[:1] and argv[0] in TELLING:
            from forza._status import tell

            raise SystemExit(tell(argv[0], argv[1:]))
        init = "--systemd"
        if argv[:1] == ["unit"] and argv[1:2] and argv[1] in INITS:
            init = argv.pop(1)
        action, options, args = _understand(argv)
        words, settings = parse(args[1:]) if _is_forza(args) else (args, None)
        if action == "unit":
            name = os.path.basename(options.get("state", args[-1]))
            name = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
            grace = patience(settings)
            name = name.removesuffix(".state")
            text = unit(init, argv[1:], name, grace, words[0])
            print(text, end="")  # noqa: T201
            return
        _check_files(options)
        if action == "start":
            _check_command(words, settings)
        if settings is not None:
            settings.pop("keep", None)  # by whom else
        if path := options.get("state"):
            options["lock"] = _state.hold(path)
    except UsageError as error:
        sys.stderr.write(f"aeternum: {error}\n")
        bad_port = isinstance(error, PortError)
        raise SystemExit(EXIT_PORT if bad_port else EXIT_USAGE) from None
    except SpawnError as error:
        sys.stderr.write(f"aeternum: {error.strerror}\n")
        raise SystemExit(error.code) from None
    except _state.HeldError as error:
        sys.stderr.write(f"aeternum: another keeper holds {error}\n")
        raise SystemExit(EXIT_HELD) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        sys.stderr.write(f"aeternum: cannot open {error.filename}: {reason}\n")
        raise SystemExit(EXIT_SETUP) from None
    _block_signals()
    if action == "start" and (pid := _detach()):
        print(pid, flush=True)  # noqa: T201
    else:
        keep(words, settings, options)


def keep(
    args: Sequence[str], settings: dict[str, Any] | None, options: dict[str, Any]
) -> NoReturn:
    """Become the keeper."""
    _block_signals()
    from forza import _keeper

    _keeper.keep(tuple(args), settings, options)


def _understand(argv: Sequence[str]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Return start or run, the keeper's options, and the command's words."""
    if not argv or argv[0] not in KEEPING:
        *most, last = (*KEEPING, *TELLING)
        got = f", not '{argv[0]}'" if argv else ""
        known = f"{', '.join(most)} or {last}"
        raise UsageError(f"the first word must be {known}{got}{_SEE}")
    options: dict[str, Any] = {}
    words = list(reversed(argv[1:]))
    while words and words[-1].startswith("-"):
        word = words.pop()
        if word == "--":
            break
        name, equals, value = word.partition("=")
        name = _SHORT.get(name, name)
        if name == "--json":
            options["json"] = True
            continue
        understand = _OPTIONS.get(name)
        if understand is None:
            raise UsageError(f"unknown option {word}{_SEE}")
        if not equals:
            if not words or words[-1] == "--":
                raise UsageError(f"option {word} needs a value{_SEE}")
            value = words.pop()
        options[name[2:].replace("-", "_")] = understand(name, value)
    if not words:
        raise UsageError(f"no command given{_SEE}")
    if "stderr" in options and "stdout" not in options:
        raise UsageError(f"-e goes with -o only{_SEE}")
    if "pidfile" in options:
        options.setdefault("state", _state.beside(options["pidfile"]))
    args = tuple(reversed(words))
    return argv[0], options, _without_python(args)


def _path(name: str, value: str) -> str:
    # The detached keeper may be in another directory.
    return os.path.abspath(value)


def _milliseconds(name: str, value: str) -> float:
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"{name} must be milliseconds, not '{value}'")
    return int(value) / 1000


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UsageError(f"{name} must be a number of seconds, not '{value}'")
    return seconds


def _restart(name: str, value: str) -> str:
    if value not in RESTARTS:
        raise UsageError(f"{name} must be {', '.join(RESTARTS)}, not '{value}'")
    return value


def _codes(name: str, value: str) -> tuple[int, ...]:
    words = value.split(",")
    if not all(w.isascii() and w.isdigit() and int(w) < 256 for w in words):
        raise UsageError(f"{name} must be numbers like 0,64, not '{value}'")
    return tuple(map(int, words))


def _park(name: str, value: str) -> tuple[int, float] | None:
    if value == "never":
        return None
    count, slash, seconds = value.partition("/")
    if not (slash and count.isascii() and count.isdigit() and int(count)):
        raise UsageError(f"{name} must be COUNT/SECONDS or never, not '{value}'")
    return int(count), _seconds(name, seconds)


_OPTIONS: dict[str, Callable[[str, str], Any]] = {
    "--stdout": _path,
    "--stderr": _path,
    "--stdin": _path,
    "--pidfile": _path,
    "--state": _path,
    "--min-uptime": _milliseconds,
    "--restart": _restart,
    "--stop-codes": _codes,
    "--min-delay": _seconds,
    "--max-delay": _seconds,
    "--stable": _seconds,
    "--park": _park,
}


def _without_python(args: tuple[str, ...]) -> tuple[str, ...]:
    """Return `forza …` for `python -m forza …`."""
    python = os.path.basename(args[0]).startswith("python")
    return args[2:] if python and args[1:3] == ("-m", "forza") else args


def _is_forza(args: tuple[str, ...]) -> bool:
    return os.path.basename(args[0]) == "forza"


def _check_files(options: dict[str, Any]) -> None:
    """Raise OSError for a file that can't be had, while there is somebody to tell."""
    for name in ("stdout", "stderr", "stdin"):
        if path := options.get(name):
            flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT
            os.close(os.open(path, flags | os.O_CLOEXEC, 0o660))
    for name in ("pidfile", "state"):
        if path := options.get(name):
            if os.path.isdir(path):
                raise OSError(EISDIR, os.strerror(EISDIR), path)
            folder = os.path.dirname(path)
            try:
                os.stat(folder)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            if not os.access(folder, os.W_OK):
                raise OSError(EACCES, os.strerror(EACCES), path)


def _check_command(words: Sequence[str], settings: dict[str, Any] | None) -> None:
    """Raise SpawnError for a slip that nobody would hear of once we are detached.

    What is there now and gone later is the keeper's to deal with.
    """
    from forza._spawn import look_up

    look_up(words[0], os.environ, (settings or {}).get("cwd"))


def _block_signals() -> None:
    """Let signals wait until the keeper looks: SIGUSR1 now would kill it."""
    from forza._sleep import WATCHED

    waiting = set(WATCHED) - {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)


def _detach() -> int:
    """Go on in a child, in a session of its own and with no stdio; return its pid."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        if null > 2:
            os.close(null)
        sys.argv[1] = "run"  # for who looks at the list of processes
    return pid


if __name__ == "__main__":
    main()
