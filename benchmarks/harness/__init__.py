# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What the benchmark scripts share: set-up, processes, measuring, writing."""
