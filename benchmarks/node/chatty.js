// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// Short lines, one console.log each: node chatty.js PIDDIR GO LINES RESULT
// Waits for a byte on the fifo GO, writes to RESULT the nanoseconds it took.

const fs = require('fs');

const [piddir, go, lines, result] = process.argv.slice(2);
fs.writeFileSync(`${piddir}/${process.pid}`, '');
fs.readSync(fs.openSync(go, 'r'), Buffer.alloc(1));

const start = process.hrtime.bigint();
for (let i = 0; i < Number(lines); i++) {
  console.log(`GET /things/${i} 200 Q`);
}
const took = process.hrtime.bigint() - start;

fs.writeFileSync(`${result}.draft`, String(took));
fs.renameSync(`${result}.draft`, result);
setInterval(() => {}, 1 << 30);
