// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Say two things and quit after a second, before ever having started.
'use strict'

setTimeout(() => console.log('100 ms'), 100)
setTimeout(() => console.log('500 ms'), 500)
setTimeout(() => process.exit(), 1000)
