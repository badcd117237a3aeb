# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The commands of the program `solenoid` that work on many drones.

Each is a module of the same form as those of `solenoid.commands`.
"""
