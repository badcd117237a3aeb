# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take an app's variables: by an option, by a file, or by standard input."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from solenoid._environ import parse_environ, parse_json
from solenoid._errors import EnvironError
from solenoid.commands._stdin import everything

if TYPE_CHECKING:
    import argparse


def add_variables(parser: argparse.ArgumentParser) -> None:
    """Add where the app's variables come from."""
    parser.add_argument(
        "-e",
        "--app-env",
        metavar="JSON",
        help="variables, an object; everybody can read them in the list of processes,"
        " so secrets go by:",
    )
    parser.add_argument(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="variables, lines NAME=value or a JSON object; - is standard input. The"
        " later one counts; repeat it",
    )


async def given_variables(options: argparse.Namespace) -> dict[str, str] | None:
    """Return the variables that were given, None if nobody has given any."""
    if options.app_env is None and not options.env_file:
        return None
    found = {} if options.app_env is None else parse_json(options.app_env)
    for name in options.env_file:
        text = await _text(name)
        found |= parse_environ(text, "standard input" if name == "-" else name)
    return found


async def _text(name: str) -> str:
    try:
        if name == "-":
            return (await everything()).decode()
        return await asyncio.to_thread(Path(name).read_text, "utf-8")
    except OSError as error:
        raise EnvironError(f"cannot read {name}: {error.strerror}") from error
    except ValueError:
        raise EnvironError(f"{name} is not UTF-8") from None
