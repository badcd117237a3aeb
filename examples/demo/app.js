// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// A small web app: it answers HTTP, logs, and reports a metric of its own.
// It knows nothing of forza; process.send is node's, and absent without a parent.
'use strict'

const http = require('node:http')

let visits = 0
let ticks = 0

const server = http.createServer((request, response) => {
  visits += 1
  console.log(`${request.method} ${request.url}`)
  response.end(`visit ${visits}\n`)
})

server.listen(Number(process.env.DEMO_PORT || 0), '127.0.0.1', () => {
  const { port } = server.address()
  console.log(`listening on http://127.0.0.1:${port}`)
  if (process.send) process.send(`port=${port}`)
  setInterval(() => {
    ticks += 1
    console.log(`tick ${ticks}`)
    if (ticks % 3 === 0) http.get({ port, path: `/ticks/${ticks}` }, (r) => r.resume())
    if (ticks % 5 === 0) console.error('\u001b[33mfive ticks have passed\u001b[39m')
    if (process.send) process.send({ service: 'demo/visits', metric: visits })
  }, 1000)
})

function stop (why) {
  console.log(`${why}: bye after ${ticks} ticks and ${visits} visits`)
  process.exit()
}

process.on('SIGINT', () => stop('SIGINT'))
process.on('SIGTERM', () => stop('SIGTERM'))
if (process.env.DEMO_SECONDS) {
  setTimeout(() => stop('time is up'), process.env.DEMO_SECONDS * 1000)
}
