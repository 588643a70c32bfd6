"""Tokens bound to a client certificate (RFC 8705, 3)."""

import hashlib
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from authz_verifier.compact import encode_segment
from authz_verifier.errors import invalid_token

MAXIMUM_CERTIFICATE_CHARACTERS = 32_768
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def require_certificate(confirmation: Mapping[str, Any], certificate: str) -> None:
    """Require the certificate that a token is bound to.

    Args:
        confirmation: `cnf` of the token, with `x5t#S256`.
        certificate: as a proxy forwards it: in the form of RFC 9440, as PEM, as URL-encoded PEM
            (nginx's `$ssl_client_escaped_cert`), or as DER in base64 (HAProxy's
            `ssl_c_der,base64`).

    Raises:
        Refusal: it is missing, malformed, or another one (RFC 8705, 3: 401 invalid_token).
    """
    if not certificate:
        raise invalid_token("no client certificate")
    try:
        found = certificate_thumbprint(certificate)
    except ValueError as error:
        raise invalid_token(str(error)) from None
    if found != confirmation["x5t#S256"]:
        raise invalid_token("another client certificate")


def certificate_thumbprint(certificate: str) -> str:
    """Return the SHA-256 thumbprint of a certificate (RFC 8705, 3.1).

    Raises:
        ValueError: it has none of the accepted forms.
    """
    if len(certificate) > MAXIMUM_CERTIFICATE_CHARACTERS:
        raise ValueError("the client certificate is too large")
    try:
        der = a2b_base64(_base64_of(certificate.strip()).encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise ValueError("the client certificate is malformed") from None
    return encode_segment(hashlib.sha256(der).digest()).decode()


def _base64_of(certificate: str) -> str:
    if certificate.startswith(":"):
        return certificate[1:].removesuffix(":")
    text = unquote(certificate) if "%" in certificate else certificate
    if not text.startswith(_BEGIN):
        return text
    body, end, _ = text.partition(_END)
    if not end:
        raise ValueError("the client certificate is malformed")
    return "".join(body.removeprefix(_BEGIN).split())
