# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Read certificates and keys for OpenSSL, and say plainly what is wrong with them."""

from __future__ import annotations

import os
from errno import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext


def load_authorities(context: SSLContext, path: str) -> None:
    """Trust whom a file names. Raises OSError whose `strerror` is a whole sentence."""
    _check(path)
    try:
        context.load_verify_locations(path)
    except OSError:
        raise _unusable(path, "it has no certificate in PEM form") from None


def load_chain(context: SSLContext, cert: str, key: str) -> None:
    """Show this certificate, whose key may be in the same file. Raises the like."""
    asked: list[None] = []

    def password() -> str:
        # Else OpenSSL would ask on the terminal, and wait.
        asked.append(None)
        return ""

    _check(cert)
    _check(key)
    try:
        context.load_cert_chain(cert, key, password)
    except OSError as error:
        if asked:
            raise _unusable(key, "a key must have no password") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise _unusable(key, f"it is not the key of {cert}") from None
        both = cert if cert == key else f"{cert} with {key}"
        raise _unusable(both, "no certificate and key in PEM form") from None


def _check(path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise _unusable(path, os.strerror(error.errno or 0).lower()) from None


def _unusable(path: str, why: str) -> OSError:
    return OSError(EINVAL, f"cannot use {path}: {why}")
