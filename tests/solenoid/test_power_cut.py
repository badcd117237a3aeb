# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Kill what brings, switches and removes releases at any instant: old or new, whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import select
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import solenoid
from tests.conftest import PATIENCE, ROOT
from tests.solenoid.drone import NOBODY

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 30
FILES = 60
# A drone's life without its apps: one release after the other, two are kept.
LIFE = """
import asyncio, itertools, sys
import solenoid

async def main(run_dir, folder, user):
    app = solenoid.App(system_user=user, modules=False)
    print("begun", flush=True)
    for n in itertools.count():
        url = f"{folder}/{n % 2}.tgz"
        record = await solenoid.download(run_dir, app, url)
        await solenoid.activate(run_dir, record.id)
        await solenoid.prune(run_dir, 2)
        print(record.id, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def make(folder: Path, version: str) -> None:
    """Make a snapshot whose every file says of which version it is."""
    package = folder / version / "package"
    package.mkdir(parents=True)
    (package / "package.json").write_text(
        f'{{"version": "{version}.0.0", "scripts": {{"start": "x"}}}}'
    )
    for n in range(FILES):
        (package / f"d{n % 7}").mkdir(exist_ok=True)
        (package / f"d{n % 7}" / f"{n}").write_text(f"{version} {n}\n" * 300)
    with tarfile.open(folder / f"{version}.tgz", "w:gz") as archive:
        archive.add(package, "package")


def contents(package: Path) -> str:
    """Return what tells one version, whole, from anything else."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        digest.update(str(path.relative_to(package)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def test_killed_at_any_instant(tmp_path: Path) -> None:
    """The current release is always a whole one, and so is all that is listed."""
    for version in "01":
        make(tmp_path, version)
    whole = {v: contents(tmp_path / v / "package") for v in "01"}
    run_dir = tmp_path / "run"
    command = [sys.executable, "-c", LIFE, str(run_dir), str(tmp_path), NOBODY.name]
    chance = random.Random(8)
    current, switches, stages = None, 0, set()
    for _ in range(KILLS):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
            # Within about two releases' time, whatever that is on this machine.
            select.select([child.stdout], [], [], chance.uniform(0, 0.3))
            if chance.random() < 0.5:
                ready, _, _ = select.select([child.stdout], [], [], PATIENCE)
                assert ready
                select.select([], [], [], chance.uniform(0, 0.1))
            child.kill()
        now = solenoid.current(run_dir)
        switches += now != current
        current = now
        if not (run_dir / "releases").is_dir():
            continue
        found = asyncio.run(solenoid.releases(run_dir))
        assert current is None or current in {release.id for release in found}
        for release in found:
            version = release.version.partition(".")[0]
            assert contents(release.path / "package") == whole[version]
        listed = {name for r in found for name in (r.id, f"{r.id}.json")}
        stages.add(bool({*os.listdir(run_dir / "releases")} - listed))
    assert switches > 1, "it was always killed before it had switched"
    assert len(stages) == 2, "it was always killed at the same stage"

    # And the next one that lives clears up.
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline()
        child.kill()
    # As a kill amid the writing of a record leaves it, which is too short to be hit.
    (run_dir / "releases" / ".1.0.0-x.json.0123abcd.part").touch()
    app = solenoid.App(system_user=NOBODY.name, modules=False)
    asyncio.run(solenoid.download(run_dir, app, f"{tmp_path}/0.tgz"))
    asyncio.run(solenoid.prune(run_dir, 1))
    found = asyncio.run(solenoid.releases(run_dir))
    left = {name for release in found for name in (release.id, f"{release.id}.json")}
    assert {*os.listdir(run_dir / "releases")} == left
    assert not [name for name in os.listdir(run_dir) if name.endswith(".part")]
