# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The text of `forza --help`, loaded only to be shown."""

TEXT = """\
usage: forza [OPTIONS] [--] COMMAND [ARG...]

Run one app, and ship its metrics and logs as newline-delimited JSON. forza ends when
the app ends, with the app's status. The app never waits for a server.

examples:
  forza -- node app.js                          show events on this terminal
  forza -- node app.js > events.ndjson          as JSON, if it is no terminal
  forza -h 127.0.0.1 -p 1337 -- node app.js     send them to a server
                                                (there: forza listen, or nc -k -l 1337)
  forza -h a.example:1337 -h b.example:1337 -- node app.js
                                                if one fails, the next takes over
  forza --to tcp:a:1337 --to file:/var/log/app.ndjson -- node app.js
                                                to both, each at its own speed
  forza -h a.example --spool /var/spool/app -- node app.js
                                                nothing is lost while it is away

where events go (default: standard output):
  -h, --host [HOST[:PORT]]  a metrics server (default 127.0.0.1); repeat it to name
                            servers that stand in for each other
  -p, --port PORT           the port of the hosts before it (default 1337)
      --to URL              tcp:HOST:PORT[,HOST:PORT...], unix:PATH (or unix:@NAME),
                            tls:HOST:PORT[,...][?ca=FILE&cert=FILE&key=FILE&name=NAME]
                            (whom to trust, if not the system's authorities; what to
                            show if asked who we are; the server's name, if not HOST),
                            udp:HOST:PORT, stdout: or
                            file:PATH[?max=BYTES&keep=N] (a full file becomes PATH.1);
                            repeat it to send everything to each
      --buffer BYTES        hold back so much for a server that is away (default 1M,
                            at least 512K); when full, the oldest logs go first, and
                            are counted
      --spool DIR           keep on disk what servers have not got yet: no crash loses
                            it, the next monitor delivers it, or 'forza flush'
      --spool-max BYTES     at most so much in DIR, whoever left it (default 64M)
      --flush-timeout SECS  time for the last events to leave (default 5)

what is in them:
      --hostname NAME       the field 'host' (default: the first IPv4 address)
      --app-user USER       with --app-name: in 'meta.app' of every event
      --app-name NAME
      --plugin NAME         repeat it to choose among cpu, mem, logs, heartbeat,
                            uptime, start, process (default: all, which is also a
                            name); MODULE:ATTR or an installed plugin's name adds one
      --cpu-interval SECS   seconds between two readings: cpu, mem, uptime (5) and
                            heartbeat (90)
      --ready-fd N          write the start event to descriptor N, and close it
      --start-log FILE      write the start event, good or bad, to FILE
      --logs-join HOW       append lines to the event of the line before: 'indent' for
                            those that begin with white space, or a regular
                            expression that their beginning must match
      --logs-cr keep|last   'last': of a line that is written over and over, as a
                            progress bar, send the last state only
      --logs-longest BYTES  cut longer lines into pieces (default 64K)
      --logs-rate LINES[:BURST]
                            send at most so many lines a second (and so many at once)
                            of each stream, and say how many more there were
      --legacy-chunks       one log event per read, as forza 0.2 sent, not per line
      --PLUGIN-OPTION VALUE an option of a plugin of your own

when the app has started (the event health/process/start):
      --ready HOW           port: it listens, or says port=N on descriptor 3 (default);
                            notify[=PATH]: READY=1 by sd_notify; fd: a line on
                            descriptor 3; ipc: process.send('ready') in node;
                            http://HOST:PORT/PATH or tcp://HOST:PORT: an answer;
                            log=REGEX: a line of output; exec=COMMAND: its status 0;
                            none: it runs. Repeat it: the first that comes counts
      --stable SECS         and it must live so long from then (default 0)
      --start-timeout SECS  else it has failed to start after this time (15)
      --watchdog SECS       once started, it must send WATCHDOG=1 by sd_notify so
                            often, else it is ended
      --bind-hook auto|on|off
                            a port it may not have becomes the next: 80 becomes 1024
                            (auto: for a user who may not have 80; on: always, and
                            also if the port is in use, as with --app-user and
                            --app-name)
      --bind-any            and whatever the address, it listens on all of them

the app:
      --grace SECS          on SIGTERM, SIGINT, SIGHUP or SIGQUIT: pass it on, wait so
                            long (default 10), then SIGKILL; a second one does not wait
      --stop-signal NAME    ask it to end with this signal, not with SIGTERM
      --signal NAME=[NAME]  pass a signal on as another, or not at all; repeat it.
                            HUP=HUP passes SIGHUP on as a wish to reload, not to end
      --cwd DIR             start it in this folder
      --user USER[:GROUP]   start it as this user (forza must be run by root)
      --keep                start the app again whenever it has ended, as aeternum does
      --ipc auto|yes|no     make descriptor 3 node's IPC channel, so that
                            process.send({service, metric}) becomes an event
                            (auto: if COMMAND is node)

what the app may use:
      --memory-soft BYTES   when the app and all that it has started use more, stop it
                            as --grace says; its exit event has the reason 'memory'
      --memory-hard BYTES   never let it use more: SIGKILL if need be
      --nofile N            open descriptors
      --core BYTES|unlimited
                            size of a core dump
      --nice N              -20 (favoured) to 19
      --cpus LIST           the processors that it runs on, as 0-3,6

      --check               only see whether forza understands all this (what is for
                            plugins of your own, these look at): print COMMAND, or
                            what is wrong
  -v, --version             print the version
      --help                print this

exit status: the app's own; 128 + N if signal N ended it; 127 command not found,
126 not executable; 125 forza could not set up; 123 the app may not be that user;
122 no such folder; 3 bad port; 2 other usage errors.

environment: NO_COLOR=1 shows events without colours; FORZA_RUNTIME=plain turns the
lean runtime off (more memory, nothing else).
"""
