# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""What the commands have in common that change an app and bring nothing new."""

from __future__ import annotations

from typing import TYPE_CHECKING

from solenoid.drones.commands._app import app_of, drones_of, place_of
from solenoid.drones.commands._change import Change, carry_out, chosen
from solenoid.drones.commands._options import inventory_of, strategy_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from solenoid.drones._inventory import App
    from solenoid.drones._place import Place
    from solenoid.drones._visit import Action


async def change_app(
    options: argparse.Namespace, make: Callable[[Place, App], Action]
) -> int:
    """Do to an app, on all its drones, what `make` returns."""
    inventory = inventory_of(options)
    app = app_of(options, inventory)
    assert app.run_dir is not None
    action = make(place_of(options, app), app)
    scope = f"{options.drones} {app.run_dir}"
    drones = chosen(options, action.verb, scope, drones_of(app, inventory))
    about = {"app": app.name, "version": "", "run_dir": app.run_dir}
    strategy = strategy_of(options, app)
    return await carry_out(options, Change(action, drones, strategy, scope, about))
