# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""A small PaaS: each snapshot in a folder becomes an app, restricted and watched.

    python examples/deploy_inbox.py INBOX APPS

starts INBOX/shop.tgz in APPS/shop, and so on for all of them at once. What is broken is
not started; if another release of it has run, that one runs on.
"""

import asyncio
import sys
from pathlib import Path

import solenoid


async def deploy(snapshot: Path, apps: Path) -> str:
    """Start one app; return the line to print about it."""
    name = snapshot.stem
    app = solenoid.App(environ={"PORT": "0"}, stable=0.5, start_timeout=60)
    try:
        done = await solenoid.start(apps / name, app, str(snapshot))
    except solenoid.StartError as error:
        last = error.output.strip().rpartition("\n")[2]
        return f"{name}: {error}; it said: {last}; {error.running or 'nothing'} runs"
    except solenoid.SolenoidError as error:
        return f"{name}: {error.step}: {error} (ask the {error.blame})"
    return f"{name}: http://127.0.0.1:{done.event['meta']['port']}/ ({done.release})"


async def main(found: list[Path], apps: Path) -> None:
    """Start them all."""
    for line in asyncio.as_completed([deploy(one, apps) for one in found]):
        print(await line)


if __name__ == "__main__":
    inbox, apps = map(Path, sys.argv[1:])
    asyncio.run(main(sorted(inbox.glob("*.tgz")), apps))
