# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Hold the version, read by the build, by `forza --version` and by nobody else."""

__version__ = "1.0.0.dev0"
