# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Use forza in a program, in every way that its types must allow."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import assert_type

import forza
from tests.typing.plugin import Disk, Quiet, make_disk


async def simple() -> int:
    """Run an app to its end."""
    ended = await forza.run(["node", "app.js"], to=["tcp:127.0.0.1:1337"])
    assert_type(ended, forza.Exit)
    assert_type(ended.exit_status, int)
    assert_type(ended.term_signal, int)
    assert_type(ended.core, bool)
    return ended.code


async def thorough(words: tuple[str, ...]) -> str:
    """Set everything that can be set."""
    said: list[str] = []
    monitor = forza.Monitor(
        words,
        to=("stdout:", "file:/tmp/events"),
        plugins=["all", "my.disk:Disk", Disk, make_disk, Quiet],
        plugin_options={"disk": {"path": "/"}},
        hostname="drone-7",
        app_user="maciej",
        app_name="truth",
        start_log="/tmp/start.log",
        grace=5,
        flush_timeout=2.5,
        buffer=1 << 20,
        env=os.environ,
        cwd="/srv",
        uid=1000,
        gid=1000,
        ipc=False,
        say=said.append,
        loop=asyncio.get_running_loop(),
    )
    async with monitor as same:
        assert_type(same, forza.Monitor)
        assert_type(monitor.process, forza.Process | None)
        monitor.send("app/release", 1.0, "1.2.3", {"by": "maciej"}, lifecycle=True)
        monitor.send("app/queue", 3)
        monitor.kill(signal.SIGUSR1)
        monitor.stop(signal.SIGINT)
        assert_type(await monitor.wait(), forza.Exit)
    assert_type(monitor.ended, forza.Exit | None)
    return forza.__version__


async def careful() -> None:
    """Meet every kind of error."""
    try:
        await simple()
    except forza.SpawnError as error:
        assert_type(error.errno, int | None)
    except (forza.PluginError, forza.PortError, forza.SinkError):
        raise
    except forza.UsageError as error:
        raise SystemExit(2) from error
    except forza.ForzaError as error:
        raise SystemExit(str(error)) from None
