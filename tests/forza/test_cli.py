# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The command line's grammar: every form, every slip, and no surprise for any words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import forza
from forza import cli, sinks
from forza._help import TEXT
from forza._options import FLAGS, OTHERS, PLUGINS, SETTINGS, START
from forza.plugins import ALL

COMMAND = ("node", "app.js")


def parse(*options: str) -> dict[str, Any]:
    """Parse these options before a command; return the settings."""
    args, settings = cli.parse((*options, "--", *COMMAND))
    assert args == COMMAND
    return settings


def test_defaults() -> None:
    """Without options: all seven plugins, to standard output."""
    assert parse() == {"to": ("stdout:",), "plugins": ALL, "plugin_options": {}}


@pytest.mark.parametrize(
    ("argv", "args"),
    [
        ("node app.js", ("node", "app.js")),
        ("-- node -h -p 80 -- x", ("node", "-h", "-p", "80", "--", "x")),
        ("-h a node -v", ("node", "-v")),
        ("-h -- node", ("node",)),
        ("--legacy-chunks node", ("node",)),
        ("-- -x", ("-x",)),
        ("-- -- x", ("--", "x")),
        ("-p 1 node --help", ("node", "--help")),
    ],
)
def test_command(argv: str, args: tuple[str, ...]) -> None:
    """The command begins after `--`, or at the first word that is no option's."""
    assert cli.parse(argv.split())[0] == args
    assert cli.asked_for(argv.split()) == ""


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("--help", "help"),
        ("-v", "version"),
        ("--version -- node", "version"),
        ("-h a --help", "help"),
        ("--version --help", "version"),
        ("--app-name --help", None),
    ],
)
def test_asked_for(argv: str, shown: str | None) -> None:
    """Help and version are asked for among forza's own options only."""
    if shown is None:
        with pytest.raises(forza.UsageError):
            cli.asked_for(argv.split())
    else:
        assert cli.asked_for(argv.split()) == shown


@pytest.mark.parametrize(
    ("options", "to"),
    [
        ("-h a", ["tcp:a:1337"]),
        ("-h", ["tcp:127.0.0.1:1337"]),
        ("-h -p 80", ["tcp:127.0.0.1:80"]),
        ("-p 80", ["tcp:127.0.0.1:80"]),
        ("-p 80 -h a", ["tcp:a:80"]),
        ("-h a -p 80", ["tcp:a:80"]),
        ("-h a:1 -p 80", ["tcp:a:1"]),
        ("-h a -h b:2 -h c -p 80", ["tcp:a:80,b:2,c:80"]),
        ("-h a -p 80 -h b -p 90", ["tcp:a:80,b:90"]),
        ("-h a -p 80 -h b", ["tcp:a:80,b:80"]),
        ("-h ::1 -p 80", ["tcp:[::1]:80"]),
        ("-h [::1]:80 -h b", ["tcp:[::1]:80,b:1337"]),
        ("--host=a --port=80", ["tcp:a:80"]),
        ("--to tcp:a:1", ["tcp:a:1"]),
        ("--to file:/x --to stdout:", ["file:/x", "stdout:"]),
        ("--to stdout: -h a", ["tcp:a:1337", "stdout:"]),
        ("--to=tcp://a:1,b:2 -h c -h d", ["tcp:c:1337,d:1337", "tcp://a:1,b:2"]),
    ],
)
def test_sinks(options: str, to: list[str]) -> None:
    """All hosts together are one sink, each URL is another."""
    assert parse(*options.split())["to"] == tuple(to)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("--hostname here", {"hostname": "here"}),
        ("--hostname=a=b", {"hostname": "a=b"}),
        ("--app-user u --app-name n", {"app_user": "u", "app_name": "n"}),
        ("--start-log /tmp/x", {"start_log": "/tmp/x"}),
        ("--grace 0", {"grace": 0.0}),
        ("--grace 1.5 --flush-timeout 2e1", {"grace": 1.5, "flush_timeout": 20.0}),
        ("--grace 1 --grace 2", {"grace": 1.0}),
        ("--buffer 524288", {"buffer": 524288}),
        ("--buffer 512k", {"buffer": 524288}),
        ("--buffer 2M", {"buffer": 2 << 20}),
        ("--ipc auto", {"ipc": None}),
        ("--ipc yes", {"ipc": True}),
        ("--ipc=no", {"ipc": False}),
        ("--cwd /tmp", {"cwd": "/tmp"}),
        ("--stop-signal QUIT", {"stop_signal": 3}),
        ("--stop-signal sigint", {"stop_signal": 2}),
        ("--stop-signal 12", {"stop_signal": 12}),
        ("--stop-signal RTMIN+2", {"stop_signal": 36}),
        ("--signal TERM=INT", {"signals": {15: 2}}),
        ("--signal SIGHUP= --signal 10=usr2", {"signals": {1: 0, 10: 12}}),
        ("--signal TERM=INT --signal TERM=QUIT", {"signals": {15: 2}}),
        ("--user 7:8", {"uid": 7, "gid": 8}),
        ("--user root", {"uid": 0, "gid": 0}),
        ("--user 7:root --user root", {"uid": 7, "gid": 0}),
    ],
)
def test_settings(options: str, settings: dict[str, object]) -> None:
    """Options are the monitor's own arguments; the first of each counts."""
    expected = {**parse(), **settings}
    assert parse(*options.split()) == expected


@pytest.mark.parametrize(
    ("options", "plugins", "its"),
    [
        ("--plugin cpu", ("cpu",), {}),
        ("--plugin cpu --plugin=logs", ("cpu", "logs"), {}),
        ("--plugin all --plugin my.mod:Disk", (*ALL, "my.mod:Disk"), {}),
        ("--cpu-interval 5", ALL, {"cpu": {"interval": "5"}}),
        (
            "--heartbeat-interval=0.5 --start-timeout 60",
            ALL,
            {"heartbeat": {"interval": "0.5"}, "start": {"timeout": "60"}},
        ),
        ("--cpu-interval 5 --cpu-interval 6", ALL, {"cpu": {"interval": "5"}}),
        ("--legacy-chunks", ALL, {"logs": {"chunks": "yes"}}),
        ("--logs-rate 10 --logs-rate 20", ALL, {"logs": {"rate": "10"}}),
        (
            "--disk-path / --plugin my.mod:Disk --disk-a-b=c",
            ("my.mod:Disk",),
            {"disk": {"path": "/", "a-b": "c"}},
        ),
    ],
)
def test_plugins(
    options: str, plugins: tuple[str, ...], its: dict[str, dict[str, str]]
) -> None:
    """Plugins are chosen, and given their options, wherever these stand."""
    parsed = parse(*options.split())
    assert parsed["plugins"] == plugins
    assert parsed["plugin_options"] == its


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--grace nan", "'nan'"),
        ("--grace inf", "'inf'"),
        ("--grace=", "''"),
        ("--flush-timeout 1s", "'1s'"),
        ("--buffer 511K", "at least 512K"),
        ("--buffer 64KB", "'64KB'"),
        ("--buffer 1T", "'1T'"),
        ("--buffer=-1", "'-1'"),
        ("--buffer K", "'K'"),
        ("--buffer \u0663", "'\u0663'"),
        ("--ipc maybe", "'maybe'"),
        ("--help=x", "takes no value"),
        ("--stop-signal FOO", "'FOO' is no signal"),
        ("--stop-signal _DFL", "'_DFL' is no signal"),
        ("--stop-signal 0", "'0' is no signal"),
        ("--stop-signal 65", "'65' is no signal"),
        ("--stop-signal RTMIN+31", "'RTMIN+31' is no signal"),
        ("--stop-signal TERM+1", "'TERM+1' is no signal"),
        ("--signal TERM", "--signal must be as TERM=INT or HUP=, not 'TERM'"),
        ("--signal TERM=X", "'X' is no signal"),
        ("--signal KILL=TERM", "forza does not pass KILL on"),
        ("--signal CHLD=TERM", "forza does not pass CHLD on"),
        ("--user no-such-user", "there is no user 'no-such-user'"),
        ("--user root:no-such-group", "there is no group 'no-such-group'"),
        ("--user 4294967295:1", "--user must be a user there can be"),
        ("--user 1:4294967295", "--user must be a user there can be"),
        ("--user 7", "--user must name a group, too, as 7:GROUP"),
        ("--legacy-chunks=yes", "takes no value"),
        ("-hx", "unknown option -hx"),
        ("-p80", "unknown option -p80"),
        ("-", "unknown option -"),
        ("---", "option ---"),
        ("--app-x y", "unknown option --app-x"),
        ("--cpu-timeout 5", "unknown option --cpu-timeout"),
        ("--plugin logs --cpu-interval 5", "unknown option --cpu-interval"),
        ("--cpu-interval nan", "--cpu-interval must be a number above 0, not 'nan'"),
        ("--cpu-interval inf", "'inf'"),
        ("--cpu-interval=-1", "'-1'"),
        ("--start-timeout 0", "--start-timeout must be a number above 0"),
        ("--watchdog 0", "--watchdog must be a number of seconds above 0, not '0'"),
        ("--logs-cr first", "--logs-cr must be keep or last, not 'first'"),
        ("--host=", "--host must name a host, not ''"),
        ("-h a,", "--host must name a host, not 'a,'"),
        ("--plugin no-such", "unknown plugin 'no-such'"),
        ("--to amqp:a", "'amqp:a'"),
        ("--to file:", "it names no file"),
        ("--to", "--to needs a value"),
        ("--hostname", "--hostname needs a value"),
    ],
)
def test_usage_error(options: str, says: str) -> None:
    """A slip is one line that names the culprit."""
    with pytest.raises(forza.UsageError) as caught:
        parse(*options.split())
    assert not isinstance(caught.value, forza.PortError)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_host_and_an_empty_one() -> None:
    """--host alone is this machine; a variable that is empty is a slip."""
    _, settings = cli.parse(["-h", "--", "true"])
    assert settings["to"] == ("tcp:127.0.0.1:1337",)
    with pytest.raises(forza.UsageError, match="--host must name a host, not ''"):
        cli.parse(["-h", "", "--", "true"])


@pytest.mark.parametrize(
    "options",
    [
        *("-p 0", "-p 65536", "-p x", "--port=", "-p 1.5", "-p +1", "-p \u0663"),
        *("-h a:0", "-h a:x", "-h [::1]:x", "--to tcp:a:1,b:0"),
        "-p " + "9" * 5000,
    ],
    ids=lambda options: options[:20],
)
def test_bad_port(options: str) -> None:
    """A port that is none is an error of its own kind."""
    with pytest.raises(forza.PortError):
        parse(*options.split())


@pytest.mark.parametrize("options", [["--buffer", "9" * 5000], ["--grace", "9" * 5000]])
def test_absurd_numbers(options: list[str]) -> None:
    """A number of thousands of digits is a slip like others."""
    with pytest.raises(forza.UsageError):
        parse(*options)


@pytest.mark.parametrize("argv", [(), ("--",), ("-h", "a"), ("-h", "a", "--")])
def test_no_command(argv: tuple[str, ...]) -> None:
    """Without a command there is nothing to do."""
    with pytest.raises(forza.UsageError, match="no command given"):
        cli.parse(argv)


LONG = [f"--{name}" for name in (*SETTINGS, *START, *FLAGS, *OTHERS)]
NAMES = LONG + list(cli._SHORT)
WORDS = st.one_of(
    st.sampled_from([*NAMES, "--", "-", "--=", "=", "", "--x-y"]),
    st.sampled_from(["--cpu-interval", "--start-timeout", "--disk-path", "-h=", "-p="]),
    st.sampled_from(
        ["80", "0", "a", "a:1", "::1", "[::1]:2", "::1,x:y,z", "[a,b:c]:1"]
    ),
    st.sampled_from(
        ["1e9", "nan", "64K", "stdout:", "file:x", "tcp:a,b:x", "cpu", ":"]
    ),
    st.sampled_from(["all", "m:a", "yes", "\u0663", "\udcff", "\udcff:1", "-p=80"]),
    st.text(st.characters(exclude_categories=()), max_size=6),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.text(max_size=6)),
)


@settings(max_examples=400)
@given(st.lists(WORDS, max_size=8))
@example(["-h", "::1,x:y,z", "a"])
@example(["-h", "[a,b:c]:1", "a"])
@example(["--plugin", ":", "a"])
@example(["--user", "\0", "a"])
@example(["--user", "0:\0", "a"])
@example(["--user", "\udcff:\u00b2", "a"])
@example(["--user", "9" * 5000, "a"])
def test_any_words(argv: list[str]) -> None:
    """Any words are understood or are a UsageError; what is understood can be used."""
    try:
        shown = cli.asked_for(argv)
        if shown:
            assert f"--{shown}" in argv or "-v" in argv
            return
        args, settings = cli.parse(argv)
    except forza.UsageError:
        return
    assert args == tuple(argv[len(argv) - len(args) :])
    assert args
    for url in settings["to"]:
        sinks.check(url)
    forza.Monitor(args, **{k: v for k, v in settings.items() if k != "keep"})


def test_help_is_complete() -> None:
    """Each option is in the help, and the help has no other."""
    logs = {f"--logs-{name}" for name in PLUGINS["logs"] if name != "chunks"}
    plugins = {"--cpu-interval", "--start-timeout", *logs}
    told = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    known = set(LONG)
    assert told - plugins == known
    assert logs <= told
    assert set(re.findall(r"  (-\w),", TEXT)) == set(cli._SHORT)
    for name in ALL:
        assert name in TEXT


def test_examples_of_the_help() -> None:
    """What the help shows can be parsed."""
    shown = re.findall(r"^  forza (.*?)(?: {3,}.*| > .*)?$", TEXT, re.MULTILINE)
    assert len(shown) >= 5
    for line in shown:
        args, _ = cli.parse(line.split())
        assert args == COMMAND
