// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Be the metrics server that forza was written for: godot, over TCP, on a free port.
//
// The first argument is the folder of the godot package. The port is printed first,
// then every event as godot's reactors get it, one JSON text a line.
'use strict'

const godot = require(process.argv[2])

const print = godot.reactor().map((event) => {
  process.stdout.write(JSON.stringify(event) + '\n')
  return event
})
const server = godot.createServer({ type: 'tcp', reactors: [print] })
// godot takes no port 0 for an answer, so the number is chosen here.
const probe = require('node:net').createServer()
probe.listen(0, '127.0.0.1', () => {
  const { port } = probe.address()
  probe.close(() => server.listen(port, '127.0.0.1', (error) => {
    if (error) throw error
    process.stdout.write(JSON.stringify({ port }) + '\n')
  }))
})
