# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Put into the app's environment what readiness needs there, before it is spawned."""

from __future__ import annotations

import os

from forza import _native
from forza._errors import ForzaError
from forza._files import attempt
from forza.ready import DEFAULT, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from forza._process import ProcessOptions

_HOOK = "libbind.so"
_NET_BIND_SERVICE = 10
_HTTP = 80


def prepare(
    options: Mapping[str, str], process: ProcessOptions, *, platform: bool
) -> int:
    """Complete the app's environment; return the descriptor that `Notify` reads, or -1
    if nothing is to be heard.

    `options` are those of the plugin `start`; `platform` says that a platform runs the
    app, which takes whatever port it gets. Raises ForzaError.
    """
    kinds = dict(sources(options.get("ready", DEFAULT)))
    notify = "notify" in kinds or "watchdog" in options
    preload = hook(options, process, platform=platform)
    if not notify and not preload:
        return -1
    from forza.ready.notify import listen

    fd, name = listen(kinds.get("notify", ""))
    env = dict(os.environ if process.env is None else process.env)
    if notify:
        env["NOTIFY_SOCKET"] = name
        for variable in ("WATCHDOG_PID", "WATCHDOG_USEC"):  # a service manager's
            env.pop(variable, None)
        if "watchdog" in options:
            env["WATCHDOG_USEC"] = str(int(float(options["watchdog"]) * 1e6))
    if preload:
        moves, path = preload
        env["LD_PRELOAD"] = ":".join(filter(None, (path, env.get("LD_PRELOAD"))))
        env["FORZA_BIND"] = f"{moves}:{name}"
    process.env = env
    return fd


def hook(
    options: Mapping[str, str], process: ProcessOptions, *, platform: bool
) -> tuple[str, str] | None:
    """Return what the bind hook shall do, and where it is, or None for no hook.

    `u`: leave a port that is in use for the next; `a`: listen on every address. Raises
    ForzaError if there must be one and is none.
    """
    wanted = options.get("bind-hook", "auto")
    every = "a" if "bind-any" in options else ""
    if wanted == "off" or (
        wanted == "auto" and not every and not platform and _may_have_low_ports(process)
    ):
        return None
    path = _native.path(_HOOK)
    usable = path is not None and not set(" :") & set(path)
    if path is not None and usable:
        return ("u" if wanted == "on" or platform else "") + every, path
    if wanted == "auto" and not every:
        return None
    reason = (
        "it was not built when forza was installed, for want of a C compiler"
        if path is None
        else f"the linker cannot load it from a path with a space or colon: {path}"
    )
    raise ForzaError(f"cannot preload the bind hook: {reason}")


def _may_have_low_ports(process: ProcessOptions) -> bool:
    first = attempt("/proc/sys/net/ipv4/ip_unprivileged_port_start").strip()
    if first.isdigit() and int(first) <= _HTTP:
        return True
    status = attempt("/proc/self/status")
    becomes_plain = process.uid not in (None, 0)
    # Whoever is not root hands on by exec what is in the ambient set alone.
    kind = b"CapEff:" if os.geteuid() == 0 else b"CapAmb:"
    _, _, after = status.partition(b"\n" + kind)
    allowed = int(after.split(None, 1)[0], 16) if after else 0
    return not becomes_plain and bool(allowed >> _NET_BIND_SERVICE & 1)
