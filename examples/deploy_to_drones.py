# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Start a snapshot on many drones from a program: one first, then half by half.

python deploy_to_drones.py drones.toml shop-1.2.0.tgz [OPTIONS OF solenoid start]
"""

import asyncio
import sys
from pathlib import Path

from solenoid import drones


async def main(source: str, snapshot: str, *options: str) -> bool:
    inventory = drones.load(source)
    app = next(iter(inventory.apps.values()))
    place = drones.Place(app.run_dir or "/opt/run/shop", drones.Wheelhouse())
    sent = await drones.Sent.of(Path(snapshot))
    action = drones.Start(place, sent, options=options, probe=app.probe)
    strategy = drones.Strategy(canary=1, batch="50%", max_fail=0)
    async with drones.Ssh() as ssh:
        run = drones.run(inventory.drones, action, strategy, ssh=ssh, wait=900)
        async for result in run:
            print(f"{result.drone}: {result.state} {result.release} {result.error}")
    return all(result.ok for result in run.results.values())


sys.exit(0 if asyncio.run(main(*sys.argv[1:])) else 1)
