# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run one app and ship its metrics and logs."""
