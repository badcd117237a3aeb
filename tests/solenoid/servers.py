# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Serve objects over HTTP in every way that makes trouble, and run S3 servers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Behaviour:
    """What a web server does that it should not."""

    cut_after: int = 0  # bytes of a body
    cuts: int = 1 << 30  # how often
    fail: list[int] = field(default_factory=list)  # statuses of the next answers
    retry_after: str = ""
    ignore_range: bool = False
    no_etag: bool = False
    weak_etag: bool = False
    no_length: bool = False
    chunked: bool = False
    refuse: str = ""  # an S3 error body, with 403
    stall: threading.Event | None = None  # wait for it in the middle of a body
    stall_after: int = 0
    trickle: float = 0.0  # seconds between two bytes
    flip: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    replace_after: int = 0  # answers, then the object is another
    redirect: dict[str, str] = field(default_factory=dict)


class WebServer:
    """Objects in memory by path; every request is remembered."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.behaviour = Behaviour()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.active = self.most_active = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port: int = self._server.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def ranges(self) -> list[str]:
        """Return the ranges that were asked for, in order; all is an empty one."""
        return [h.get("range", "") for verb, _, h in self.requests if verb == "GET"]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def _handler(server: WebServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def handle_one_request(self) -> None:
            with contextlib.suppress(OSError, ssl.SSLError):
                super().handle_one_request()
            self.close_connection = True

        def finish(self) -> None:
            with contextlib.suppress(OSError):
                super().finish()

        def begin(self) -> bool:
            """Remember the request, and fail if that's the order."""
            headers = {name.lower(): value for name, value in self.headers.items()}
            how = server.behaviour
            with server.lock:
                server.requests.append((self.command, self.path, headers))
                status = how.fail.pop(0) if how.fail else 0
                if how.replace_after and len(server.requests) > how.replace_after:
                    how.replace_after = 0
                    for path, data in server.objects.items():
                        server.objects[path] = data[::-1]
            if how.refuse:
                self.answer(403, how.refuse.encode())
            elif status == -1:
                pass  # not a word
            elif status:
                extra = {"Retry-After": how.retry_after} if how.retry_after else {}
                self.answer(status, b"", extra)
            elif self.path in how.redirect:
                self.answer(302, b"", {"Location": how.redirect[self.path]})
            else:
                return True
            return False

        def answer(
            self, status: int, body: bytes, extra: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in (extra or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            if not self.begin():
                return
            data = self.rfile.read(int(self.headers["Content-Length"]))
            server.objects[self.path] = data
            self.answer(201, b"")

        def do_GET(self) -> None:
            with server.lock:
                server.active += 1
                server.most_active = max(server.most_active, server.active)
            try:
                if self.begin():
                    self.get()
            finally:
                with server.lock:
                    server.active -= 1

        def get(self) -> None:
            how = server.behaviour
            data = server.objects.get(self.path)
            if data is None:
                self.answer(404, b"")
                return
            etag = '"' + hashlib.md5(data).hexdigest() + '"'
            size = len(data)
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            condition = self.headers.get("If-Range", etag)
            status, start, stop = 200, 0, size
            if asked and not how.ignore_range and condition == etag:
                start = int(asked[1])
                stop = min(size, int(asked[2]) + 1) if asked[2] else size
                if start >= size:
                    self.answer(416, b"", {"Content-Range": f"bytes */{size}"})
                    return
                status = 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
            if how.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif not how.no_length:
                self.send_header("Content-Length", str(stop - start))
            if not how.no_etag:
                self.send_header("ETag", f"W/{etag}" if how.weak_etag else etag)
            for name, value in how.metadata.items():
                self.send_header(name, value)
            self.end_headers()
            self.body(memoryview(data)[start:stop])

        def body(self, data: memoryview) -> None:
            how = server.behaviour
            sent = 0
            while sent < len(data):
                piece = bytes(data[sent : sent + 65536])
                if how.stall is not None and sent >= how.stall_after:
                    stall, how.stall = how.stall, None
                    stall.wait(PATIENCE)
                if how.flip and sent + len(piece) == len(data):
                    piece = piece[:-1] + bytes([piece[-1] ^ 1])
                if how.cut_after and sent + len(piece) > how.cut_after and how.cuts:
                    how.cuts -= 1
                    self.wfile.write(piece[: how.cut_after - sent])
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if how.trickle:
                    piece = piece[:1]
                    time.sleep(how.trickle)
                if how.chunked:
                    piece = b"%x\r\n%b\r\n" % (len(piece), piece)
                self.wfile.write(piece)
                sent += 1 if how.trickle else min(65536, len(data) - sent)
            if how.chunked:
                self.wfile.write(b"0\r\n\r\n")

    return Handler


@dataclass
class S3Server:
    """A server that speaks S3, and how to be its client."""

    name: str
    endpoint: str
    options: dict[str, Any]
    checks_signatures: bool = False


class Line:
    """A line to a server that cuts, stalls, corrupts or answers in its place.

    Bytes pass as they are otherwise, so that signatures hold.
    """

    def __init__(self, to: int) -> None:
        self.cut_after, self.cuts = 0, 0  # bytes of an answer; how often
        self.stall_after: int | None = None  # bytes of one answer
        self.flip_at: int | None = None  # a byte of each answer
        self.fail: list[int] = []  # statuses of the next answers
        self.served = 0
        self._to = to
        self._go_on = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more; let go of who is stalled."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._go_on.set()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            self.served += 1
            if self.fail:
                client.recv(65536)
                status = self.fail.pop(0)
                text = f"HTTP/1.1 {status} Busy\r\nContent-Length: 0\r\n"
                client.sendall(f"{text}Connection: close\r\n\r\n".encode())
                return
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                words = (client, server)
                threading.Thread(target=_pass_on, args=words, daemon=True).start()
                self._answer(server, client)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        sent = 0
        while data := server.recv(65536):
            if self.cuts and self.cut_after and sent + len(data) > self.cut_after:
                self.cuts -= 1
                client.sendall(data[: self.cut_after - sent])
                break
            if self.stall_after is not None and sent > self.stall_after:
                self.stall_after = None
                self._go_on.wait(PATIENCE)
                break
            if self.flip_at is not None and sent <= self.flip_at < sent + len(data):
                at = self.flip_at - sent
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            client.sendall(data)
            sent += len(data)
        for one in (server, client):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _pass_on(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65536):
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


def presigned(
    server: S3Server,
    bucket: str,
    key: str,
    verb: str = "get_object",
    seconds: int = 60,
) -> str:
    """Sign a URL for one object."""
    import botocore.session
    from botocore.config import Config

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.options["keyId"],
        aws_secret_access_key=server.options["key"],
        region_name="us-east-1",
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )
    url: str = client.generate_presigned_url(
        verb, Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
    )
    return url


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: list[str], port: int, log: Path, env: dict[str, str] | None = None
) -> Iterator[None]:
    """Run a server until it listens, and then as long as the block."""
    with begun(command, log, env) as child:
        await_port(child, port, log)
        yield


@contextlib.contextmanager
def begun(
    command: list[str], log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server as long as the block."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        child.wait(PATIENCE)


def await_port(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def program(name: str) -> str:
    """Return the path of a program of the environment."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    found = beside if os.path.exists(beside) else shutil.which(name)
    assert found, f"{name} is not installed"
    return found


def read(url: str) -> bytes:
    """Read a URL by another client than ours."""
    with urllib.request.urlopen(url) as answer:
        data: bytes = answer.read()
        return data
