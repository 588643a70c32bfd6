"""Encrypt a new secret to the public key of its recipient (JWE, RFC 7516)."""

import codecs
from collections.abc import Callable

from authz_server.errors import InvalidChangeError
from keys.errors import KeysError
from keys.jose.compact import parse_json_object

_FORMS = (
    "use a public key or certificate in PEM, or a public JWK: RSA of 2,048 to 4,096 bits, P-256, "
    "P-384, P-521 or X25519"
)


def open_recipient(content: bytes) -> Callable[[str], str]:
    """Return a function that encrypts a text to a public key, as a compact JWE.

    The content is encrypted with A256GCM, its key with RSA-OAEP-256 or ECDH-ES (RFC 7518, 4).

    Args:
        content: a public key or certificate in PEM, or a public JWK: RSA of 2,048 to 4,096 bits,
            P-256, P-384, P-521 or X25519.

    Raises:
        InvalidChangeError: it is something else, a secret key, or a key for signatures.
    """
    # A command that encrypts nothing does not load the library.
    from keys.jose.encryption import (  # noqa: PLC0415
        KEY_MANAGEMENT,
        KEY_USE,
        EncryptionKey,
        read_pem,
    )
    from keys.jose.jwk import PUBLIC_MEMBERS, thumbprint  # noqa: PLC0415

    try:
        is_pem = b"-----BEGIN" in content
        text = content.removeprefix(codecs.BOM_UTF8)
        jwk = read_pem(text) if is_pem else parse_json_object(text)
        key = EncryptionKey({"use": KEY_USE, **jwk})
        public = {name: jwk[name] for name in PUBLIC_MEMBERS[jwk["kty"]]}
        key.kid = key.kid or thumbprint(public)
    except KeysError as error:
        raise InvalidChangeError(f"{error}; {_FORMS}") from None
    alg = next(each for each in KEY_MANAGEMENT if each in key.algorithms)

    def seal(text: str) -> str:
        return key.encrypt(text.encode(), alg, "A256GCM", cty="text/plain")

    return seal
