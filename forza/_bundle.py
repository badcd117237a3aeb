# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Load what forza needs to start the app from one file instead of twenty: the app runs
a millisecond sooner.

_strip.py makes the file. If a module was changed since, all are loaded as ever, and
the file is removed: the monitor, which has more time, has it made anew.
"""

# No `from __future__` here: this comes before its stand-in.

import os
import sys
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from importlib.util import MAGIC_NUMBER
    from types import ModuleType
else:  # `importlib` itself would have to be imported
    from _frozen_importlib import ModuleSpec
    from _frozen_importlib_external import MAGIC_NUMBER

HOME = os.path.dirname(os.path.abspath(__file__))
PATH = f"{HOME}/__pycache__/first.{sys.implementation.cache_tag}.bundle"


class Bundle:
    """Finds and loads the modules in the file."""

    def __init__(self, modules: "dict[str, tuple[str, bytes]]") -> None:
        # By name: the source, and what would be its .pyc.
        self._modules = modules

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> "ModuleSpec | None":
        """Find a module, if it is in the file and as it was when that was made."""
        if name not in self._modules:
            return None
        source, data = self._modules[name]
        source = f"{HOME}/{source}"
        if not _is_of(data, source):
            self._modules = {}
            _remove()
            return None
        spec = ModuleSpec(name, self, origin=source)  # type: ignore[arg-type]
        if source.endswith("/__init__.py"):
            spec.submodule_search_locations = [os.path.dirname(source)]
        return spec

    def create_module(self, spec: "ModuleSpec") -> None:
        """Leave it to the import system."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run a module's code."""
        source, data = self._modules.pop(module.__name__)
        module.__file__ = f"{HOME}/{source}"
        exec(loads(memoryview(data)[16:]), vars(module))


def install() -> None:
    """Load so what is imported from now on, if the file is there."""
    try:
        with open(PATH, "rb", 0) as file:
            data = file.read()
        sys.meta_path.insert(0, Bundle(loads(data)))
    except OSError:
        pass
    except (EOFError, ValueError, TypeError):  # the machine went down, say
        _remove()


def _is_of(data: bytes, source: str) -> bool:
    """Say whether this Python has compiled that, and compiled it of what is there."""
    try:
        about = os.stat(source)
    except OSError:
        return False
    time, size = (int.from_bytes(data[at : at + 4], "little") for at in (8, 12))
    its = int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF
    return data[:4] == MAGIC_NUMBER and (time, size) == its


def _remove() -> None:
    try:
        os.unlink(PATH)
    except OSError:  # nor could the monitor make it anew
        pass
