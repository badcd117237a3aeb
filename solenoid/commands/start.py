# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start an app: `solenoid start`."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from solenoid._app import App
from solenoid._errors import UsageError
from solenoid._policy import LEVELS
from solenoid._releases import KEEP
from solenoid._start import start
from solenoid.commands._options import (
    add_app,
    add_legacy_exit,
    add_pidfile,
    add_place,
    add_source,
    add_user,
    configuration,
    releases,
    run_dir,
    snapshot_url,
    system_user,
)
from solenoid.commands._stdin import first_line
from solenoid.commands._variables import add_variables, given_variables

if TYPE_CHECKING:
    from solenoid._config import Config
    from solenoid._console import Console

ABOUT = """\
Start a release: one that is there (`solenoid download` brings it), or with --from a new
one. What runs in the run directory is replaced; if the new release does not start, the
old one runs, still or again. Prints forza's start event, one line of JSON."""
MORE = """\
examples:
  solenoid start --from file:./shop.tgz --run-dir ./run
  solenoid start --from https://example.com/shop-1.2.0.tgz --sha256 DIGEST \\
      --run-dir /srv/shop --env-file - < secrets.env
  solenoid download -u alice -a shop -v 1.2.0        # these two as ever, with
  solenoid start -u alice -a shop -v 1.2.0 -p /run/shop.pid    # ~/.solenoidconf

With --from - the URL is the first line of standard input, before the variables. Without
-v it is the current release that starts (again); without variables it gets
those that it had. What the app says is in RUN_DIR/events.ndjson; `solenoid status`
tells how it is.

exit status: 0 the app runs; 21 it has not started; 22 it has not, and the old release
runs; other steps: 10 to 25, see docs/exit-codes.md.
"""

# The options that say what to start and where, or how to tell of it.
_WHAT = ("app_version", "run_dir", "config", "json", "legacy_exit")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_source(parser)
    add_app(parser)
    add_variables(parser)
    add_place(parser)
    add_pidfile(parser)
    _add_gate(parser)
    _add_restriction(parser)
    parser.add_argument(
        "-o",
        "--old-mode",
        action="store_true",
        help="download -u, -a, -v from the configured storage first, then start",
    )
    parser.add_argument(
        "--keep",
        type=releases,
        default=KEEP,
        metavar="N",
        help=f"keep the newest N releases ({KEEP}), and always the last good one",
    )
    parser.add_argument(
        "--forza",
        action="append",
        default=[],
        metavar="OPTION",
        help="a further option for forza, as --forza=--memory-soft=200M; repeat it",
    )
    add_legacy_exit(parser)


def _add_gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--min-uptime",
        type=milliseconds,
        metavar="MS",
        help="an app that ends before is not started again (2000)",
    )
    parser.add_argument(
        "-t",
        "--min-delay",
        type=milliseconds,
        metavar="MS",
        help="once started, it must live so long to count as started (1000)",
    )
    parser.add_argument(
        "-r",
        "--retries",
        type=int,
        metavar="N",
        help="taken, as the original's scripts give it; nothing is polled any more",
    )
    parser.add_argument(
        "--start-timeout",
        type=seconds,
        default=15.0,
        metavar="SECS",
        help="an app that has not started by then has failed (15)",
    )
    parser.add_argument(
        "--ready",
        action="append",
        default=[],
        metavar="HOW",
        help="when it counts as started: port (default), notify, http://..., log=REGEX"
        " and more: see forza --help; repeat it",
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=5.0,
        metavar="SECS",
        help="how long it may take to end after SIGTERM (5)",
    )
    parser.add_argument(
        "--order",
        choices=("auto", "start-first", "stop-first"),
        default="auto",
        help="whether the new release starts before the old one ends. auto: if the old"
        " one's port is one that the kernel has chosen. start-first with -u and -a: a"
        " port in use becomes the next, the start event has it",
    )


def _add_restriction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restrict",
        choices=LEVELS,
        default="default",
        help="default: all that this kernel can; strict: all or nothing; off: only a"
        " user of its own",
    )
    add_user(parser)
    parser.add_argument(
        "--explain",
        action="store_true",
        help="start nothing; say how the app would be restricted here, and how not",
    )


def milliseconds(word: str) -> float:
    """Take milliseconds, for seconds."""
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"not milliseconds: '{word}'")
    return int(word) / 1000


def seconds(word: str) -> float:
    """Take seconds."""
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"not a number of seconds: '{word}'")
    return found


async def run(options: argparse.Namespace, console: Console) -> int:
    """Start it, and print its start event."""
    config = await configuration(options, console)
    place = await run_dir(options, config)
    user = system_user(options)
    if options.explain:
        from solenoid.commands._explain import show

        return await show(options.restrict, user, place.path, console)
    if options.url == "-":
        options.url = await _first_line()
    url = _url(options, config)
    if options.system_user is not None and os.geteuid() != 0:
        console.warn(f"--system-user {user} takes root: the app runs as who we are")
    app = await _app(options, config, user)
    console.log_to(place.log)
    done = await start(
        place.path,
        app,
        url,
        sha256=options.sha256,
        config=config,
        as_before=_says_nothing(options),
        report=console,
    )
    console.info(f"release {done.release} runs, keeper {done.keeper}")
    console.event(done.event)
    return 0


def _says_nothing(options: argparse.Namespace) -> bool:
    """Say whether there is no word on how to start, only on what."""
    parser = argparse.ArgumentParser(add_help=False)
    add_options(parser)
    usual = vars(parser.parse_args([]))
    given = vars(options)
    return all(given[name] == usual[name] for name in usual.keys() - set(_WHAT))


async def _app(options: argparse.Namespace, config: Config, user: str) -> App:
    def chosen(given: float | None, configured: float) -> float:
        return configured if given is None else given

    return App(
        options.app_user,
        options.app_name,
        options.app_version,
        await given_variables(options),
        options.pidfile,
        user,
        options.restrict,
        options.order,
        tuple(options.ready),
        chosen(options.min_uptime, config.min_uptime),
        options.start_timeout,
        chosen(options.min_delay, config.min_delay),
        options.grace,
        not options.no_install,
        options.install_scripts,
        keep=options.keep,
        forza=tuple(options.forza),
    )


def _url(options: argparse.Namespace, config: Config) -> str | None:
    if options.old_mode and options.url is None:
        return snapshot_url(options, config)
    if options.sha256 is not None and options.url is None:
        raise UsageError("--sha256 goes with --from")
    url: str | None = options.url
    return url


async def _first_line() -> str:
    """Take a URL that is a secret, for it is signed: everybody can read arguments."""
    line = (await first_line()).decode("utf-8", "replace").strip()
    if not line:
        raise UsageError("--from -: there is no URL on standard input")
    return line
