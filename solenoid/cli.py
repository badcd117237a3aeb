# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Understand the command line of `solenoid`, and load the one command it asks for."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from solenoid._console import Console
from solenoid._errors import SolenoidError, UsageError
from solenoid._exits import EXIT_USAGE, of_signal, status_of
from solenoid.commands import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Sequence
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

  solenoid COMMAND --help   all about one command
  solenoid --version        print the version

Standard output has the result alone, one line of JSON where there is one; all else goes
to standard error and to RUN_DIR/solenoid.log. Status 0: done, and the app runs. Each
step that can fail has a status of its own: docs/exit-codes.md.
"""


def main() -> None:
    """Run the program: the entry point of the script `solenoid`. Does not return."""
    sys.exit(_main(sys.argv[1:]))


def _main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        lines = (f"  {name:{width}}  {about}" for name, about in COMMANDS.items())
        text = _TEXT.format(commands="\n".join(lines))
        print(text, end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else EXIT_USAGE
    if argv[0] in ("--version", "-v"):
        from importlib.metadata import version

        print(f"solenoid {version('forza-solenoid')}")  # noqa: T201
        return 0
    return _command(argv[0], argv[1:])


def _command(name: str, words: Sequence[str]) -> int:
    # A usage error is told the way that was asked for, too.
    console = Console(as_json="--json" in words)
    try:
        if name not in COMMANDS:
            raise UsageError(f"there is no command '{name}'; try 'solenoid --help'")
        command = importlib.import_module(f"solenoid.commands.{name.replace('-', '_')}")
        options = _parse(name, command, words)
        console.legacy_exit = getattr(options, "legacy_exit", False)
        return asyncio.run(_run(command, options, console))
    except SolenoidError as error:
        console.fail(error)
        return status_of(error, legacy=console.legacy_exit)
    except KeyboardInterrupt:
        console.error("interrupted")
        return of_signal(signal.SIGINT)
    except asyncio.CancelledError:  # by a signal: see _run
        console.error("told to end")
        return of_signal(signal.SIGTERM)
    finally:
        console.close()


async def _run(
    command: ModuleType, options: argparse.Namespace, console: Console
) -> int:
    """Run the command; SIGTERM is to it what ^C is: it clears up, then ends."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    status: int | None = await command.run(options, console)
    return status or 0


def _parse(name: str, command: ModuleType, words: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(
        prog=f"solenoid {name}",
        description=command.ABOUT,
        epilog=command.MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    command.add_options(parser)
    parser.add_argument("--help", action="help", help="print this")
    return parser.parse_args(words)


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, and leaves the telling to us."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; try '{self.prog} --help'")
