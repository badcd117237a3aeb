# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Issue certificates of every kind, good and bad, and serve metrics over TLS."""

from __future__ import annotations

import datetime
import ssl
from typing import TYPE_CHECKING

from tests.conftest import Connection, MetricsServer

if TYPE_CHECKING:
    from pathlib import Path

    import trustme


class Certificates:
    """An authority, another that nobody trusts, and files that they have signed.

    Each is a path: `ca`, `other_ca`, and certificates with their keys in one file.
    """

    def __init__(self, folder: Path) -> None:
        import trustme

        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        self.folder = folder
        authority, other = trustme.CA(), trustme.CA()
        self.ca, self.other_ca = folder / "ca.pem", folder / "other-ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        other.cert_pem.write_to_path(self.other_ca)
        hosts = "localhost", "127.0.0.1", "::1"
        self.good = self._write("good", authority.issue_cert(*hosts))
        self.untrusted = self._write("untrusted", other.issue_cert(*hosts))
        self.wrong_name = self._write(
            "wrong-name", authority.issue_cert("elsewhere.example", "127.9.9.9")
        )
        self.expired = self._write(
            "expired",
            authority.issue_cert(*hosts, not_before=now - 9 * day, not_after=now - day),
        )
        self.not_yet = self._write(
            "not-yet",
            authority.issue_cert(*hosts, not_before=now + day, not_after=now + 9 * day),
        )
        self.client = self._write("client", authority.issue_cert("a-client"))
        self.other_client = self._write("other-client", other.issue_cert("a-client"))

    def _write(self, name: str, cert: trustme.LeafCert) -> Path:
        path = self.folder / f"{name}.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    def server_context(
        self, cert: Path | None = None, *, version: str = "", clients: bool = False
    ) -> ssl.SSLContext:
        """Return what a server goes by; with `clients` it wants their certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert or self.good)
        if version:
            number = ssl.TLSVersion[version]
            context.minimum_version = context.maximum_version = number
        if clients:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class TlsServer(MetricsServer):
    """A metrics server that speaks TLS, and tells of clients with whom it could not.

    A test may change `context` at any time, for the connections to come.
    """

    def __init__(
        self, context: ssl.SSLContext, port: int = 0, *, parse: bool = True
    ) -> None:
        self.context = context
        self.failed: list[OSError] = []
        super().__init__(port, parse=parse)

    def _receive(self, connection: Connection) -> None:
        plain = connection.sock
        try:
            connection.sock = self.context.wrap_socket(plain, server_side=True)
        except OSError as error:
            plain.close()
            with self._changed:
                self.failed.append(error)
                connection.ended = True
                self._changed.notify_all()
            return
        super()._receive(connection)
