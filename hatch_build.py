# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Compile forza/_native/*.c when forza is installed: if that can be, or not at all.

`NAME.c` becomes the program `NAME`, `libNAME.c` the shared object `libNAME.so`. A
machine without a compiler gets the same package without them. CC and CFLAGS are heeded.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FLAGS = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]


class NativeBuildHook(BuildHookInterface[Any]):
    """Build what there is a compiler for, and name the wheel's platform if so."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile each source into the folder it lies in."""
        folder = Path(self.root, "forza", "_native")
        built = [
            path for path in map(self._compile, sorted(folder.glob("*.c"))) if path
        ]
        if not built:
            return
        build_data["artifacts"] += [f"/forza/_native/{path.name}" for path in built]
        # What was compiled is for this platform; Python's version does not matter.
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def clean(self, versions: list[str]) -> None:
        """Remove what was compiled."""
        for source in Path(self.root, "forza", "_native").glob("*.c"):
            _target(source).unlink(missing_ok=True)

    def _compile(self, source: Path) -> Path | None:
        target = _target(source)
        # A static program starts in half the time, and heeds no LD_PRELOAD that is
        # meant for the app. Not every system has the libraries for it.
        shared = target.suffix == ".so"
        ways = [["-shared", "-fPIC"]] if shared else [["-static"], []]
        for way in ways:
            made = target.with_name(f"{target.name}.{os.getpid()}")
            command = [
                *shlex.split(os.environ.get("CC") or "cc"),
                *FLAGS,
                *way,
                *shlex.split(os.environ.get("CFLAGS", "")),
                *("-o", str(made), str(source)),
                *(["-ldl"] if shared else []),
            ]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except (OSError, subprocess.CalledProcessError) as error:
                made.unlink(missing_ok=True)
                reason = getattr(error, "stderr", None) or str(error)
                continue
            # Whoever runs the one of before goes on with that.
            made.replace(target)
            return target
        self.app.display_warning(
            f"forza: {source.name} is left out, since it cannot be compiled "
            f"({reason.strip()})"
        )
        return None


def _target(source: Path) -> Path:
    stem = source.stem
    name = f"{stem}.so" if stem.startswith("lib") else stem
    return source.with_name(name)
