# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say what a step is told to report to, and be nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int, int | None], None]
    Activity = Callable[[str], None]


class Report(Protocol):
    """Whoever wants to know how a start goes."""

    def info(self, text: str, /) -> None:
        """Hear what is being done."""

    def warn(self, text: str, /) -> None:
        """Hear what is not as it should be, although it goes on."""

    def progress(self, what: str, /) -> Progress | None:
        """Return what is told the bytes so far and in all, or None."""

    def activity(self, what: str, /) -> Activity | None:
        """Return what is told, again and again, the last line that a step has said
        which cannot tell how far it is; or None."""


class Silence:
    """A report that nobody reads."""

    def info(self, text: str, /) -> None:
        """Say nothing."""

    def warn(self, text: str, /) -> None:
        """Say nothing."""

    def progress(self, what: str, /) -> Progress | None:
        """Want to hear nothing."""
        return None

    def activity(self, what: str, /) -> Activity | None:
        """Want to hear nothing."""
        return None
