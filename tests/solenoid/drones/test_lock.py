# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The deploy lock: never two in, free when its deployer is gone, and told about."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING, Any

from solenoid.drones.remote import lock as remote_lock

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier
    from pathlib import Path


TRIALS = 10_000


def contend(folder: str, barrier: Barrier, wins: Any, index: int) -> None:
    """Race for the lock so many times; to be in with another is an error."""
    inside = os.path.join(folder, "inside")
    for _ in range(TRIALS):
        barrier.wait()
        file = remote_lock.take(folder)
        # Who has it makes a file that must not be there; the other has gone on to
        # the next barrier, where it waits until this one has given back.
        if file is not None:
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL, 0o600))
            wins[index] += 1
            os.unlink(inside)
            os.close(file)


def test_two_racing_deployers(tmp_path: Path) -> None:
    """In 10,000 races of two, two were never in, and now and then each has won."""
    forks = multiprocessing.get_context("fork")
    barrier = forks.Barrier(2)
    wins: Any = forks.Array("i", 2)
    racers = [
        forks.Process(target=contend, args=(str(tmp_path), barrier, wins, index))
        for index in range(2)
    ]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert sum(wins) >= TRIALS
    assert all(wins)
