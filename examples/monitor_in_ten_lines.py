# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run a command under forza from a program of one's own, and leave with its status."""

import asyncio
import sys

import forza


async def main() -> int:
    ended = await forza.run(sys.argv[1:] or ["node", "app.js"], to=["stdout:"])
    print(f"ended with {ended.exit_status}, {ended.term_signal}", file=sys.stderr)
    return ended.code


sys.exit(asyncio.run(main()))
