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
    import signal
    from collections.abc import Callable

    Converter = Callable[[str, str], object]
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members

# A read of the app's output makes up to half of this, and is dropped as a whole.
SMALLEST_BUFFER = 512 * 1024
SMALLEST_SPOOL = 1024 * 1024
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


def some_seconds(name: str, word: str) -> float:
    """Take a number of seconds above 0."""
    value = seconds(name, word)
    if not value:
        raise UsageError(f"--{name} must be a number of seconds above 0, not '{word}'")
    return value


def signal_number(word: str) -> int:
    """Return 15 for `TERM`, `SIGTERM`, `term` or `15`; `RTMIN+2` is one, too.

    Raises ValueError for what is no signal.
    """
    plain, plus, offset = word.upper().removeprefix("SIG").partition("+")
    if plain.isascii() and plain.isdigit():
        found = int(plain)
    else:  # `_DFL` is no signal, though its name begins with SIG
        found = getattr(signal, f"SIG{plain}", 0) if plain.isalnum() else 0
    if plus:
        found = found + int(offset) if plain == "RTMIN" and offset.isdigit() else 0
    if not 0 < found < signal.NSIG:
        raise ValueError(f"'{word}' is no signal")
    return int(found)


def signal_named(name: str, word: str) -> int:
    """Take a signal, as TERM, SIGTERM or 15."""
    try:
        return signal_number(word)
    except ValueError as error:
        raise UsageError(f"--{name}: {error}") from None


def rewriting(name: str, word: str) -> tuple[int, int]:
    """Take `RECEIVED=SENT`, two signals, or `RECEIVED=`, for none to be sent."""
    from forza._forwarding import HANDLED

    received, equals, sent = word.partition("=")
    if not equals:
        raise UsageError(f"--{name} must be as TERM=INT or HUP=, not '{word}'")
    number = signal_named(name, received)
    if number not in HANDLED:
        raise UsageError(f"--{name}: forza does not pass {received} on")
    return number, signal_named(name, sent) if sent else 0


# To the kernel this one says that nobody's identity is to change.
_NO_ID = 2**32 - 1


def user(name: str, word: str) -> dict[str, int]:
    """Take `USER`, whose group counts, or `USER:GROUP`; each by name or number."""
    who, colon, group = word.partition(":")
    found: dict[str, int] = {}
    if _is_id(who):
        found["uid"] = int(who)
    else:
        from pwd import getpwnam

        try:
            entry = getpwnam(who)
        except (KeyError, ValueError):  # a NUL, or what is no text
            raise UsageError(f"--{name}: there is no user '{who}'") from None
        found = {"uid": entry.pw_uid, "gid": entry.pw_gid}
    if _is_id(group):
        found["gid"] = int(group)
    elif colon:
        from grp import getgrnam

        try:
            found["gid"] = getgrnam(group).gr_gid
        except (KeyError, ValueError):
            raise UsageError(f"--{name}: there is no group '{group}'") from None
    if max(found.values()) >= _NO_ID:
        raise UsageError(f"--{name} must be a user there can be, not '{word}'")
    if "gid" not in found:
        raise UsageError(f"--{name} must name a group, too, as {who}:GROUP")
    return found


def _is_id(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 16


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
    """Take a size that holds at least two batches."""
    value = size(name, word)
    if value < SMALLEST_BUFFER:
        raise UsageError(f"--{name} must be at least 512K, not '{word}'")
    return value


def spool_size(name: str, word: str) -> int:
    """Take a size that holds a few files."""
    value = size(name, word)
    if value < SMALLEST_SPOOL:
        raise UsageError(f"--{name} must be at least 1M, not '{word}'")
    return value


def descriptor(name: str, word: str) -> int:
    """Take the number of a descriptor that is open, and none of the first three."""
    import os

    try:
        number = int(word) if word.isascii() and word.isdigit() else -1
        if number > 2:
            os.fstat(number)
            return number
    except (OSError, OverflowError):
        pass
    raise UsageError(f"--{name} must be an open descriptor from 3, not '{word}'")


def choice(**values: object) -> Converter:
    """Take one of these words, each for its value."""
    *most, last = values

    def convert(name: str, word: str) -> object:
        if word not in values:
            known = f"{', '.join(most)} or {last}"
            raise UsageError(f"--{name} must be {known}, not '{word}'")
        return values[word]

    return convert


def whole(name: str, word: str) -> int:
    """Take a whole number; whether it is one that can be meant is seen later."""
    digits = word.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10):
        raise UsageError(f"--{name} must be a whole number, not '{word}'")
    return int(word)


def core(name: str, word: str) -> int:
    """Take a size, or `unlimited`, which is -1."""
    if word == "unlimited":
        return -1
    try:
        return size(name, word)
    except UsageError as error:
        asked = "a number of bytes, as"
        raise UsageError(str(error).replace(asked, f"unlimited or {asked}")) from None


def cpus(name: str, word: str) -> tuple[int, ...]:
    """Take a list of processors, as 0-3,6."""
    found: set[int] = set()
    for part in word.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) < 5 for end in ends):
            raise UsageError(f"--{name} must be a list, as 0-3,6, not '{word}'")
        found.update(range(int(ends[0]), int(ends[1]) + 1))
    if not found:
        raise UsageError(f"--{name} must be a list, as 0-3,6, not '{word}'")
    return tuple(sorted(found))


# What the app may use: Monitor's argument `limits`, whose bounds `_limits` knows.
LIMITS: dict[str, Converter] = {
    "core": core,
    "cpus": cpus,
    "memory-hard": size,
    "memory-soft": size,
    "nice": whole,
    "nofile": whole,
}
# Monitor's own arguments. Where an option is given twice, the first counts.
SETTINGS: dict[str, Converter] = {
    **LIMITS,
    "app-name": text,
    "app-user": text,
    "buffer": buffer,
    "cwd": text,
    "flush-timeout": seconds,
    "grace": seconds,
    "hostname": text,
    "ipc": choice(auto=None, yes=True, no=False),
    "ready-fd": descriptor,
    "spool": text,
    "spool-max": spool_size,
    "start-log": text,
    "stop-signal": signal_named,
}
# What the plugin `start` goes by, under these names. `ready` may be given repeatedly.
START: dict[str, Converter] = {
    "bind-hook": choice(auto="auto", on="on", off="off"),
    "ready": text,
    "stable": seconds,
    "watchdog": some_seconds,
}
# What has no value.
FLAGS = ("bind-any", "check", "help", "keep", "legacy-chunks", "version")
# What `cli` makes the sinks, the list of plugins and more of.
OTHERS = ("host", "plugin", "port", "signal", "to", "user")
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
