#!/bin/sh
# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
#
# Repeat each line of stdin on stdout, until there are no more.

echo ready
while read -r line; do
    echo "$line"
done
