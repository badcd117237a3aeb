#!/bin/sh
# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
#
# Say `port=N` on descriptor 3 for each N given, then wait for the end of stdin.

for port in "$@"; do
    echo "port=$port" >&3
done
echo said
while read -r _; do :; done
