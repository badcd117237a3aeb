// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Listen as told, and end with stdin: `PORT [HOST]` once or more, separated by `+`;
// `udp` binds a UDP port first, `thread` does the rest in a worker thread.
'use strict'

const { Worker, isMainThread, workerData } = require('node:worker_threads')

const listen = (words) => {
  const [port, host] = words
  const server = require('node:http').createServer((_, response) => response.end('hi'))
  server.on('error', (error) => console.log(`refused ${error.code}`))
  server.listen(Number(port), host, () => {
    console.log(`bound ${server.address().port}`)
  })
}

const begin = (words) => {
  if (words[0] === 'udp') {
    require('node:dgram').createSocket('udp4').bind(0, () => begin(words.slice(1)))
  } else if (words[0] === 'thread' && isMainThread) {
    new Worker(__filename, { workerData: words.slice(1) })
  } else {
    words.join(' ').split(' + ').forEach((each) => listen(each.split(' ')))
  }
}

begin(isMainThread ? process.argv.slice(2) : workerData)
if (isMainThread) process.stdin.on('end', () => process.exit()).resume()
