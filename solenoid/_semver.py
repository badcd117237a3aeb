# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Tell which versions are in a range, exactly as npm does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NUMBER = r"(0|[1-9][0-9]{0,255})"
_WORD = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_PRE = rf"(?:-({_WORD}(?:\.{_WORD})*))"
_BUILD = r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)"
_FULL = rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}{_PRE}?{_BUILD}?"
_X = r"(0|[1-9][0-9]{0,255}|x|X|\*)"
_PARTIAL = rf"[v=\s]*{_X}(?:\.{_X}(?:\.{_X}{_PRE}?{_BUILD}?)?)?"
# What comes after an operator is looked for by looser rules than it is then read by.
_LOOSE = (
    r"[v=\s]*[0-9]+\.[0-9]+\.[0-9]+"
    rf"(?:-?(?:[0-9]*[A-Za-z-][0-9A-Za-z-]*|[0-9]+)(?:\.(?:[0-9]*[A-Za-z-]"
    rf"[0-9A-Za-z-]*|[0-9]+))*)?{_BUILD}?"
)

_VERSION = re.compile(_FULL)
_COMPARATOR = re.compile(rf"([<>]?=?)\s*({_FULL})")
_HYPHEN = re.compile(rf"({_PARTIAL})\s+-\s+({_PARTIAL})")
_TILDE = re.compile(rf"~>?{_PARTIAL}")
_CARET = re.compile(rf"\^{_PARTIAL}")
_XRANGE = re.compile(rf"([<>]?=?)\s*{_PARTIAL}")
_STAR = re.compile(r"[<>]?=?\s*\*")
_PLAIN_PARTIAL = re.sub(r"\((?!\?)", "(?:", _PARTIAL)
_SPACED = re.compile(rf"(\s*)([<>]?=?)\s*({_LOOSE}|{_PLAIN_PARTIAL})")
_SAFE = 2**53 - 1
_NOTHING = "<0.0.0-0"


class Version(NamedTuple):
    """A version that compares as npm's do; what is built from it is no part of it."""

    major: int
    minor: int
    patch: int
    # A release comes after its candidates; numbers come before words.
    stage: tuple[tuple[int, int, str], ...]

    @property
    def triple(self) -> tuple[int, int, int]:
        """The numbers alone."""
        return self[:3]

    @property
    def is_prerelease(self) -> bool:
        """Say whether it is but a candidate."""
        return self.stage != _RELEASE

    def __str__(self) -> str:
        text = f"{self.major}.{self.minor}.{self.patch}"
        if self.is_prerelease:
            words = (word or str(number) for _, number, word in self.stage)
            text += "-" + ".".join(words)
        return text


_RELEASE = ((2, 0, ""),)


def parse_version(text: str) -> Version | None:
    """Return the version of a text like `v1.2.3`, or None if it is none."""
    if len(text) > 256:
        return None
    found = _VERSION.fullmatch(text.strip())
    return _version(*found.groups()) if found else None


def _version(major: str, minor: str, patch: str, pre: str | None) -> Version | None:
    numbers = int(major), int(minor), int(patch)
    if max(numbers) > _SAFE:
        return None
    if pre is None:
        return Version(*numbers, _RELEASE)
    words = pre.split(".")
    stage = tuple(
        (0, int(word), "") if word.isdigit() else (1, 0, word) for word in words
    )
    return Version(*numbers, stage)


class Comparator(NamedTuple):
    """One bound of a range."""

    operator: str
    version: Version

    def allows(self, version: Version) -> bool:
        """Say whether a version is on the right side."""
        bound = self.version
        if self.operator == "<":
            return version < bound
        if self.operator == "<=":
            return version <= bound
        if self.operator == ">":
            return version > bound
        if self.operator == ">=":
            return version >= bound
        return version == bound


class Range:
    """A range as in `engines`; raises ValueError for what is none."""

    def __init__(self, text: str) -> None:
        self.text = text
        words = " ".join(text.split())
        self._sets = [_comparators(part.strip()) for part in words.split("||")]

    def allows(self, version: Version) -> bool:
        """Say whether a version is in the range."""
        return any(_in_set(comparators, version) for comparators in self._sets)

    def best(self, versions: Iterable[Version]) -> Version | None:
        """Return the highest of the versions that are in the range."""
        return max(filter(self.allows, versions), default=None)


def _in_set(comparators: list[Comparator], version: Version) -> bool:
    if not all(comparator.allows(version) for comparator in comparators):
        return False
    # A candidate is taken only by who asks for candidates of just that version.
    return not version.is_prerelease or any(
        comparator.version.is_prerelease and comparator.version.triple == version.triple
        for comparator in comparators
    )


def _comparators(text: str) -> list[Comparator]:
    text = re.sub(_BUILD, "", text)
    hyphen = _HYPHEN.fullmatch(text)
    if hyphen:
        text = _hyphen(*hyphen.groups())
    text = _SPACED.sub(r"\1\2\3", text)
    text = re.sub(r"~>?\s+", "~", text)
    text = re.sub(r"\^\s+", "^", text)
    words = " ".join(_plain(word) for word in text.split(" ")).split()
    found = []
    for word in words:
        if word == ">=0.0.0":
            continue
        match = _COMPARATOR.fullmatch(word)
        version = _version(*match.groups()[2:]) if match else None
        if match is None or version is None:
            raise ValueError(f"{word!r} is no version")
        found.append(Comparator(match[1], version))
    return found


def _plain(word: str) -> str:
    """Write one word of a range with `<`, `>`, `=` and full versions only."""
    word = " ".join(_caret(part) for part in word.split())
    word = " ".join(_tilde(part) for part in word.split())
    word = " ".join(_xrange(part) for part in word.split())
    return _STAR.sub("", word, count=1)


def _is_x(part: str | None) -> bool:
    return part is None or part in ("", "x", "X", "*")


def _caret(word: str) -> str:
    def above(major: str, minor: str, patch: str) -> str:
        if major != "0":
            return f"{int(major) + 1}.0.0"
        if minor != "0" or _is_x(patch):
            return f"0.{int(minor) + 1}.0"
        return f"0.0.{int(patch) + 1}"

    return _bounded(word, _CARET, above)


def _tilde(word: str) -> str:
    return _bounded(word, _TILDE, lambda major, minor, _: f"{major}.{int(minor) + 1}.0")


def _bounded(
    word: str, pattern: re.Pattern[str], above: Callable[[str, str, str], str]
) -> str:
    """Write it with two bounds: its version, and what is `above` all that it allows."""
    found = pattern.fullmatch(word)
    if not found:
        return word
    major, minor, patch, pre = found.groups()
    if _is_x(major):
        return ""
    if _is_x(minor):
        return f">={major}.0.0 <{int(major) + 1}.0.0-0"
    low = f"{major}.{minor}.{'0' if _is_x(patch) else patch}"
    if pre and not _is_x(patch):
        low += f"-{pre}"
    return f">={low} <{above(major, minor, patch)}-0"


def _xrange(word: str) -> str:
    found = _XRANGE.fullmatch(word)
    if not found:
        return word
    operator, major, minor, patch, _ = found.groups()
    if (_is_x(major) and not _is_x(minor)) or (_is_x(minor) and not _is_x(patch)):
        return word  # `x.1` means nothing
    x_minor = _is_x(major) or _is_x(minor)
    if not (x_minor or _is_x(patch)):
        return word
    if _is_x(major):
        return _NOTHING if operator in ("<", ">") else "*"
    low = int(major), 0 if x_minor else int(minor)
    high = (low[0] + 1, 0) if x_minor else (low[0], low[1] + 1)
    if operator in ("", "="):
        return f">={low[0]}.{low[1]}.0 <{high[0]}.{high[1]}.0-0"
    bound = high if operator in (">", "<=") else low
    suffix = "-0" if operator in ("<", "<=") else ""
    operator = {">": ">=", "<=": "<"}.get(operator, operator)
    return f"{operator}{bound[0]}.{bound[1]}.0{suffix}"


def _hyphen(*groups: str) -> str:
    low, major, minor, patch, _, high, to_major, to_minor, to_patch, to_pre = groups
    if _is_x(major):
        low = ""
    elif _is_x(minor):
        low = f">={major}.0.0"
    elif _is_x(patch):
        low = f">={major}.{minor}.0"
    else:
        low = f">={low}"
    if _is_x(to_major):
        high = ""
    elif _is_x(to_minor):
        high = f"<{int(to_major) + 1}.0.0-0"
    elif _is_x(to_patch):
        high = f"<{to_major}.{int(to_minor) + 1}.0-0"
    elif to_pre:
        high = f"<={to_major}.{to_minor}.{to_patch}-{to_pre}"
    else:
        high = f"<={high}"
    return f"{low} {high}".strip()
