# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run on a drone that need not have solenoid: sent as text, standard library only."""
