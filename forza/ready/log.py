# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Take a line of the app's output for the sign that it has started."""

from __future__ import annotations

from forza._errors import PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LONGEST = 64 * 1024


def pattern(text: str) -> Callable[[bytes], object]:
    """Return what says whether a line matches. Raises PluginError.

    A text without special characters is looked for as it is: the module `re` would
    take a megabyte for good.
    """
    raw = text.encode(errors="surrogateescape")
    if not set("\\.^$*+?{}[]|()") & set(text):
        return lambda line: raw in line
    import re

    try:
        return re.compile(raw).search
    except (re.error, RecursionError, OverflowError) as error:
        raise PluginError(f"--ready log={text}: {error}") from error


class Log:
    """Cut the app's output into lines, and say whether one of them matches."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._patterns = [pattern(text) for text in texts]
        self._tails = {"stdout": b"", "stderr": b""}

    def data(self, stream: str, data: bytes) -> bool:
        """Take what was read; a line counts when it is whole."""
        *lines, tail = (self._tails[stream] + data).split(b"\n")
        self._tails[stream] = tail[-_LONGEST:]
        return any(
            matches(line.removesuffix(b"\r"))
            for line in lines
            for matches in self._patterns
        )
