# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Run `forza listen`: a receiver that stores events once and acknowledges them."""

from __future__ import annotations

import os
import sys

from forza._errors import (
    EXIT_PORT,
    EXIT_SETUP,
    EXIT_USAGE,
    ForzaError,
    PortError,
    SinkError,
    UsageError,
)
from forza._stage import replace
from forza.sinks import DEFAULT_HOST, DEFAULT_PORT, file_options, port, server

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from _socket import socket
    from asyncio import AbstractEventLoop
    from collections.abc import Sequence
    from typing import NoReturn

    from forza.listen._gate import Gate
    from forza.listen._output import Output
else:
    import _signal as signal

EXIT_STORE = 1
_OWNER_ONLY = 0o600
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_SEE = "; try 'forza listen --help'"
_TLS = ("--tls-cert", "--tls-key", "--tls-ca")
_BACKLOG = 1024
# Each connection is a descriptor; some are needed for other things.
_MOST_CONNECTIONS = 20_000
_SPARE_DESCRIPTORS = 32


def main(argv: Sequence[str]) -> NoReturn:
    """Run the receiver to its end; `argv` is what follows `listen`."""
    try:
        given = parse(argv)
    except UsageError as error:
        sys.stderr.write(f"forza: {error}\n")
        code = EXIT_PORT if isinstance(error, PortError) else EXIT_USAGE
        raise SystemExit(code) from None
    if given is None:
        from forza.listen._help import TEXT

        print(TEXT, end="")  # noqa: T201
        raise SystemExit(0)
    replace("listen", *given)
    serve(*given)


def parse(
    argv: Sequence[str],
) -> tuple[str, int, str, str, int, tuple[str, str, str]] | None:
    """Return host and port (-1: none), a unix socket's path ("": none) and mode, the
    URL, and the files for TLS; None if help is wanted. Raises UsageError.
    """
    host = url = path = mode = ""
    tls = dict.fromkeys(_TLS, "")
    number: int | None = None
    words = list(reversed(argv))
    while words:
        word = words.pop()
        name, equals, value = word.partition("=")
        if word == "--help":
            return None
        if name in ("--to", "--port", "-p", "--unix", "--mode", *_TLS):
            if not equals:
                if not words:
                    raise UsageError(f"option {word} needs a value{_SEE}")
                value = words.pop()
            given = {"--to": url, "--unix": path, "--mode": mode, **tls}
            if given.get(name, number is not None):
                raise UsageError(f"option {name} is given twice{_SEE}")
            if name == "--to":
                url = _checked(value)
            elif name == "--unix":
                path = _path(value)
            elif name == "--mode":
                mode = _mode(value)
            elif name in tls:
                tls[name] = _file(name, value)
            else:
                number = _port(value)
        elif word.startswith("-"):
            raise UsageError(f"unknown option {word}{_SEE}")
        elif host or number is not None:
            raise UsageError(f"too many addresses: '{word}'{_SEE}")
        elif word.isdigit():
            number = _port(word)
        else:
            host, found = server(word)
            number = found or DEFAULT_PORT
    if mode and (not path or path.startswith("@")):
        raise UsageError(f"option --mode is for a file that --unix names{_SEE}")
    if number is None:
        number = -1 if path else DEFAULT_PORT
    cert, key, ca = tls.values()
    if (key or ca) and not cert:
        raise UsageError(
            f"option --tls-{'key' if key else 'ca'} needs --tls-cert{_SEE}"
        )
    if cert and number < 0:
        raise UsageError(f"option --tls-cert is for a port, not for --unix{_SEE}")
    permissions = int(mode, 8) if mode else _OWNER_ONLY
    files = cert, key or cert, ca
    return host or DEFAULT_HOST, number, url or "stdout:", path, permissions, files


def _file(name: str, text: str) -> str:
    if not text or "\0" in text:
        raise UsageError(f"option {name} must be a file, not '{text}'{_SEE}")
    return text


def _path(text: str) -> str:
    from forza.sinks.unix import path_in

    return path_in(f"unix:{text}")


def _mode(text: str) -> str:
    octal = 0 < len(text) < 5 and all(digit in "01234567" for digit in text)
    if not octal or int(text, 8) > 0o777:
        raise UsageError(f"--mode must be an octal number, as 660, not '{text}'{_SEE}")
    return text


def _port(text: str) -> int:
    return 0 if text == "0" else port(text)  # any that is free


def _checked(url: str) -> str:
    if url.startswith("file:"):
        file_options(url)
    elif url not in ("stdout:", "stdout://"):
        raise UsageError(f"cannot store in '{url}': it must be file:PATH or stdout:")
    return url


def serve(
    host: str, number: int, url: str, path: str, mode: int, tls: tuple[str, str, str]
) -> NoReturn:
    """Listen until a signal says to stop; leave with a status."""
    from forza._program import load_runtime, say
    from forza._start import open_stdio

    open_stdio()
    # They wait until the loop runs, which would not hear them before.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    listeners: list[socket] = []
    gate = None
    try:
        if number >= 0:
            listeners += listen(host, number)
        if path:
            from forza.listen._unix import UnixListener

            listeners.append(UnixListener(path, mode, _BACKLOG))
        make_loop, _ = load_runtime()
        loop = make_loop()
        if tls[0]:
            from forza.listen._gate import Gate

            gate = Gate(loop, *tls, say)
        output = open_output(loop, url)
    except ForzaError as error:
        for listener in listeners:
            listener.close()
        say(str(error))
        os._exit(EXIT_SETUP)
    _run(loop, listeners, output, gate)


def listen(host: str, number: int) -> list[socket]:
    """Open a socket for every address of a host. Raises SinkError."""
    from _socket import (
        AF_INET6,
        AI_PASSIVE,
        IPPROTO_IPV6,
        IPV6_V6ONLY,
        SO_REUSEADDR,
        SOCK_STREAM,
        SOL_SOCKET,
        getaddrinfo,
        socket,
    )

    listeners: list[socket] = []
    name = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    try:
        found = getaddrinfo(host.encode(), number, 0, SOCK_STREAM, 0, AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            listener = socket(family, kind, protocol)
            listener.setblocking(False)
            listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            if family == AF_INET6:
                listener.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, int(host != "::"))
            listener.bind(address)
            listener.listen(_BACKLOG)
            listeners.append(listener)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SinkError(f"cannot listen on {name}: {reason.lower()}") from error
    return listeners


def open_output(loop: AbstractEventLoop, url: str) -> Output:
    """Open where events go. Raises SinkError."""
    from forza._program import say
    from forza.listen._output import FileOutput, Output
    from forza.sinks.file import stdout

    if url.startswith("file:"):
        return FileOutput(loop, *file_options(url), say)
    fd, render, write = stdout()
    return Output(loop, "stdout", fd, say, write, render)


def _run(
    loop: AbstractEventLoop,
    listeners: list[socket],
    output: Output,
    gate: Gate | None,
) -> NoReturn:
    from forza._program import say, say_trouble
    from forza.listen._server import Server

    outcome: list[OSError | None] = []

    def closed(error: OSError | None) -> None:
        outcome.append(error)
        loop.stop()

    loop.set_exception_handler(say_trouble)
    most = _raise_limit() - _SPARE_DESCRIPTORS
    server = Server(loop, listeners, output, most, closed, gate)
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, server.stop)
    reopen = getattr(output, "reopen", server.stop)
    loop.add_signal_handler(signal.SIGHUP, reopen)
    shown = " and ".join(
        dict.fromkeys(_shown(listener, gate is not None) for listener in listeners)
    )
    loop.call_soon(say, f"listening on {shown}, events go to {output.name}")
    loop.call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _SIGNALS)
    loop.run_forever()
    error = outcome[0]
    if error is None:
        output.close()
    else:
        reason = os.strerror(error.errno or 0).lower()
        say(f"cannot write to {output.name}: {reason}")
    counts = {
        "stored": server.stored,
        "repeated": server.repeats,
        "not of forza": server.foreign,
        "cut off": server.torn,
        "not let in": gate.refused if gate is not None else 0,
    }
    say(
        ", ".join(
            f"{count} {name}"
            for name, count in counts.items()
            if count or name == "stored"
        )
    )
    os._exit(EXIT_STORE if error is not None else 0)


def _shown(listener: socket, by_tls: bool) -> str:
    path = getattr(listener, "path", "")
    if path:
        return f"unix:{path}"
    host, number = listener.getsockname()[:2]
    shown = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    return f"{shown} (TLS)" if by_tls else shown


def _raise_limit() -> int:
    """Ask for as many descriptors as we may have, within reason; return how many."""
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit

    soft, hard = getrlimit(RLIMIT_NOFILE)
    most = _MOST_CONNECTIONS if hard == RLIM_INFINITY else min(hard, _MOST_CONNECTIONS)
    if soft < most:
        setrlimit(RLIMIT_NOFILE, (most, hard))
    return max(soft, most) if soft != RLIM_INFINITY else most
