// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Answer by lines of JSON what npm's semver says: [range, versions] -> which are in it.
const semver = require(process.argv[2])
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const [range, versions] = JSON.parse(line)
  const valid = semver.validRange(range) !== null
  console.log(JSON.stringify({
    valid,
    parsed: versions.map((version) => {
      const found = semver.parse(version)
      return found && found.version
    }),
    within: valid ? versions.map((version) => semver.satisfies(version, range)) : [],
    best: valid ? semver.maxSatisfying(versions.filter((v) => semver.valid(v)), range) : null
  }))
})
