# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand aeternum's command line: keep a command running, detached or not."""

from __future__ import annotations

import os
import sys
from errno import EACCES, EISDIR

from forza._errors import (
    EXIT_PORT,
    EXIT_SETUP,
    EXIT_USAGE,
    PortError,
    UsageError,
)
from forza._stage import replace
from forza.cli import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from typing import Any, NoReturn
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

USAGE = """\
usage: aeternum start|run [OPTIONS] [--] COMMAND [ARG...]

Keep a command running: whenever it ends, start it again. After an end there is a pause
of 1 s, twice as long each time up to 30 s; 60 s of health make it 1 s again.

  start                  detach, print the keeper's pid, and leave it running
  run                    stay in the foreground

  -o, --stdout FILE      append the command's output to FILE, also its errors
  -e, --stderr FILE      append its errors to FILE instead (only with -o)
  -i, --stdin FILE       let it read FILE
  -p, --pidfile FILE     write the command's pid to FILE, anew at every start
  -j, --json             write it as {"pid": N}
      --min-uptime MS    if the command ends within MS milliseconds of the keeper's
                         start, do not start it again: leave with status 2
      --help             print this

SIGTERM and SIGINT end the command (SIGTERM, 5 s, SIGKILL; forza has its own grace) and
then the keeper. SIGUSR1 starts it anew. SIGHUP is ignored.

examples:
  aeternum start -o app.log -p app.pid -- forza -h 127.0.0.1 -- node app.js
  aeternum run -- ./worker

A forza that is kept shares memory with the keeper. `forza --keep` is `aeternum run`.

exit status: 0 told to end; 2 the command ended within --min-uptime, or a usage error;
3 a bad port in forza's options; 125 cannot go on (a file cannot be opened).
"""
_FILES = {
    "-o": "stdout",
    "-e": "stderr",
    "-i": "stdin",
    "-p": "pidfile",
    "--stdout": "stdout",
    "--stderr": "stderr",
    "--stdin": "stdin",
    "--pidfile": "pidfile",
}
_SEE = "; try 'aeternum --help'"


def main() -> None:
    """Run the program: the entry point of the script `aeternum`. Does not return."""
    argv = sys.argv[1:]
    if argv[:1] == ["--help"] or argv[1:2] == ["--help"]:
        print(USAGE, end="")  # noqa: T201
        return
    try:
        action, options, args = _understand(argv)
        words, settings = parse(args[1:]) if _is_forza(args) else (args, None)
        _check_files(options)
        if settings is not None:
            settings.pop("keep", None)  # by whom else
    except UsageError as error:
        sys.stderr.write(f"aeternum: {error}\n")
        bad_port = isinstance(error, PortError)
        raise SystemExit(EXIT_PORT if bad_port else EXIT_USAGE) from None
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
    """Become the keeper, in the bare interpreter of the second stage if possible."""
    _block_signals()
    replace("keeper", tuple(args), settings, options)
    from forza import _keeper

    _keeper.keep(tuple(args), settings, options)


def _understand(argv: Sequence[str]) -> tuple[str, dict[str, Any], tuple[str, ...]]:
    """Return start or run, the keeper's options, and the command's words."""
    if argv[:1] not in (["start"], ["run"]):
        raise UsageError(f"the first word must be start or run{_SEE}")
    options: dict[str, Any] = {}
    words = list(reversed(argv[1:]))
    while words and words[-1].startswith("-"):
        word = words.pop()
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in ("-j", "--json"):
            options["json"] = True
            continue
        if name not in _FILES and name != "--min-uptime":
            raise UsageError(f"unknown option {word}{_SEE}")
        if not equals:
            if not words or words[-1] == "--":
                raise UsageError(f"option {word} needs a value{_SEE}")
            value = words.pop()
        if name == "--min-uptime":
            if not (value.isascii() and value.isdigit()):
                raise UsageError(f"--min-uptime must be milliseconds, not '{value}'")
            options["min_uptime"] = int(value) / 1000
        else:
            # The detached keeper may be in another directory.
            options[_FILES[name]] = os.path.abspath(value)
    if not words:
        raise UsageError(f"no command given{_SEE}")
    if "stderr" in options and "stdout" not in options:
        raise UsageError(f"-e goes with -o only{_SEE}")
    args = tuple(reversed(words))
    return argv[0], options, _without_python(args)


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
    if pidfile := options.get("pidfile"):
        if os.path.isdir(pidfile):
            raise OSError(EISDIR, os.strerror(EISDIR), pidfile)
        os.stat(folder := os.path.dirname(pidfile))
        if not os.access(folder, os.W_OK):
            raise OSError(EACCES, os.strerror(EACCES), pidfile)


def _block_signals() -> None:
    """Let signals wait until the keeper looks: SIGUSR1 now would kill it."""
    waiting = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
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
