# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Receive by TLS, and let in whom the operator wants to."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import orjson
import pytest

from forza._event import Encoder
from tests.conftest import CHILDREN, PATIENCE, ROOT
from tests.contract.test_listen import Client, Listener, batch, memory, soon
from tests.contract.test_tls import needs_openssl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.certificates import Certificates
    from tests.contract.conftest import Forza

    Connect = Callable[..., "SecureClient"]


class SecureClient(Client):
    """A sender that speaks TLS, and understands what it is told."""

    def __init__(
        self, listener: Listener, certificates: Certificates, cert: Path | None = None
    ) -> None:
        plain = socket.create_connection(("127.0.0.1", listener.port), PATIENCE)
        context = ssl.create_default_context(cafile=certificates.ca)
        if cert is not None:
            context.load_cert_chain(cert)
        try:
            self.sock = context.wrap_socket(plain, server_hostname="127.0.0.1")
        except BaseException:
            plain.close()
            raise
        self.lines = self.sock.makefile("rb")
        try:
            self.greeting = orjson.loads(self.lines.readline())
        except BaseException:
            self.close()
            raise


@pytest.fixture
def connect(certificates: Certificates) -> Iterator[Connect]:
    """Make clients that are closed after the test."""
    made: list[SecureClient] = []

    def make(listener: Listener, cert: Path | None = None) -> SecureClient:
        made.append(SecureClient(listener, certificates, cert))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_acknowledges_what_is_stored(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """It greets and acknowledges as it does in plain; it is left in order."""
    path = tmp_path / "events"
    listener = Listener(
        lean_forza, "--to", f"file:{path}", "--tls-cert", str(certificates.good)
    )
    assert "(TLS), events go to" in listener.said
    client = connect(listener)
    assert client.greeting == {"forza": "listen", "version": 1}
    encoder = Encoder("host", "b007", None)
    large, small = batch(encoder, 20_000), encoder.event("s", 1)
    client.send(large)
    client.wait_for("b007", 1, 20_000)
    client.send(small)
    client.wait_for("b007", 2, 1)
    assert path.read_bytes() == large + small
    assert listener.stop().endswith("20001 stored\n")
    assert client.lines.read() == b""  # and no error: it has said goodbye


def test_half_closed(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """Who has said its last word is told that it is stored."""
    path = tmp_path / "events"
    listener = Listener(
        lean_forza, "--to", f"file:{path}", "--tls-cert", str(certificates.good)
    )
    for seq, how in enumerate(("goodbye", "without a word"), 1):
        client = connect(listener)
        client.send(Encoder("host", f"b{seq}", None).event("s", 1))
        if how == "goodbye":
            client.sock.settimeout(0)
            assert isinstance(client.sock, ssl.SSLSocket)
            with pytest.raises(ssl.SSLWantReadError):
                client.sock.unwrap()
            client.sock.settimeout(PATIENCE)
        else:
            socket.socket.shutdown(client.sock, socket.SHUT_WR)
        soon(lambda seq=seq: path.read_bytes().count(b"\n") == seq)  # type: ignore[misc]
        client.wait_for(f"b{seq}", 1, 1)
    listener.stop()


def test_who_is_let_in(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """Of clients that must show a certificate, those that cannot store nothing; why is
    said once, they are counted, and the others do not notice."""
    path = tmp_path / "events"
    tls = ("--tls-cert", str(certificates.good), "--tls-ca", str(certificates.ca))
    listener = Listener(lean_forza, "--to", f"file:{path}", *tls)
    client = connect(listener, certificates.client)
    for _ in range(3):
        for cert in None, certificates.other_client:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                connect(listener, cert)
        plain = socket.create_connection(("127.0.0.1", listener.port), PATIENCE)
        plain.sendall(Encoder("host", "bad", None).event("s", 1))
        with plain:
            answer = plain.recv(4096)
            assert not answer or answer[0] == 0x15  # an alert
        # Who only looks whether somebody listens is no news.
        socket.create_connection(("127.0.0.1", listener.port), PATIENCE).close()
    client.send(Encoder("host", "b007", None).event("s", 1))
    client.wait_for("b007", 1, 1)
    assert path.read_bytes().count(b"\n") == 1
    said = listener.stop()
    assert said.splitlines()[1:-1] == [
        "forza: a client is not let in: it shows no certificate",
        "forza: a client is not let in: its certificate is signed by nobody we trust",
        "forza: a client is not let in: it does not speak TLS",
    ]
    assert said.endswith("forza: 1 stored, 9 not let in\n")


def test_silent_clients(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """Clients that never begin hold nobody up; without room, the first of them goes."""
    path = tmp_path / "events"
    most = 64 + 32

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    listener = Listener(
        lean_forza,
        *("--to", f"file:{path}", "--tls-cert", str(certificates.good)),
        preexec_fn=few_descriptors,
    )
    silent = [
        socket.create_connection(("127.0.0.1", listener.port), PATIENCE)
        for _ in range(most)
    ]
    client = connect(listener)
    client.send(Encoder("host", "b007", None).event("s", 1))
    client.wait_for("b007", 1, 1)
    assert silent[0].recv(1) == b""
    listener.stop()
    for sock in silent:
        sock.close()


def test_many_busy_clients(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """A client takes some 50 kB, however much it sends."""
    path = tmp_path / "events"
    listener = Listener(
        lean_forza, "--to", f"file:{path}", "--tls-cert", str(certificates.good)
    )
    events = batch(Encoder("host", "b007", None), 100, b"x" * 5_000 + b"\n")
    client = connect(listener)
    client.send(events)
    client.wait_for("b007", 1, 100)
    before = memory(listener)
    for number in range(100):
        client = connect(listener)
        client.send(events.replace(b"b007", b"%04d" % number))
        client.wait_for(f"{number:04}", 1, 100)
    assert memory(listener) - before < 12 << 10
    listener.stop()


def test_files_may_be_replaced(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, connect: Connect
) -> None:
    """A new certificate is shown to the next client; a bad one is not, and is told."""
    mine = tmp_path / "mine.pem"
    shutil.copy(certificates.expired, mine)
    listener = Listener(lean_forza, "--tls-cert", str(mine))
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(listener)
    shutil.copy(certificates.good, tmp_path / "new")
    os.rename(tmp_path / "new", mine)
    first = connect(listener)
    mine.write_text("no certificate")
    second = connect(listener)
    assert first.greeting == second.greeting
    said = listener.stop()
    assert said.count(f"cannot use {mine}: no certificate and key in PEM form") == 1
    assert "; still using what was read before\n" in said


USAGE = [
    (["--tls-key", "x"], 2, "--tls-key needs --tls-cert"),
    (["--tls-ca=x"], 2, "--tls-ca needs --tls-cert"),
    (["--tls-cert", "a", "--tls-cert", "b"], 2, "--tls-cert is given twice"),
    (["--tls-cert"], 2, "--tls-cert needs a value"),
    (["--tls-cert="], 2, "--tls-cert must be a file"),
    (["--unix", "/tmp/x", "--tls-cert", "a"], 2, "--tls-cert is for a port"),
    (["0", "--tls-cert", "/no/such"], 125, "cannot use /no/such: no such file"),
    (["0", "--tls-cert", "/dev/null"], 125, "no certificate and key in PEM form"),
]


@pytest.mark.parametrize(("args", "status", "culprit"), USAGE)
def test_usage(lean_forza: Forza, args: list[str], status: int, culprit: str) -> None:
    """A slip gets one line that names it, and its own status."""
    ended = lean_forza.run("listen", *args)
    assert (ended.status, ended.stderr.count("\n")) == (status, 1)
    assert ended.stderr.startswith("forza: ")
    assert culprit in ended.stderr


@pytest.mark.parametrize("where", ["tls", "unix"])
def test_beside_a_unix_socket(
    lean_forza: Forza, tmp_path: Path, certificates: Certificates, where: str
) -> None:
    """The unix socket of the same receiver is plain: its file decides who may come."""
    path, sock = tmp_path / "events", tmp_path / "socket"
    listener = Listener(
        lean_forza,
        *("--to", f"file:{path}", "--unix", str(sock)),
        *("--tls-cert", str(certificates.good)),
    )
    to = {
        "tls": f"tls:127.0.0.1:{listener.port}?ca={certificates.ca}",
        "unix": f"unix:{sock}",
    }
    assert lean_forza.run("--to", to[where], "--", "echo", 1).status == 0
    assert '"description":"1\\n"' in path.read_text()
    listener.stop()


@needs_openssl
def test_the_recipe(lean_forza: Forza, tmp_path: Path) -> None:
    """The commands in the documentation make what they say."""
    text = (ROOT / "docs" / "listen.md").read_text()
    begin = text.index("    openssl req -x509")
    end = text.index("    forza listen --tls-cert server.pem", begin)
    recipe = text[begin:end]
    subprocess.run(
        ["sh", "-e", "-c", recipe], cwd=tmp_path, check=True, capture_output=True
    )
    listener = Listener(
        lean_forza,
        *("--tls-cert", str(tmp_path / "server.pem")),
        *("--tls-ca", str(tmp_path / "ca.pem")),
    )
    to = f"tls:localhost:{listener.port}?ca={tmp_path}/ca.pem&cert={tmp_path}/drone.pem"
    assert lean_forza.run("--to", to, "--", "true").status == 0
    assert "0 stored" not in listener.stop()


def test_a_million_lines(
    forza: Forza, tmp_path: Path, certificates: Certificates
) -> None:
    """By forza, with certificates on both sides, into a file: each line once."""
    path = tmp_path / "events"
    listener = Listener(
        forza,
        *("--to", f"file:{path}", "--tls-cert", str(certificates.good)),
        *("--tls-ca", str(certificates.ca)),
    )
    to = (
        f"tls:localhost:{listener.port}?ca={certificates.ca}&cert={certificates.client}"
    )
    ended = forza.run(
        *("--to", to, "--flush-timeout", PATIENCE, "--"),
        *(sys.executable, "-S", CHILDREN / "flood.py", 1_000_000),
    )
    assert ended.status == 0
    assert ended.stderr == f"forza: connected to localhost:{listener.port}\n"
    listener.stop()
    seen = 0
    with path.open("rb") as file:
        for line in file:
            if b'"logs/stdout"' in line:
                assert b'"line %d of the flood' % seen in line
                seen += 1
    assert seen == 1_000_000
    path.unlink()
