// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Serve HTTP until told to stop; on SIGTERM and SIGINT say so, and end with status 3.
'use strict'

const server = require('node:http').createServer((_, response) => response.end('hi'))
server.listen(0, '127.0.0.1', () => console.log('listening'))

for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT']) {
  process.on(name, () => {
    console.log(`got ${name}`)
    server.close(() => {
      console.error('closed')
      process.exitCode = 3
    })
  })
}
