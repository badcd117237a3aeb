# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Offer the tests an operator with three real drones."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.solenoid.drones.operator import Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.solenoid.sshd import Fleet


@pytest.fixture(scope="session")
def bases() -> Iterator[Path]:
    """Where drones have their solenoid, for as long as there are tests."""
    with tempfile.TemporaryDirectory(prefix="solenoid-bases-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture
def operator(fleet: Fleet, tmp_path: Path, bases: Path) -> Iterator[Operator]:
    """An operator, and the drones web1, web2, web3."""
    # Apps have users of their own, who may not enter pytest's folders.
    with tempfile.TemporaryDirectory(prefix="solenoid-drones-") as made:
        Path(made).chmod(0o755)
        found = Operator(tmp_path, Path(made), bases, fleet)
        found.add("web1", "web2", "web3")
        yield found
        found.close()
