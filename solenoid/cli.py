# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand the command line of `solenoid`, and load the one command it asks for."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from solenoid._console import Console
from solenoid._errors import SolenoidError, UsageError
from solenoid._exits import EXIT_USAGE, of_signal, status_of
from solenoid.commands import COMMANDS, IN_BOTH, ON_DRONES, on_drones

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

_TEXT = """\
usage: solenoid COMMAND [OPTIONS]

Bring an app from a storage to a running, watched and restricted process.

examples:
  solenoid start --from file:./shop.tgz --run-dir ./run
  solenoid status --run-dir ./run
  solenoid stop --run-dir ./run

commands:
{commands}

on many drones over SSH, with --drones FILE.toml or --drones host,host:
  start, stop, restart, rollback, status, and
{drones}

  solenoid COMMAND --help   all about one command, and about its other form with
                            COMMAND --drones --help
  solenoid --version        print the version

Standard output has the result alone, one line of JSON where there is one; all else goes
to standard error and to RUN_DIR/solenoid.log. Status 0: done, and the app runs. Each
step that can fail has a status of its own: docs/exit-codes.md.
"""


_ENDING = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    """Run the program: the entry point of the script `solenoid`. Does not return."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        text = _TEXT.format(commands=_listed(COMMANDS), drones=_listed(ON_DRONES))
        print(text, end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else EXIT_USAGE
    if argv[0] in ("--version", "-v"):
        from importlib.metadata import version

        print(f"solenoid {version('forza-solenoid')}")  # noqa: T201
        return 0
    return _command(argv[0], argv[1:])


def _listed(commands: Mapping[str, str]) -> str:
    width = max(map(len, (*COMMANDS, *ON_DRONES)))
    return "\n".join(f"  {name:{width}}  {about}" for name, about in commands.items())


def _command(name: str, words: Sequence[str]) -> int:
    # A usage error is told the way that was asked for, too.
    console = Console(as_json="--json" in words)
    asked: list[signal.Signals] = []
    try:
        command = _load(name, words)
        options = _parse(name, command, words)
        console.legacy_exit = getattr(options, "legacy_exit", False)
        return asyncio.run(_run(command, options, console, asked))
    except SolenoidError as error:
        console.fail(error)
        return status_of(error, legacy=console.legacy_exit)
    except KeyboardInterrupt:  # before _run
        _ignore_signals()
        console.error("interrupted")
        return of_signal(signal.SIGINT)
    except asyncio.CancelledError:  # by a signal: see _run
        _ignore_signals()
        number = asked[0] if asked else signal.SIGTERM
        console.error("interrupted" if number == signal.SIGINT else "told to end")
        return of_signal(number)
    finally:
        console.close()


def _ignore_signals() -> None:
    """Let the next ^C not kill us while we say that the first was heard."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


def _load(name: str, words: Sequence[str]) -> ModuleType:
    package = "solenoid.commands"
    if name in ON_DRONES or on_drones(words):
        package = "solenoid.drones.commands"
        if name not in ON_DRONES and name not in IN_BOTH:
            raise UsageError(f"there is no command '{name}' with --drones")
    elif name not in COMMANDS:
        raise UsageError(f"there is no command '{name}'; try 'solenoid --help'")
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")


async def _run(
    command: ModuleType,
    options: argparse.Namespace,
    console: Console,
    asked: list[signal.Signals],
) -> int:
    """Run the command; ^C and SIGTERM have it clear up, then end: they go to `asked`.

    The second of them does not cut the clearing up short, which would leave things
    half-done; it takes no longer than an app may take to end.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None

    # Not by the loop's own handlers, which end with it, while the next ^C comes.
    def end(number: int, _: object) -> None:
        asked.append(signal.Signals(number))
        if loop.is_closed():
            return
        if len(asked) == 1:
            loop.call_soon_threadsafe(task.cancel)
        else:
            loop.call_soon_threadsafe(console.info, "clearing up")

    for number in _ENDING:
        # A shell's background jobs are not meant by the ^C at its terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    status: int | None = await command.run(options, console)
    return status or 0


def _parse(name: str, command: ModuleType, words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog=f"solenoid {name}",
        description=command.ABOUT,
        epilog=command.MORE,
        formatter_class=_Formatter,
        allow_abbrev=False,
        add_help=False,
    )
    command.add_options(parser)
    parser.add_argument("--help", action="help", help="print this")
    rest: Sequence[str] = ()
    if getattr(command, "TAKES_REST", False) and "--" in words:
        end = words.index("--")
        words, rest = words[:end], words[end + 1 :]
    options = parser.parse_args(words)
    options.rest = rest
    return options


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """One that is told the width: to ask itself, for each option, it loads shutil."""

    def __init__(self, prog: str) -> None:
        try:
            width = int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size().columns
        except (ValueError, OSError):
            width = 80
        super().__init__(prog, width=max(width, 40) - 2)


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, and leaves the telling to us."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; try '{self.prog} --help'")
