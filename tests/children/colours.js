// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Write 1024 coloured lines to each of stdout and stderr, then end.
'use strict'

for (let n = 0; n < 1024; n++) {
  console.log(`\u001b[32mout ${n}\u001b[39m "quoted" \\ back`)
  console.error(`\u001b[1;31merr ${n}\u001b[0m\ttab`)
}
