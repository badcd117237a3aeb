// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// Have a child that is detached, says `ready`, and outlives whoever does not end it.

const { spawn } = require('child_process');

spawn('sh', ['-c', "trap '' TERM HUP INT; echo ready; sleep 1000 & wait"], {
  detached: true,
  stdio: ['ignore', 'inherit', 'inherit'],
}).unref();
setInterval(() => {}, 1000);
