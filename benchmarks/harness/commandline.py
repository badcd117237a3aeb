# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The options that every benchmark script has."""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
from collections.abc import Iterable
from types import FrameType
from typing import NoReturn

from .cache import UnavailableError
from .results import emit, note
from .subjects import SUBJECTS, Subject

__all__ = ["installed", "numbers", "parser"]


def parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the common options; also end tidily on SIGTERM."""
    signal.signal(signal.SIGTERM, end)
    names = " | ".join(subject.name for subject in SUBJECTS)
    options = argparse.ArgumentParser(
        description=textwrap.fill(description, 80),
        epilog=f"subjects:\n{textwrap.fill(names, 80)}\n\nexample: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        "--subjects",
        metavar="NAME[,NAME]",
        type=named_subjects,
        help="measure only these; a part of the name will do",
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help="shorter and fewer runs: to see that it works, not to quote",
    )
    return options


def end(signum: int, frame: FrameType | None) -> NoReturn:
    """Leave through the context managers, which end what was started."""
    sys.exit(128 + signum)


def named_subjects(text: str) -> list[Subject]:
    """Find subjects by name, in the order of the table."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not any(word in subject.name for subject in SUBJECTS):
            raise argparse.ArgumentTypeError(f"no subject is called {word!r}")
    exact = {subject.name for subject in SUBJECTS}
    return [
        subject
        for subject in SUBJECTS
        if any(
            subject.name == word if word in exact else word in subject.name
            for word in words
        )
    ]


def numbers(text: str) -> list[int]:
    """Read whole numbers between commas."""
    return [int(word) for word in text.split(",")]


def installed(
    benchmark: str, chosen: list[Subject] | None, without: Iterable[str] = ()
) -> list[Subject]:
    """Install the chosen subjects, or all; report those that cannot be."""
    found = []
    for subject in chosen or [s for s in SUBJECTS if s.name not in without]:
        note(f"{benchmark}: installing {subject.name}")
        try:
            subject.install()
        except UnavailableError as error:
            emit(benchmark, subject.name, {"unavailable": str(error)})
        else:
            found.append(subject)
    return found
