# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The text of `forza listen --help`, loaded only to be shown."""

TEXT = """\
usage: forza listen [OPTIONS] [[HOST:]PORT]

Receive what many forzas send, store each event once, and tell the sender when it is
safe. So an event arrives although either side is killed: the sender sends again what
was not acknowledged, the receiver leaves out what it has. Other senders are welcome;
their lines are kept as they are.

examples:
  forza listen                                  show events on this terminal
  forza listen 0.0.0.0:1337 --to file:/var/log/drones.ndjson
                                                from anywhere, into a file
  forza listen --to 'file:events.ndjson?max=100M&keep=9'
                                                and never more than ten of 100 MB
  forza listen --unix /run/events.sock --mode 660
                                                from this machine, user and group only
  forza listen 0.0.0.0:1337 --tls-cert server.pem --tls-ca drones.pem
                                                encrypted, from known drones only
  forza -h 127.0.0.1 -p 1337 -- node app.js     what sends them

options:
      [HOST:]PORT           where to listen (default 127.0.0.1:1337); [::]:1337 is every
                            address of this machine, IPv6 and IPv4
  -p, --port PORT           the same; 0 is any free port, and stderr tells which
      --unix PATH           listen on a unix socket (forza --to unix:PATH), and on no
                            port unless one is given; @NAME is an abstract one. What
                            a dead receiver has left there is replaced
      --mode OCTAL          who may connect to PATH (default 600: its owner)
      --tls-cert FILE       speak TLS on the port: our certificate, and its key unless
      --tls-key FILE        that is in this file (forza --to tls:HOST:PORT)
      --tls-ca FILE         let in only whom an authority in FILE has signed
      --to URL              file:PATH[?max=BYTES&keep=N] or stdout: (default, readable
                            on a terminal, else JSON). With max, a full file becomes
                            PATH.1, and so on up to PATH.N (default 5)
      --help                print this

A file is synced to disk before its events are acknowledged: at once after a pause,
every 50 ms or 256 KB in a stream. PATH.boots, beside it, tells after a restart what is
in the file; it may be deleted. A file that was renamed or removed is made anew within
a second, or on SIGHUP.

exit status: 0 after SIGTERM or SIGINT, all that had come being stored; 1 if it cannot
be stored; 125 if it cannot listen or open the file; 3 bad port; 2 other usage errors.

A program that is called listen: forza -- listen
"""
