# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what each option of the command line takes, and what becomes of it.

A converter gets the option's name and the word after it, and returns the value or
raises UsageError. To add an option is to add a line here, and one to `_help.py`.
"""

from __future__ import annotations

from forza._errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Converter = Callable[[str, str], object]

SMALLEST_BUFFER = 64 * 1024
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def text(name: str, word: str) -> str:
    """Take the word as it is."""
    return word


def seconds(name: str, word: str) -> float:
    """Take a number of seconds, none of them negative."""
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"--{name} must be a number of seconds, not '{word}'")
    return value


def size(name: str, word: str) -> int:
    """Take a number of bytes, as 65536, 64K, 1M or 1G."""
    digits = word.rstrip("kKmMgG")
    factor = _FACTORS.get(word[len(digits) :].upper())
    plain = digits.isascii() and digits.isdigit() and len(digits) < 16
    if factor is None or not plain:
        raise UsageError(
            f"--{name} must be a number of bytes, as 65536, 64K or 1M, not '{word}'"
        )
    return int(digits) * factor


def buffer(name: str, word: str) -> int:
    """Take a size that holds at least one batch."""
    value = size(name, word)
    if value < SMALLEST_BUFFER:
        raise UsageError(f"--{name} must be at least 64K, not '{word}'")
    return value


def choice(**values: object) -> Converter:
    """Take one of these words, each for its value."""
    *most, last = values

    def convert(name: str, word: str) -> object:
        if word not in values:
            known = f"{', '.join(most)} or {last}"
            raise UsageError(f"--{name} must be {known}, not '{word}'")
        return values[word]

    return convert


# Monitor's own arguments. Where an option is given twice, the first counts.
SETTINGS: dict[str, Converter] = {
    "app-name": text,
    "app-user": text,
    "buffer": buffer,
    "flush-timeout": seconds,
    "grace": seconds,
    "hostname": text,
    "ipc": choice(auto=None, yes=True, no=False),
    "start-log": text,
}
# What the plugin `start` goes by, under these names. `ready` may be given repeatedly.
START: dict[str, Converter] = {
    "bind-hook": choice(auto="auto", on="on", off="off"),
    "ready": text,
    "stable": seconds,
    "watchdog": seconds,
}
# What has no value.
FLAGS = ("bind-any", "help", "keep", "legacy-chunks", "version")
# What `cli` makes the sinks and the list of plugins of.
OTHERS = ("host", "plugin", "port", "to")
# What the seven plugins understand, so that a slip is found before anything runs.
PLUGINS: dict[str, tuple[str, ...]] = {
    "cpu": ("interval",),
    "logs": ("chunks", "cr", "join", "longest", "rate"),
    "process": (),
    "mem": ("interval",),
    "heartbeat": ("interval",),
    "uptime": ("interval",),
    "start": ("timeout",),
}
