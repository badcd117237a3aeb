# SPDX-FileCopyrightText: the forza authors
# SPDX-License-Identifier: MIT
"""Say in plain words why a server or a client is not trusted, or does not trust us."""

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
_OLD = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"}
ENDS = {"SSLEOFError", "SSLZeroReturnError"}
_OF_OURS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know who has signed it",
    "TLSV1_ALERT_ACCESS_DENIED": "access denied",
    "SSLV3_ALERT_BAD_CERTIFICATE": "bad certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it is revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it is not acceptable",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it is not for clients",
}


def is_unknown(error: BaseException | None) -> bool:
    """Say whether a certificate is signed by nobody that we trust."""
    return getattr(error, "verify_code", None) in _UNKNOWN


def reason(error: SSLError, server: str) -> str:
    """Return what is wrong with the other side, or with us in its eyes.

    It has the name `server`, or is a client.
    """
    code = getattr(error, "verify_code", None)
    if code is not None:
        return f"its certificate {_verification(error, code, server)}"  # type: ignore[arg-type]
    why = error.reason or ""
    if type(error).__name__ in ENDS:
        return "closed by the other side"
    if why in _NO_TLS:
        return "it does not speak TLS"
    if why in _OLD:
        return "it speaks no version of TLS that is safe"
    if why == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it shows no certificate"
    if why == "TLSV13_ALERT_CERTIFICATE_REQUIRED":
        return "it wants a certificate of ours: name it, as ?cert=FILE&key=FILE"
    if why in _OF_OURS:
        return f"it refuses our certificate: {_OF_OURS[why]}"
    if "_ALERT_" in why:
        return f"it says '{why.partition('_ALERT_')[2].replace('_', ' ').lower()}'"
    return why.replace("_", " ").lower() or "the encryption has failed"


def _verification(error: SSLCertVerificationError, code: int, server: str) -> str:
    hint = ": name {}, as ?ca=FILE" if server else ""
    if code in _WRONG_NAME:
        return f"is not for '{server}'"
    if code == _EXPIRED:
        return "has expired"
    if code == _NOT_YET:
        return "is not valid yet"
    if code == _SELF_SIGNED:
        return f"is signed by itself{hint.format('it')}"
    if code in _UNKNOWN:
        return f"is signed by nobody we trust{hint.format('who has')}"
    return f"is not good: {error.verify_message.lower()}"
