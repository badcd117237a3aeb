# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Keep on disk what a sink has not delivered yet, so that no crash can lose it.

    DIR/lock            taken while room is made for a new file
    DIR/N/              a lane: what one sink of one monitor at a time has to deliver
    DIR/N/state         its lock, how far it is delivered, and the sink's URL
    DIR/N/logs-EVENTS   batches of logs and readings, oldest file first
    DIR/N/life-EVENTS   batches of lifecycle events

Every batch is on disk before the sink gets it. A monitor that starts takes over a lane
that a dead one has left, delivers what is in it, and appends its own.
"""
