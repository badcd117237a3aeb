# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Find plugins by name and load them."""
