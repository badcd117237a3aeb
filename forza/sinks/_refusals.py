# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say in plain words why a server is not trusted, or does not trust us."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLCertVerificationError, SSLError

# OpenSSL's X509_V_ERR_*.
_NOT_YET, _EXPIRED = 9, 10
_SELF_SIGNED = 18
_UNKNOWN = (2, 19, 20, 21)
_WRONG_NAME = (62, 64)
_NO_TLS = {
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "PACKET_LENGTH_TOO_LONG",
    "RECORD_LAYER_FAILURE",
    "UNEXPECTED_MESSAGE",
    "UNEXPECTED_RECORD",
}
_WANTS_ONE = {"TLSV13_ALERT_CERTIFICATE_REQUIRED", "PEER_DID_NOT_RETURN_A_CERTIFICATE"}
_OF_OURS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who has signed it",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it is not acceptable",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not for clients",
}


def is_unknown(error: BaseException) -> bool:
    """Say whether the server's certificate is signed by none that we trust."""
    return getattr(error, "verify_code", None) in _UNKNOWN


def is_end(error: SSLError) -> bool:
    """Say whether the connection has ended, in order or by being cut."""
    return type(error).__name__ in ("SSLEOFError", "SSLZeroReturnError")


def reason(error: SSLError, server: str) -> str:
    """Return why a connection cannot be had or used."""
    code = getattr(error, "verify_code", None)
    if code is not None:
        return f"its certificate {_verification(error, code, server)}"  # type: ignore[arg-type]
    why = error.reason or ""
    if is_end(error):
        return "closed by the server"
    if why in _NO_TLS:
        return "it does not speak TLS"
    if why in _WANTS_ONE:
        return "it wants a certificate of ours: name it, as ?cert=FILE&key=FILE"
    if why in _OF_OURS:
        return f"it refuses our certificate: {_OF_OURS[why]}"
    if "_ALERT_" in why:
        return f"it says '{why.partition('_ALERT_')[2].replace('_', ' ').lower()}'"
    return why.replace("_", " ").lower() or "TLS has failed"


def _verification(error: SSLCertVerificationError, code: int, server: str) -> str:
    if code in _WRONG_NAME:
        return f"is not for '{server}'"
    if code == _EXPIRED:
        return "has expired"
    if code == _NOT_YET:
        return "is not valid yet"
    if code == _SELF_SIGNED:
        return "is signed by itself: name it, as ?ca=FILE, to trust it"
    if code in _UNKNOWN:
        return "is signed by nobody we trust: name who has, as ?ca=FILE"
    return f"is not good: {error.verify_message.lower()}"
