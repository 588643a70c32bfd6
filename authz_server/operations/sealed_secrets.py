"""Encrypt a new secret to the public key of its recipient (JWE, RFC 7516)."""

from collections.abc import Callable

from authz_server.errors import InvalidChangeError

_MINIMUM_RSA_BITS = 2_048


def open_recipient(content: bytes) -> Callable[[str], str]:
    """Return a function that encrypts a text to a public key, as a compact JWE.

    The content is encrypted with A256GCM, its key with RSA-OAEP-256 or ECDH-ES (RFC 7518, 4).

    Args:
        content: a public key or certificate in PEM, or a public JWK: RSA of 2,048 bits at least,
            P-256, P-384, P-521 or X25519.

    Raises:
        InvalidChangeError: it is something else, a secret key, or a key for signatures.
    """
    # A command that encrypts nothing does not load the library.
    from jwcrypto.common import JWException, json_encode  # noqa: PLC0415
    from jwcrypto.jwe import JWE  # noqa: PLC0415
    from jwcrypto.jwk import JWK  # noqa: PLC0415

    try:
        key = JWK.from_pem(content) if b"-----BEGIN" in content else JWK.from_json(content.decode())
    except (JWException, ValueError, TypeError, RecursionError):
        raise InvalidChangeError("use a public key or certificate in PEM, or a JWK") from None
    if key.has_private or key.is_symmetric:
        raise InvalidChangeError("it is a secret key: use the recipient's public key")
    members = key.export_public(as_dict=True)
    if members.get("use", "enc") != "enc":
        raise InvalidChangeError("it is a key for signatures")
    match members:
        case {"kty": "RSA"} if key.get_op_key("encrypt").key_size >= _MINIMUM_RSA_BITS:
            algorithm = "RSA-OAEP-256"
        case {"kty": "EC", "crv": "P-256" | "P-384" | "P-521"} | {"kty": "OKP", "crv": "X25519"}:
            algorithm = "ECDH-ES"
        case _:
            raise InvalidChangeError(
                "use RSA of 2,048 bits at least, P-256, P-384, P-521 or X25519"
            )
    header = {"alg": algorithm, "enc": "A256GCM", "kid": members.get("kid") or key.thumbprint()}

    def seal(text: str) -> str:
        sealed = JWE(text.encode(), json_encode(header), recipient=key)
        return str(sealed.serialize(compact=True))

    return seal
