// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// A small web server with nobody asking: node idle.js PIDDIR

const fs = require('fs');
const http = require('http');

const server = http.createServer((request, response) => response.end('hello\n'));
server.listen(0, '127.0.0.1', () => {
  fs.writeFileSync(`${process.argv[2]}/${process.pid}`, '');
});
