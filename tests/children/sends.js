// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Send metrics over node's IPC channel, and a message that is none; end when all left.
'use strict'

const messages = [
  { service: 'app/queue', metric: 12.5, description: 'jobs', meta: { shard: 'a' } },
  { service: 'app/ünï "x"', metric: -1 },
  { hello: 'plugin' },
  'only text',
  { service: 'app/last', metric: 0 }
]

const send = () => {
  const message = messages.shift()
  if (message !== undefined) process.send(message, send)
  else process.disconnect()
}
send()
