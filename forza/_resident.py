# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Load forza's modules without what only people and tools read: 130 kB in a monitor."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import FileFinder, SourceFileLoader
    from importlib.util import cache_from_source
else:  # `importlib` itself would have to be imported
    from _frozen_importlib_external import (
        FileFinder,
        SourceFileLoader,
        cache_from_source,
    )

# How the compiled files are called: MODULE.cpython-311.opt-resident.pyc.
_TAG = "resident"


class Resident(SourceFileLoader):
    """Takes what _strip.py has compiled, or has it do so; else what Python compiles."""

    tried = False

    def get_data(self, path: str) -> bytes:
        """Return what is in a file: a module's source, or what is compiled of it."""
        if path[-4:] == ".pyc":
            found = self._stripped() or (_compile() and self._stripped())
            if found:
                return found
        return super().get_data(path)

    def _stripped(self) -> bytes:
        """Return what was compiled of the source as it is now, if it was."""
        try:
            data = super().get_data(cache_from_source(self.path, optimization=_TAG))
            about = os.stat(self.path)
        except OSError:
            return b""
        made_of = (
            int.from_bytes(data[8:12], "little"),
            int.from_bytes(data[12:16], "little"),
        )
        its = int(about.st_mtime) & 0xFFFFFFFF, about.st_size & 0xFFFFFFFF
        return data if made_of == its else b""


def install() -> None:
    """Load so what is imported of forza from now on."""
    folder = os.path.dirname(os.path.abspath(__file__))
    first = f"{folder}/__pycache__/first.{sys.implementation.cache_tag}.bundle"
    if not os.access(first, os.F_OK):  # see _bundle.py
        _compile()

    def hook(path: str) -> FileFinder:
        if path != folder and not path.startswith(f"{folder}/"):
            raise ImportError
        return FileFinder(path, (Resident, [".py"]))

    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.pop(folder, None)


def _compile() -> bool:
    """Have all of forza compiled, by a process that may take what that needs: once,
    as the first monitor after an installation."""
    folder = os.path.dirname(os.path.abspath(__file__))
    if Resident.tried or not os.access(folder, os.W_OK):
        return False
    Resident.tried = True
    options = ("-I", "-S", "-X", "no_debug_ranges")
    words = (sys.executable, *options, f"{folder}/_strip.py", folder)
    null = [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
    try:
        os.waitpid(os.posix_spawn(words[0], words, {}, file_actions=null), 0)
    except OSError:
        return False
    return True
