# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Make a certificate for this machine, which whoever is given it may trust."""

from __future__ import annotations

from pathlib import Path

from .cache import UnavailableError
from .cell import Cell

__all__ = ["certificate"]


def certificate(cell: Cell) -> Path:
    """Return a file with the certificate and its key."""
    path, key = cell.path / "certificate.pem", cell.path / "key.pem"
    command = (
        *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
        *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=bench"),
        *("-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", key, "-out", path),
    )
    try:
        status = cell.run(command)
    except OSError as error:
        raise UnavailableError(f"cannot run openssl: {error}") from error
    if status:
        raise UnavailableError(f"openssl makes no certificate: {cell.output()}")
    with path.open("ab") as file:
        file.write(key.read_bytes())
    return path
