# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What embeds solenoid: the example, and the steps one by one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import solenoid
from tests.conftest import PATIENCE
from tests.conftest import ROOT as CHECKOUT
from tests.solenoid.drone import BROKEN, ROOT, Drone, ask, become_plain, lives, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USER = "nobody" if ROOT else "solenoid"


def test_example(place: Path) -> None:
    """A PaaS in under 40 lines: apps start side by side, a broken one says why."""
    example = CHECKOUT / "examples" / "deploy_inbox.py"
    code = example.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line]) < 40
    inbox, apps = place / "inbox", place / "apps"
    inbox.mkdir()
    for name in ("one", "two"):
        snapshot(inbox / f"{name}.tgz")
    snapshot(inbox / "broken.tgz", server=BROKEN)
    (inbox / "odd.tgz").write_bytes(b"no archive")
    given: dict[str, Any] = {"preexec_fn": become_plain if ROOT else None}
    try:
        ended = subprocess.run(
            [sys.executable, example, inbox, apps],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            **given,
        )
        assert ended.returncode == 0, ended.stderr
        said = dict(line.split(": ", 1) for line in ended.stdout.splitlines())
        assert said.keys() == {"one", "two", "broken", "odd"}
        for name in ("one", "two"):
            assert "http://" in said[name], said[name]
            port = int(said[name].partition("127.0.0.1:")[2].partition("/")[0])
            assert ask({"meta": {"port": port}})["version"] == "1.0.0"
        assert "it said: Node.js" in said["broken"]
        assert said["broken"].endswith("nothing runs")
        assert said["odd"].startswith("unpack: ")
        assert said["odd"].endswith("(ask the user)")
    finally:
        for path in apps.iterdir():
            Drone(apps, path.name, root=False).close()


class Heard:
    """A report that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.bytes: dict[str, list[int]] = {}
        self.lines: dict[str, str] = {}

    def info(self, text: str, /) -> None:
        """Remember it."""
        self.said.append(text)

    warn = info

    def progress(self, what: str, /) -> Callable[[int, int | None], None]:
        """Remember how far it went."""
        return lambda done, total: self.bytes.setdefault(what, []).append(done)

    def activity(self, what: str, /) -> Callable[[str], None]:
        """Remember what was said last."""
        return lambda line: self.lines.update({what: line})


def test_library(place: Path) -> None:
    """Each step is a call, with a result, and with its own error."""
    run_dir = place / "run"
    app = solenoid.App(
        system_user=USER, environ={"A": "1"}, stable=0.1, start_timeout=PATIENCE
    )

    async def life() -> None:
        heard = Heard()
        archive = snapshot(place / "a.tgz")
        record = await solenoid.download(run_dir, app, str(archive), report=heard)
        assert (record.version, record.passed) == ("1.0.0", None)
        assert heard.bytes["fetch"][-1] == archive.stat().st_size
        assert not (await solenoid.status(run_dir)).running
        with pytest.raises(solenoid.AbsentError, match="never started"):
            await solenoid.start_again(run_dir, record.id)
        version = replace(app, version="1.0.0")
        first = await solenoid.start(run_dir, version, report=heard)
        assert first.release == record.id
        assert ask(first.event)["env"]["A"] == "1"
        assert f"starting release {record.id} as" in " ".join(heard.said)

        second = await solenoid.start(run_dir, app, str(snapshot(place / "b.tgz")))
        assert not lives(first.keeper)
        back = await solenoid.start_again(run_dir, first.release)
        assert ask(back.event)["env"]["A"] == "1"
        assert not lives(second.keeper)

        broken = str(snapshot(place / "c.tgz", "2.0.0", BROKEN))
        with pytest.raises(solenoid.StartError, match="with status 1") as caught:
            await solenoid.start(run_dir, app, broken)
        assert caught.value.running == first.release
        assert "boom" in caught.value.output
        assert caught.value.event is not None
        again = await solenoid.restart(run_dir)
        assert again.release == first.release
        (stopped,) = await solenoid.stop(run_dir)
        assert stopped.release == first.release
        assert stopped.gracefully
        with pytest.raises(solenoid.AbsentError):
            await solenoid.restart(run_dir)

    try:
        asyncio.run(life())
    finally:
        asyncio.run(solenoid.stop(run_dir))


def test_cancelled(place: Path) -> None:
    """A start that is cancelled in the middle of the switch leaves the old release."""
    run_dir = place / "run"
    app = solenoid.App(
        system_user=USER, stable=0.1, order="stop-first", start_timeout=PATIENCE
    )
    idle = "setInterval(() => {}, 1000);\n"

    async def life() -> None:
        await solenoid.start(run_dir, app, str(snapshot(place / "a.tgz")))
        heard = Heard()
        archive = str(snapshot(place / "b.tgz", "1.1.0", idle))
        task = asyncio.create_task(solenoid.start(run_dir, app, archive, report=heard))
        while not any("starting release 1.1.0" in line for line in heard.said):
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        now = await solenoid.status(run_dir)
        assert now.running
        assert now.version == "1.0.0"
        assert now.start is not None
        assert ask(dict(now.start))["version"] == "1.0.0"

    try:
        asyncio.run(life())
    finally:
        asyncio.run(solenoid.stop(run_dir))
