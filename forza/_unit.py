# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Print what brings a kept command back after a reboot, for the machine's own init."""

from __future__ import annotations

import os
import shlex
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# TimeoutStartSec: a start takes as long as it takes, and what crashes is restarted.
# Delegate: forza gives the app a cgroup of its own.
# Restart: the keeper that ends by itself has a reason; one that was killed has not.
SYSTEMD = """\
# /etc/systemd/system/{name}.service
[Unit]
Description={name}, kept by aeternum
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=all
User={user}
WorkingDirectory={folder}
Environment={path}
ExecStart={command}
ExecReload=/bin/kill -USR1 $MAINPID
TimeoutStartSec=infinity
TimeoutStopSec={stop:.0f}
Restart=on-abnormal
RestartSec=5
KillMode=mixed
Delegate=yes
OOMPolicy=continue

[Install]
WantedBy=multi-user.target
"""
OPENRC = """\
#!/sbin/openrc-run
# /etc/init.d/{name}
description={description}
directory={folder}
command={program}
command_args={words}
command_user={user}
command_background=true
pidfile=/run/{name}.keeper.pid
retry="TERM/{stop:.0f}"
export PATH={path}

depend() {{
    need net
}}
"""
# What an init gives its services, where it gives any.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
INITS = ("--systemd", "--openrc", "--cron")


def unit(init: str, words: Sequence[str], name: str, grace: float, command: str) -> str:
    """Return the text for this init; `words` are aeternum's options and the command,
    `grace` is how long a stop may take, `command` the program that the app is."""
    from pwd import getpwuid

    program = [sys.executable, "-m", "forza.aeternum"]
    script = os.path.join(os.path.dirname(sys.executable), "aeternum")
    if os.access(script, os.X_OK):
        program = [script]
    path = _path(command)
    user, folder, stop = getpwuid(os.getuid()).pw_name, os.getcwd(), grace + 5
    if init == "--cron":
        start = shlex.join([*program, "start", *words])
        line = f"cd {shlex.quote(folder)} && PATH={shlex.quote(path)} {start}"
        # To cron a bare % is the end of the command.
        return f"@reboot {line.replace('%', chr(92) + '%')} >/dev/null\n"
    if init == "--openrc":
        return OPENRC.format(
            name=name,
            description=shlex.quote(f"{name}, kept by aeternum"),
            folder=shlex.quote(folder),
            program=shlex.quote(program[0]),
            # openrc-run evaluates it as the shell does.
            words=shlex.quote(shlex.join([*program[1:], "run", *words])),
            user=shlex.quote(user),
            path=shlex.quote(path),
            stop=stop,
        )
    quoted = [_quote(word, _in_command) for word in (*program, "run", *words)]
    return SYSTEMD.format(
        name=name,
        user=user,
        folder=folder.replace("%", "%%"),
        path=_quote(f"PATH={path}", _in_setting),
        command=" ".join(quoted),
        stop=stop,
    )


def _path(command: str) -> str:
    """Return a service's PATH: the usual one, and where the app is found, first.

    Our own may have all that one person's shell has gathered.
    """
    from shutil import which

    folder = os.path.dirname(which(command) or "")
    if "/" in command or not folder or folder in PATH.split(":"):
        return PATH
    return f"{os.path.abspath(folder)}:{PATH}"


def _in_setting(word: str) -> str:
    return word.replace("%", "%%")


def _in_command(word: str) -> str:
    return _in_setting(word).replace("$", "$$")


def _quote(word: str, escape: Callable[[str], str]) -> str:
    """Write a word so that systemd takes it as it is."""
    plain = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    plain = escape(plain)
    safe = plain == word and word and not set(word) & set(" \t';")
    return plain if safe else f'"{plain}"'
