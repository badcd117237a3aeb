// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Serve a port by two workers of node's cluster; end with stdin.
'use strict'

const cluster = require('node:cluster')

if (cluster.isPrimary) {
  for (let n = 0; n < 2; n++) cluster.fork()
  cluster.on('listening', (worker, address) => {
    console.log(`worker on ${address.port}`)
  })
  cluster.on('exit', () => console.log('worker ended'))
  process.stdin.on('end', () => {
    for (const worker of Object.values(cluster.workers)) worker.kill()
    process.exit()
  }).resume()
} else {
  const server = require('node:http').createServer((_, response) => response.end('hi'))
  server.on('error', (error) => {
    console.log(`refused ${error.code}`)
    process.exit(1)
  })
  server.listen(Number(process.argv[2]))
}
