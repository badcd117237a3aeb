# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Send over TLS, and to nobody who has not proved who they are."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.certificates import TlsServer
from tests.conftest import CHILDREN, PATIENCE, Connection, MetricsServer
from tests.contract.test_listen import soon

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from tests.certificates import Certificates
    from tests.contract.conftest import Forza


@pytest.fixture
def serve() -> Iterator[Callable[[ssl.SSLContext], TlsServer]]:
    """Start servers that end with the test."""
    servers: list[TlsServer] = []

    def start(context: ssl.SSLContext) -> TlsServer:
        servers.append(TlsServer(context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


if TYPE_CHECKING:
    Serve = Callable[[ssl.SSLContext], TlsServer]


def url(port: int, certs: Certificates, host: str = "127.0.0.1", more: str = "") -> str:
    """Return where to send, trusting the good authority."""
    return f"tls:{host}:{port}?ca={certs.ca}{more}"


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_good(
    forza: Forza, serve: Serve, certificates: Certificates, version: str
) -> None:
    """All arrives, by address and by name; the connection is closed in order."""
    server = serve(certificates.server_context(version=version))
    for host in "127.0.0.1", "localhost":
        ended = forza.run("--to", url(server.port, certificates, host), "--", "echo", 1)
        assert ended.status == 0
        assert ended.stderr == f"forza: connected to {host}:{server.port}\n"
        events = server.wait_closed()
        assert events[-1]["service"] == "health/process/exit"
        assert server.text("logs/stdout") == "1\n"
        server.events.clear()
    assert server.failed == []


@pytest.mark.parametrize(
    ("cert", "said"),
    [
        ("untrusted", "its certificate is signed by nobody we trust"),
        ("wrong_name", "its certificate is not for '127.0.0.1'"),
        ("expired", "its certificate has expired"),
        ("not_yet", "its certificate is not valid yet"),
    ],
)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_bad_server(
    lean_forza: Forza,
    serve: Serve,
    certificates: Certificates,
    cert: str,
    said: str,
    version: str,
) -> None:
    """A server that cannot prove who it is gets nothing, and the reason is said once;
    as soon as it can, it gets all."""
    bad = certificates.server_context(getattr(certificates, cert), version=version)
    server = serve(bad)
    program = lean_forza.start(
        *("--to", url(server.port, certificates), "--", "sh", "-c"), "echo 1; sleep 99"
    )
    server.wait_until(lambda: len(server.failed) >= 3, "three attempts")
    assert server.data == b""
    server.context = certificates.server_context(version=version)
    server.wait_for("logs/stdout")
    program.terminate()
    ended = lean_forza.wait(program)
    assert ended.stderr.count(f"127.0.0.1:{server.port}: {said}") == 1
    assert ended.stderr.count("\n") == 2
    assert "; trying again\nforza: connected to" in ended.stderr
    assert server.wait_closed()[-1]["service"] == "health/process/exit"


def test_told_in_band(
    lean_forza: Forza, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    """Whoever has the events elsewhere sees that this sink has none, and later that it
    has them all."""
    server = serve(certificates.server_context(certificates.expired))
    to, events = url(server.port, certificates), tmp_path / "events"

    def told() -> list[float]:
        lines = events.read_text().splitlines() if events.exists() else []
        found = [json.loads(x) for x in lines if '"telemetry/sink"' in x]
        return [e["metric"] for e in found if e["meta"]["sink"] == to]

    program = lean_forza.start(
        *("--to", to, "--to", f"file:{events}", "--", "sleep", 99)
    )
    soon(lambda: told() == [0])
    server.context = certificates.server_context()
    soon(lambda: told() == [0, 1])
    program.terminate()
    lean_forza.wait(program)


def test_name(lean_forza: Forza, serve: Serve, certificates: Certificates) -> None:
    """A server may be known by another name than the one it is reached by."""
    server = serve(certificates.server_context(certificates.wrong_name))
    to = url(server.port, certificates, more="&name=elsewhere.example")
    assert lean_forza.run("--to", to, "--", "true").status == 0
    assert server.wait_closed()[-1]["service"] == "health/process/exit"


needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="there is no openssl command"
)


@needs_openssl
def test_the_system_knows_whom_to_trust(
    lean_forza: Forza,
    serve: Serve,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without ca= it is the system's authorities, which do not include ours; OpenSSL's
    own variables name others."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    server = serve(certificates.server_context())
    to = f"tls:localhost:{server.port}"
    # A folder by itself, as Debian has it, and one file, as others do.
    digest = subprocess.check_output(
        ["openssl", "x509", "-hash", "-noout", "-in", certificates.ca], text=True
    ).strip()
    (tmp_path / f"{digest}.0").symlink_to(certificates.ca)
    for env in {"SSL_CERT_DIR": tmp_path}, {"SSL_CERT_FILE": certificates.ca}:
        told = {name: str(path) for name, path in env.items()}
        ended = lean_forza.run("--to", to, "--", "true", env=told)
        assert ended.stderr == f"forza: connected to localhost:{server.port}\n"
        assert server.wait_closed()[-1]["service"] == "health/process/exit"
    server.events.clear()
    ended = lean_forza.run("--flush-timeout", 0.5, "--to", to, "--", "true")
    assert "signed by nobody we trust: name who has, as ?ca=FILE" in ended.stderr
    assert "events were not delivered" in ended.stderr
    assert server.events == []


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_client_certificate(
    forza: Forza, serve: Serve, certificates: Certificates, version: str
) -> None:
    """A server that wants to know who we are learns it, and takes what we send."""
    server = serve(certificates.server_context(version=version, clients=True))
    to = url(server.port, certificates, more=f"&cert={certificates.client}")
    ended = forza.run("--to", to, "--", "echo", 1)
    assert ended.stderr == f"forza: connected to 127.0.0.1:{server.port}\n"
    assert server.wait_closed()[-1]["service"] == "health/process/exit"


@pytest.mark.parametrize(
    ("version", "cert", "said"),
    [
        ("TLSv1_2", "", "it says 'handshake failure'"),
        ("TLSv1_3", "", "it wants a certificate of ours: name it, as ?cert=FILE"),
        ("TLSv1_2", "other_client", "it refuses our certificate: it does not know who"),
        ("TLSv1_3", "other_client", "it refuses our certificate: it does not know who"),
    ],
)
def test_client_refused(
    lean_forza: Forza,
    serve: Serve,
    certificates: Certificates,
    version: str,
    cert: str,
    said: str,
) -> None:
    """A server that does not want us says so, and so do we: once, and not after having
    said that we are connected; as soon as it does, it gets all."""
    server = serve(certificates.server_context(version=version, clients=True))
    more = f"&cert={getattr(certificates, cert)}" if cert else ""
    program = lean_forza.start(
        *("--to", url(server.port, certificates, more=more)),
        *("--", "sh", "-c", "echo 1; sleep 99"),
    )
    server.wait_until(lambda: len(server.failed) >= 3, "three attempts")
    server.context = certificates.server_context(version=version)
    server.wait_for("logs/stdout")
    program.terminate()
    ended = lean_forza.wait(program)
    assert ended.stderr.count(f"127.0.0.1:{server.port}: {said}") == 1
    assert ended.stderr.count("\n") == 2
    assert "; trying again\nforza: connected to" in ended.stderr


def test_files_may_be_replaced(
    lean_forza: Forza, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    """Certificates are read again for each connection: they may expire meanwhile."""
    server = serve(certificates.server_context(clients=True))
    mine = tmp_path / "mine.pem"
    shutil.copy(certificates.other_client, mine)
    program = lean_forza.start(
        *("--to", url(server.port, certificates, more=f"&cert={mine}")),
        *("--", "sh", "-c", "echo 1; sleep 99"),
    )
    server.wait_until(lambda: server.failed, "refusal")
    shutil.copy(certificates.client, tmp_path / "new")
    os.rename(tmp_path / "new", mine)
    server.wait_for("logs/stdout")
    program.terminate()
    assert lean_forza.wait(program).status == 143


BAD_FILES = [
    ("ca=/no/such", 125, "cannot use /no/such: no such file or directory"),
    ("ca={folder}", 125, "cannot use {folder}: is a directory"),
    ("ca={folder}/junk", 125, "{folder}/junk: it has no certificate in PEM form"),
    ("cert=/no/such", 125, "cannot use /no/such: no such file or directory"),
    ("cert={good}&key=/no/such", 125, "cannot use /no/such: no such file"),
    ("cert={good}&key={folder}/junk", 125, "no certificate and key in PEM form"),
    ("cert={folder}/junk&key={good}", 125, "no certificate and key in PEM form"),
    ("cert={folder}/junk", 125, "no certificate and key in PEM form"),
    ("cert={good}&key={other}", 125, "{other}: it is not the key of {good}"),
    ("cert={good}&key={folder}/locked", 125, "a key must have no password"),
    ("key={good}", 2, "there is a key and no cert"),
    ("ca=", 2, "'ca=' is none of ca=FILE, cert=FILE, key=FILE, name=NAME"),
    ("verify=no", 2, "'verify=no' is none of"),
    ("ca={good}&ca={other}", 2, "ca is given twice"),
    ("", 2, "'' is none of"),
]


@pytest.mark.parametrize(("query", "status", "said"), BAD_FILES)
def test_bad_options(
    lean_forza: Forza,
    certificates: Certificates,
    tmp_path: Path,
    query: str,
    status: int,
    said: str,
) -> None:
    """A file that is of no use is named before the app starts, and so is a slip; a key
    with a password is asked for on no terminal."""
    from cryptography.hazmat.primitives import serialization as form

    (tmp_path / "junk").write_text("no certificate")
    key = form.load_pem_private_key(certificates.good.read_bytes(), None)
    locked = form.BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(
        key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked)
    )
    names = {
        "folder": tmp_path,
        "good": certificates.good,
        "other": certificates.untrusted,
    }
    to = "tls:127.0.0.1?" + query.format(**names)
    ended = lean_forza.run("--to", to, "--", "touch", tmp_path / "ran")
    assert ended.status == status
    assert ended.stderr.startswith("forza: cannot send to ")
    assert said.format(**names) in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def answering(words: bytes) -> socket.socket:
    """Return a listener that answers whatever it hears with these words, and hangs up,
    or never answers if there are none."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        kept = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            kept.append(connection)
            if words:
                connection.recv(1)
                connection.sendall(words)
                connection.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()

    threading.Thread(target=run, daemon=True).start()
    return listener


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "it does not speak TLS"),
        (b'{"forza":"listen","version":1}\n', "it does not speak TLS"),
        (b"\x15\x03\x03\x00\x02\x02\x28", "it says 'handshake failure'"),
        (b"\x16", "closed by the other side"),
    ],
)
def test_no_tls(
    lean_forza: Forza, certificates: Certificates, words: bytes, said: str
) -> None:
    """Who answers with anything but TLS gets nothing, and that is said."""
    listener = answering(words)
    ended = lean_forza.run(
        *("--flush-timeout", 0.2),
        *("--to", url(listener.getsockname()[1], certificates), "--", "true"),
    )
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert ended.status == 0
    assert ended.stderr.count(f"{said}; trying again\n") == 1
    assert "events were not delivered" in ended.stderr


def test_silent_in_the_handshake(
    lean_forza: Forza, serve: Serve, certificates: Certificates
) -> None:
    """A server that accepts and then says nothing holds up neither the app nor the
    server that stands in for it."""
    silent = answering(b"")
    server = serve(certificates.server_context())
    hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{server.port}"
    program = lean_forza.start(
        *("--to", f"tls:{hosts}?ca={certificates.ca}"),
        *("--", "sh", "-c", "echo 1; exec sleep 99"),
    )
    server.wait_for("logs/stdout")
    program.terminate()
    ended = lean_forza.wait(program)
    silent.shutdown(socket.SHUT_RDWR)
    silent.close()
    assert ended.stderr == f"forza: connected to 127.0.0.1:{server.port}\n"
    assert server.wait_closed()[-1]["service"] == "health/process/exit"


def test_to_a_plain_server(
    lean_forza: Forza, server: MetricsServer, certificates: Certificates
) -> None:
    """A server that takes plain lines is never sent any."""
    ended = lean_forza.run(
        *("--flush-timeout", 0.2, "--to", url(server.port, certificates)),
        *("--", "echo", "secret"),
    )
    assert "events were not delivered" in ended.stderr
    assert b"secret" not in server.data


def test_hangs_up(lean_forza: Forza, serve: Serve, certificates: Certificates) -> None:
    """Cut off again and again in mid-stream, with what it has not acknowledged sent
    again, it has each line at last."""
    server = serve(certificates.server_context())
    program = lean_forza.start(
        *("--to", url(server.port, certificates), "--buffer", "64M", "--"),
        *(sys.executable, "-S", CHILDREN / "flood.py", 100_000),
    )
    for count in range(1, 4):
        server.wait_connected(count)
        size = len(server.data)
        server.wait_until(lambda size=size: len(server.data) > size, "data")  # type: ignore[misc]
        server.connections[-1].close()
    assert lean_forza.wait(program).status == 0
    server.wait_until(lambda: server.closed, "end")
    lines = {e["description"] for e in server.of("logs/stdout")}
    assert len(lines) == 100_000


@needs_openssl
def test_a_million_lines_to_openssl(
    lean_forza: Forza, certificates: Certificates
) -> None:
    """OpenSSL's own server gets a million lines, while session tickets and demands for
    new keys come from it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-naccept", "1"]
    openssl = subprocess.Popen(
        [*command, "-tls1_3", "-cert", certificates.good],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert openssl.stdin is not None
    assert openssl.stdout is not None
    program = lean_forza.start(
        *("--to", url(port, certificates), "--flush-timeout", PATIENCE, "--"),
        *(sys.executable, "-S", CHILDREN / "flood.py", 1_000_000),
    )
    lines = updates = exits = 0
    tail = b""
    while data := os.read(openssl.stdout.fileno(), 1 << 20):
        # What it says of the new keys may be in the midst of an event.
        whole, _, tail = (tail + data).rpartition(b"}}\n")
        for words in b"SSL_do_handshake -> 1\n", b"Read BLOCK\n":
            whole = whole.replace(words, b"")
        lines += whole.count(b'"logs/stdout"')
        exits += whole.count(b'"health/process/exit"')
        if updates < min(lines // 1000, 100):
            updates += 1
            openssl.stdin.write(b"K\n")
            openssl.stdin.flush()
    ended = lean_forza.wait(program)
    openssl.stdin.close()
    openssl.stdout.close()
    assert openssl.wait(PATIENCE) == 0
    assert ended.stderr == f"forza: connected to 127.0.0.1:{port}\n"
    assert (lines, exits) == (1_000_000, 1)
    assert updates > 10


def test_silent_after_the_handshake(
    lean_forza: Forza, serve: Serve, certificates: Certificates
) -> None:
    """A server that sends no session ticket, and so has nothing to say, is believed."""
    context = certificates.server_context()
    context.num_tickets = 0
    server = serve(context)
    to = url(server.port, certificates)
    ended = lean_forza.run("--to", to, "--", "true")
    assert ended.stderr == f"forza: connected to 127.0.0.1:{server.port}\n"
    assert server.wait_closed()[-1]["service"] == "health/process/exit"


class Slow(TlsServer):
    """A server that looks at its clients' first words long after they came."""

    def _receive(self, connection: Connection) -> None:
        time.sleep(1.5)
        super()._receive(connection)


def test_slow_to_answer(lean_forza: Forza, certificates: Certificates) -> None:
    """The handshake takes its time, the app none."""
    with Slow(certificates.server_context()) as server:
        to = url(server.port, certificates)
        assert lean_forza.run("--to", to, "--", "true").status == 0
        assert server.wait_closed()[-1]["service"] == "health/process/exit"


def test_spool(
    lean_forza: Forza, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    """What a server could not be trusted with is in the spool, and flushed to it when
    it can."""
    server = serve(certificates.server_context(certificates.expired))
    spool = tmp_path / "spool"
    to = url(server.port, certificates)
    ended = lean_forza.run(
        *("--to", to, "--spool", spool, "--flush-timeout", 0.2, "--", "echo", 1)
    )
    assert "its certificate has expired; trying again" in ended.stderr
    assert f"wait in {spool}" in ended.stderr
    assert server.data == b""
    server.context = certificates.server_context()
    ended = lean_forza.run("flush", "--spool", spool)
    assert (ended.status, server.text("logs/stdout")) == (0, "1\n")
    assert server.wait_closed()[-1]["service"] == "health/process/exit"
    ended = lean_forza.run("flush", "--spool", spool, "--to", to)
    assert "nothing is left" in ended.stderr


PLUGIN = """
class Plugin:
    def __init__(self, monitor, options):
        self.monitor = monitor

    async def run(self):
        import _ssl
        import ssl

        real = ssl.create_default_context and ssl.SSLError is _ssl.SSLError
        self.monitor.send("plugin/ssl", float(real), ssl.__file__)
"""


def test_a_plugin_has_the_real_ssl(
    forza: Forza, serve: Serve, certificates: Certificates, tmp_path: Path
) -> None:
    """A plugin that imports `ssl` gets it whole, beside a sink that needs less."""
    server = serve(certificates.server_context())
    (tmp_path / "secure_plugin.py").write_text(PLUGIN)
    ended = forza.run(
        *("--plugin", "all", "--plugin", "secure_plugin:Plugin"),
        *("--to", url(server.port, certificates), "--", "sleep", 0.3),
        env={"PYTHONPATH": str(tmp_path)},
    )
    said = f"forza: connected to 127.0.0.1:{server.port}\n"
    assert (ended.status, ended.stderr) == (0, said)
    server.wait_closed()
    (event,) = server.of("plugin/ssl")
    assert event["metric"] == 1.0
    assert event["description"].endswith("/ssl.py")


def test_nothing_of_it_unless_asked_for(
    lean_forza: Forza, server: MetricsServer
) -> None:
    """A monitor that sends in plain has loaded no OpenSSL."""
    program = lean_forza.start("-h", server.address, "--", "sleep", 99)
    server.wait_for("health/process/uptime")
    maps = Path(f"/proc/{program.pid}/maps").read_text()
    assert "uvloop" in maps
    assert "libssl" not in maps
    assert "/_ssl." not in maps
    program.terminate()
    lean_forza.wait(program)
