# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put into an app's stream what happens to it while it has no monitor.

The keeper has no loop and no sinks. So what it has to say is said by the next monitor,
as its first event; or, if there is not to be one, by a process for this alone.
"""

from __future__ import annotations

import os
import sys

from forza._errors import EXIT_SETUP, ForzaError
from forza._hooks import Hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from forza._monitor import Monitor

    # As `Monitor.send` takes them: service, metric, description, meta.
    News = tuple[str, float, str | None, Mapping[str, object]]
else:
    import _signal as signal  # `signal` itself costs hundreds of enum members


class First:
    """A plugin that sends one event before the app is there."""

    def __init__(self, monitor: Monitor, news: News) -> None:
        self._monitor = monitor
        self._news = news

    async def run(self) -> None:
        """It has all been said."""

    def process_options(self, _: object) -> None:
        self._monitor.send(*self._news, lifecycle=True)


def first(news: News) -> Callable[[Monitor, object], First]:
    """Return what makes the plugin."""
    return lambda monitor, _: First(monitor, news)


async def tell(monitor: Monitor, news: News) -> None:
    """Send one event to the monitor's sinks, and close those. Raises SinkError."""
    monitor._prepare()
    monitor._hooks = Hooks(monitor, ())
    await monitor._open_sinks()
    monitor.send(*news, lifecycle=True)
    await monitor._close_sinks(monitor._flush_timeout)


def leave(args: Sequence[str], settings: dict[str, Any]) -> NoReturn:
    """Tell the news that are in a monitor's settings, and end this process."""
    from forza._program import load_runtime, say, say_trouble

    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    news, code = settings.pop("news"), 0
    settings.pop("signals", None)
    try:
        make_loop, _ = load_runtime()
        from forza._monitor import Monitor

        loop = make_loop()
        loop.set_exception_handler(say_trouble)
        monitor = Monitor(args, loop=loop, say=say, **settings)
        task = loop.create_task(tell(monitor, news))
        task.add_done_callback(lambda _: loop.stop())
        loop.run_forever()
        task.result()
    except ForzaError as error:
        say(str(error))
        code = EXIT_SETUP
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = EXIT_SETUP
    os._exit(code)
