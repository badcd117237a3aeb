# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""The text of `aeternum --help`, loaded only to be shown."""

TEXT = """\
usage: aeternum start|run [OPTIONS] [--] COMMAND [ARG...]
       aeternum status [--json] [FILE|DIR...]
       aeternum restart|resume|stop FILE|DIR...
       aeternum unit [--systemd|--openrc|--cron] [OPTIONS] [--] COMMAND [ARG...]

Keep a command running: whenever it ends, start it again. After an end there is a pause
of 1 s, twice as long each time up to 30 s; 60 s of health make it 1 s again. What ends
20 times within 15 minutes is parked: it waits for `aeternum resume`.

  start                  detach, print the keeper's pid, and leave it running
  run                    stay in the foreground
  status                 say what is running, and of what is not, why, and since when;
                         FILE is a pidfile or a state file, DIR has some (default: .)
  restart, resume, stop  tell the keeper: SIGUSR1, SIGUSR2, SIGTERM
  unit                   print what runs the same after a reboot: a systemd unit, an
                         OpenRC script, or a line for crontab

  -o, --stdout FILE      append the command's output to FILE, also its errors
  -e, --stderr FILE      append its errors to FILE instead (only with -o)
  -i, --stdin FILE       let it read FILE
  -p, --pidfile FILE     write the command's pid to FILE, anew at every start
  -j, --json             write it as {"pid": N}
      --state FILE       say there how it goes, also when all is over, and let no
                         second keeper use it (default with -p app.pid: app.state)

  --min-uptime MS        if the command ends within MS milliseconds of the keeper's
                         start, do not start it again: leave with status 2
  --restart WHEN         always (default), on-failure, or never
  --stop-codes N,N...    exit statuses that are final, whatever --restart says
  --min-delay SECS       the first pause (default 1)
  --max-delay SECS       the longest pause (default 30)
  --stable SECS          time without an end that makes the next pause the first (60)
  --park COUNT/SECS      park after so many ends in so many seconds (default 20/900),
                         or never
  -v, --version          print the version
  --help                 print this

SIGTERM and SIGINT end the command (SIGTERM, 5 s, SIGKILL; forza has its own grace) and
then the keeper. SIGUSR1 starts it anew. SIGUSR2 ends a pause. SIGHUP is ignored.

examples:
  aeternum start -o app.log -p app.pid -- forza -h 127.0.0.1 -- node app.js
  aeternum status app.pid
  aeternum run --restart on-failure -- ./worker

`forza --keep` is `aeternum run` for a forza.

exit status: 0 told to end; 2 the command ended within --min-uptime, or a usage error;
3 a bad port in forza's options; 4 another keeper holds the state file; 125 cannot go on
(a file cannot be opened); `start`: 127 there is no such command, 126 it cannot be run;
else the command's own, where --restart or --stop-codes makes
that final. `status`: 0 all are running, 5 one is parked, 1 not all are.
"""
