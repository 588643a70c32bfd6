"""Encryption to the public keys of other parties (RFC 7516, RFC 7518, 4 and 5)."""

import json
from collections.abc import Mapping
from typing import Any

from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK

from keys.errors import KeysError
from keys.jose.compact import MAXIMUM_KID_CHARACTERS
from keys.jose.jwk import PUBLIC_MEMBERS

KEY_USE = "enc"
#: The algorithms by which a content key is encrypted or agreed on.
KEY_MANAGEMENT = ("RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW")
CONTENT_ENCRYPTION = ("A128CBC-HS256", "A256GCM")
_CURVES = {"EC": frozenset({"P-256", "P-384", "P-521"}), "OKP": frozenset({"X25519"})}
#: RFC 7518, 4.3 and RFC 8725, 3.5; a larger key takes milliseconds.
_RSA_BITS = range(2_048, 4_097)
_MAXIMUM_MEMBER_CHARACTERS = _RSA_BITS.stop // 6 + 1
#: With an exponent as long as the modulus, each use of a key takes milliseconds.
MAXIMUM_EXPONENT_BITS = 32
#: What a key may be for (RFC 7517, 4.3); the list of a public ECDH key is often empty.
_OPERATIONS = frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"})
_PRIVATE_MEMBERS = frozenset({"d", "dp", "dq", "k", "oth", "p", "priv", "q", "qi"})


class EncryptionKey:
    """A public key of another party, to which messages are encrypted.

    Args:
        jwk: the key, with ``use`` ``enc``; it may have further members, such as ``x5c``.

    Attributes:
        kid: its id; empty if it has none.
        algorithms: those of :data:`KEY_MANAGEMENT` that it fits.

    Raises:
        KeysError: it is not a public key for encryption, contradicts its ``alg`` or ``key_ops``,
            or is too weak or too large.
    """

    __slots__ = ("_key", "algorithms", "kid")

    def __init__(self, jwk: object) -> None:
        if not isinstance(jwk, Mapping) or jwk.get("use") != KEY_USE:
            raise KeysError("a key is not for encryption: its use is not enc")
        kid = jwk.get("kid", "")
        if not isinstance(kid, str) or len(kid) > MAXIMUM_KID_CHARACTERS:
            raise KeysError(f"a kid is a string of at most {MAXIMUM_KID_CHARACTERS} characters")
        if not all(isinstance(jwk.get(name, ""), str) for name in ("x5t", "x5t#S256")):
            raise KeysError("a key has an x5t or x5t#S256 that is not a string")
        self.kid = kid
        _require_operation(jwk.get("key_ops", []))
        self.algorithms = _algorithms_of(jwk)
        self._key = _load(jwk)
        # A point of small order and an even modulus load, but nothing is encrypted to them.
        self.encrypt(b"", min(self.algorithms), CONTENT_ENCRYPTION[0], cty="JWT")

    def encrypt(self, plaintext: bytes, alg: str, enc: str, *, cty: str) -> str:
        """Return the compact serialization of the encrypted text.

        Args:
            plaintext: the text.
            alg: one of the key's algorithms.
            enc: one of :data:`CONTENT_ENCRYPTION`.
            cty: the type of the text; ``JWT`` for a nested token (RFC 7519, 5.2).

        Raises:
            KeysError: the key does not fit ``alg``, or nothing can be encrypted to it.
        """
        if alg not in self.algorithms:
            raise KeysError(f"the key does not fit {alg}")
        header = {"alg": alg, "enc": enc, "cty": cty} | ({"kid": self.kid} if self.kid else {})
        message = JWE(plaintext, protected=json.dumps(header, separators=(",", ":")))
        try:
            message.add_recipient(self._key)
        except (JWException, ValueError) as error:
            raise KeysError("nothing can be encrypted to the key") from error
        encrypted: str = message.serialize(compact=True)
        return encrypted


def is_for_encryption(jwk: object) -> bool:
    """Return whether a key of a JWK set is declared for encryption (RFC 7517, 4.2)."""
    return isinstance(jwk, Mapping) and jwk.get("use") == KEY_USE


def read_pem(pem: bytes) -> dict[str, str]:
    """Return a public key in PEM, or that of a certificate, as a JWK without ``use``.

    Raises:
        KeysError: it cannot be read, or is a private key.
    """
    try:
        key = JWK.from_pem(pem)
        is_public = not key.has_private
    except (JWException, ValueError, TypeError) as error:
        raise KeysError("a key in PEM cannot be read") from error
    if not is_public:
        raise KeysError("a private or symmetric key is not a public key")
    members: dict[str, str] = key.export_public(as_dict=True)
    return {name: members[name] for name in PUBLIC_MEMBERS[members["kty"]]}


def _require_operation(operations: object) -> None:
    if not isinstance(operations, list) or not all(isinstance(each, str) for each in operations):
        raise KeysError("key_ops is not a list of strings")
    if operations and _OPERATIONS.isdisjoint(operations):
        raise KeysError("a key is not for encryption: its key_ops list no such operation")


def _algorithms_of(jwk: Mapping[str, object]) -> frozenset[str]:
    # What others publish may be of any type, also one that has no hash.
    kty, crv, alg = jwk.get("kty"), jwk.get("crv"), jwk.get("alg")
    if kty == "RSA":
        fitting = frozenset({"RSA-OAEP-256"})
    elif isinstance(kty, str) and isinstance(crv, str) and crv in _CURVES.get(kty, ()):
        fitting = frozenset({"ECDH-ES", "ECDH-ES+A256KW"})
    else:
        raise KeysError("a key for encryption has an unsupported type or curve")
    if alg is None:
        return fitting
    if not isinstance(alg, str) or alg not in fitting:
        raise KeysError("the alg of a key for encryption does not fit the key")
    return frozenset({alg})


def _load(jwk: Mapping[str, object]) -> Any:  # noqa: ANN401 - the library has no types
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeysError("a private or symmetric key is not a public key")
    members = {name: jwk.get(name) for name in PUBLIC_MEMBERS[str(jwk["kty"])]}
    if not all(isinstance(each, str) for each in members.values()):
        raise KeysError("a member of a key is not a string")
    if any(len(str(each)) > _MAXIMUM_MEMBER_CHARACTERS for each in members.values()):
        raise KeysError("a key for encryption is too large")
    try:
        key = JWK(**members)
        # Reading the key itself checks that a point is on its curve.
        public = key.get_op_key("wrapKey")
    except (JWException, ValueError, TypeError) as error:
        raise KeysError("a key for encryption cannot be read") from error
    if jwk["kty"] == "RSA":
        if public.key_size not in _RSA_BITS:
            raise KeysError(f"an RSA key must have {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits")
        if public.public_numbers().e.bit_length() > MAXIMUM_EXPONENT_BITS:
            raise KeysError("an RSA key has an exponent that is too large")
    return key
