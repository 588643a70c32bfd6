"""The key by which a client signs its G2P Connect messages, as a thumbprint."""

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping

import msgspec

from authz_server.errors import InvalidChangeError
from keys.errors import KeysError

#: The methods of confirmation (RFC 9449, 6.1; RFC 8705, 3.1) by which a key may be named.
JKT = "jkt"
X5T = "x5t#S256"

_FIELD = "message_key_thumbprint"
_FORMS = (
    "use the thumbprint of a JWK (RFC 7638), a public JWK, a public key or certificate in PEM, "
    'or {"x5t#S256": ...}'
)
#: SHA-256 in base64url; the last character holds 4 bits.
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
_SENDER_ID = re.compile(r"[\x21-\x7e]{1,200}")


class MessageKey(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The thumbprint of a public key or of a certificate; one of the two.

    Attributes:
        jkt: SHA-256 of the key as JWK (RFC 7638), in base64url.
        x5t: SHA-256 of the certificate in DER, in base64url (``x5t#S256``).
    """

    jkt: str = ""
    x5t: str = msgspec.field(name=X5T, default="")


def check_sender_id(value: object) -> str:
    """Return a ``sender_id``: 1 to 200 printable ASCII characters without a space.

    Raises:
        InvalidChangeError: it is something else.
    """
    if not isinstance(value, str) or not _SENDER_ID.fullmatch(value):
        raise InvalidChangeError("sender_id: use 1 to 200 printable ASCII characters, no space")
    return value


def check_message_key(value: object) -> dict[str, str]:
    """Return the thumbprint to store, computed if the key or certificate itself is given.

    Args:
        value: a thumbprint, a public JWK, a public key or certificate in PEM, or
            ``{"jkt": ...}`` or ``{"x5t#S256": ...}``.

    Raises:
        InvalidChangeError: it is none of these, or a private key.
    """
    match value:
        case str() if "-----BEGIN" in value:
            return _thumbprint_of_pem(value)
        case str():
            return {JKT: _require_thumbprint(value)}
        case Mapping() if "kty" in value:
            return {JKT: _thumbprint_of_jwk(value)}
        case Mapping() if list(value) in ([JKT], [X5T]):
            return {name: _require_thumbprint(each) for name, each in value.items()}
    raise InvalidChangeError(f"{_FIELD}: {_FORMS}")


def _require_thumbprint(value: object) -> str:
    if not isinstance(value, str) or not _THUMBPRINT.fullmatch(value):
        raise InvalidChangeError(f"{_FIELD}: a thumbprint is SHA-256 in base64url, 43 characters")
    return value


# A command that sets no key does not load the libraries of keys and certificates.
def _thumbprint_of_pem(text: str) -> dict[str, str]:
    from cryptography import x509  # noqa: PLC0415 - as said above
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - likewise
        Encoding,
        load_pem_public_key,
    )

    from keys.jose.jwk import public_jwk  # noqa: PLC0415 - likewise
    from keys.jose.signatures import PublicKey  # noqa: PLC0415 - likewise

    if "PRIVATE KEY-----" in text:
        raise InvalidChangeError(f"{_FIELD}: this is a private key; name the public one")
    try:
        if "-----BEGIN CERTIFICATE-----" in text:
            certificate = x509.load_pem_x509_certificate(text.encode())
            return {X5T: _encode(certificate.public_bytes(Encoding.DER))}
        key = load_pem_public_key(text.encode())
    except ValueError as error:
        raise InvalidChangeError(f"{_FIELD}: the PEM cannot be read ({error})") from None
    if not isinstance(key, PublicKey):
        raise InvalidChangeError(f"{_FIELD}: the key is not one for signatures")
    try:
        return {JKT: _thumbprint_of_jwk(public_jwk(key))}
    except KeysError as error:
        raise InvalidChangeError(f"{_FIELD}: {error}") from None


def _thumbprint_of_jwk(jwk: Mapping[str, object]) -> str:
    from keys.jose.foreign import ForeignKey  # noqa: PLC0415 - likewise

    try:
        return ForeignKey(jwk).thumbprint
    except KeysError as error:
        raise InvalidChangeError(f"{_FIELD}: {error}") from None


def _encode(der: bytes) -> str:
    return urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
