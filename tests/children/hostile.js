// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
// Try all that an app should not be able to do, say how each went, and go on serving.
'use strict';
const fs = require('fs');
const http = require('http');
const net = require('net');
const os = require('os');
const path = require('path');
const { execFileSync } = require('child_process');
const { other, outside, victim, setuid, monitor } = JSON.parse(process.argv[2]);

const found = {};
function attempt(name, deed) {
  try {
    const got = deed();
    found[name] = got === undefined ? 'done' : got;
  } catch (error) {
    found[name] = error.code || error.message;
  }
}

const secret = path.join(other, 'secret');
attempt('own file', () => fs.writeFileSync('mine', 'x'));
attempt('own tmp', () => fs.writeFileSync(path.join(os.tmpdir(), 'x'), 'x'));
attempt('own rename', () => { fs.mkdirSync('d'); fs.renameSync('mine', 'd/mine'); });
attempt('own mode', () => (fs.statSync('d/mine').mode & 0o777).toString(8));
attempt('own child', () => execFileSync('sh', ['-c', 'echo ok']).toString());
attempt('own child signal', () => {
  const child = require('child_process').spawn('sleep', ['60']);
  if (!child.kill('SIGKILL')) throw new Error('not killed');
});
attempt('cpus', () => os.cpus().length > 0);

attempt('read other', () => fs.readFileSync(secret, 'utf8'));
attempt('list other', () => fs.readdirSync(other));
attempt('read by link', () => {
  fs.symlinkSync(secret, 'link');
  return fs.readFileSync('link', 'utf8');
});
attempt('read by hard link', () => {
  fs.linkSync(secret, 'hard');
  return fs.readFileSync('hard', 'utf8');
});
attempt('read by child', () => execFileSync('cat', [secret], { stdio: 'pipe' }) + '');
attempt('write other', () => fs.writeFileSync(path.join(other, 'x'), 'x'));
attempt('overwrite other', () => fs.truncateSync(secret, 0));
attempt('remove other', () => fs.unlinkSync(secret));
attempt('write outside', () => fs.writeFileSync(path.join(outside, 'x'), 'x'));
attempt('move out', () => fs.renameSync('d', path.join(outside, 'd')));
attempt('write /tmp', () => fs.writeFileSync('/tmp/forza-hostile', 'x'));
attempt('write /dev/shm', () => fs.writeFileSync('/dev/shm/forza-hostile', 'x'));

attempt('kill other', () => process.kill(victim, 'SIGKILL'));
attempt('kill monitor', () => process.kill(monitor, 'SIGKILL'));
attempt('environment of other', () => fs.readFileSync(`/proc/${victim}/environ`, 'utf8'));
attempt('through root of other', () => fs.readdirSync(`/proc/${victim}/root/`));

attempt('chown', () => fs.chownSync('d/mine', 1, 1));
attempt('setuid', () => { process.setuid(0); return process.getuid(); });
attempt('setuid program', () => setuid && execFileSync(setuid, ['-u']).toString().trim());
attempt('capabilities', () =>
  fs.readFileSync('/proc/self/status', 'utf8').match(/Cap(Prm|Eff|Bnd|Amb):\s*(\w+)/g)
    .map((line) => parseInt(line.split(/\s+/)[1], 16)).slice(0, 2).join());
attempt('core files', () =>
  fs.readFileSync('/proc/self/limits', 'utf8').match(/Max core file size\s+(\S+)/)[1]);

const taken = [];
attempt('descriptors', () => { for (;;) taken.push(fs.openSync('/dev/null', 'r')); });
found.taken = taken.length;
taken.forEach((descriptor) => fs.closeSync(descriptor));

const server = http.createServer((request, response) => {
  response.end(JSON.stringify({ found, uid: process.getuid() }));
});
server.listen(0, '127.0.0.1', () => {
  const abstract = net.connect({ path: '\0forza-hostile-' + victim });
  const say = (how) => {
    found['abstract socket'] = how;
    process.stdout.write(`${server.address().port}\n`);
  };
  abstract.on('connect', () => say('done')).on('error', (error) => say(error.code));
});
