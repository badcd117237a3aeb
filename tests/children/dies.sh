#!/bin/sh
# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
#
# End by the signal named, without a core file.

ulimit -c 0
echo "about to get SIG$1"
kill -s "$1" $$
