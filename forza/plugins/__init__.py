# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find plugins by name and load them: built-in, `module:attr`, or an entry point."""

from __future__ import annotations

from forza._errors import ForzaError, PluginError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from forza._monitor import Monitor
    from forza.typing import Plugin

    Factory = Callable[[Monitor, Mapping[str, str]], Plugin]

# In the order in which they are called. `start` comes before `process`, whose exit
# event is the last word.
BUILT_IN = {
    "cpu": "Cpu",
    "mem": "Mem",
    "logs": "Logs",
    "heartbeat": "Heartbeat",
    "uptime": "Uptime",
    "start": "Start",
    "process": "Process",
}
ALL = tuple(BUILT_IN)
GROUP = "forza.plugins"
# What is called otherwise on the command line.
_OPTIONS = {("start", "stable"): "--stable", ("start", "watchdog"): "--watchdog"}


def in_order(names: Iterable[str | Factory]) -> list[str | Factory]:
    """Return the plugins to load, each once: `all` is the seven, `process` is last."""
    wanted: list[str | Factory] = []
    for name in names:
        wanted += ALL if name == "all" else (name,)
    unique = list(dict.fromkeys(wanted))
    return [n for n in unique if n != "process"] + [n for n in unique if n == "process"]


def short_name(name: str) -> str:
    """Return the name that a plugin's options begin with: `disk` for `my.disk:Disk`."""
    return name.rpartition(":")[2].rpartition(".")[2].lower()


def name_of(factory: object) -> str:
    """Return the short name of a plugin's class or factory."""
    return short_name(getattr(factory, "__name__", type(factory).__name__))


def is_known(name: str) -> bool:
    """Say whether `name` is worth a try: only loading tells for what is not ours."""
    return name == "all" or name in BUILT_IN or ":" in name or name in _entry_points()


def load(
    plugin: str | Factory,
    monitor: Monitor,
    options: Mapping[str, Mapping[str, str]],
) -> Plugin:
    """Make the plugin, given its options. Raises PluginError, which says why not."""
    if isinstance(plugin, str):
        name, factory = short_name(plugin), find(plugin)
    else:
        name, factory = name_of(plugin), plugin
    try:
        made = factory(monitor, options.get(name, {}))
    except ForzaError:
        raise
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        raise PluginError(f"cannot set up plugin {name}: {text}") from error
    if not callable(getattr(made, "run", None)):
        raise PluginError(f"cannot use plugin {name}: it has no coroutine 'run'")
    return made


def find(name: str) -> Factory:
    """Return the factory that `name` stands for."""
    if name in BUILT_IN:
        module, attr = f"forza.plugins.{name}", BUILT_IN[name]
    else:
        module, colon, attr = name.partition(":")
        if not colon:
            target = _entry_points().get(name)
            if target is None:
                raise PluginError(unknown(name))
            module, _, attr = target.partition(":")
    try:
        found = __import__(module, None, None, ["*"])
        for part in attr.split("."):
            found = getattr(found, part)
    except Exception as error:  # whatever it does when it is imported
        text = f"{type(error).__name__}: {error}"
        raise PluginError(f"cannot load plugin '{name}': {text}") from error
    if not callable(found):
        raise PluginError(f"cannot load plugin '{name}': it is not callable")
    factory: Factory = found
    return factory


def unknown(name: str) -> str:
    """Say that there is no such plugin, and which there are."""
    there = ", ".join((*BUILT_IN, *sorted(_entry_points())))
    return f"unknown plugin '{name}'; there are {there}, and MODULE:ATTR for your own"


def _entry_points() -> dict[str, str]:
    from importlib.metadata import entry_points  # 3 MB: only for a bare, odd name

    return {point.name: point.value for point in entry_points(group=GROUP)}


def number(plugin: str, options: Mapping[str, str], name: str, default: float) -> float:
    """Return the option as a number above 0. Raises PluginError, which names the option
    as the command line does."""
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        option = _OPTIONS.get((plugin, name), f"--{plugin}-{name}")
        raise PluginError(f"{option} must be a number above 0, not '{text}'")
    return value
