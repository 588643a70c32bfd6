"""Key pairs on a PKCS#11 token: create, find, read and sign in an open session.

Only a key that never left the token is used: sensitive and not extractable since its creation.
Everything here is called by ``keys.backends.pkcs11.module.Module.run``.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import new as new_hash
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurve,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from pkcs11 import MGF, Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as p11
from pkcs11.types import Object, Session

from keys.backends.pkcs11.module import OpenToken
from keys.backends.pkcs11.numbers import Register, draft_label
from keys.errors import BackendBroken, BackendUnavailable, KeysError
from keys.jose.algorithms import DEFAULT_RSA_BITS, Algorithm, get_algorithm
from keys.jose.jwk import load_public_key, public_jwk
from keys.jose.signatures import PublicKey

#: RFC 8017, 9.2, note 1: the DigestInfo of SHA-256 up to the digest.
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
_PSS = (Mechanism.SHA256, MGF.SHA256, 32)
#: DER of the object identifiers.
_CURVES: dict[str, tuple[bytes, EllipticCurve]] = {
    "P-256": (bytes.fromhex("06082a8648ce3d030107"), SECP256R1()),
    "P-384": (bytes.fromhex("06052b81040022"), SECP384R1()),
    "P-521": (bytes.fromhex("06052b81040023"), SECP521R1()),
}
#: PKCS#11 3.0 names the curve by a PrintableString, 3.1 also by its object identifier.
_ED25519 = (b"\x13\x0cedwards25519", bytes.fromhex("06032b6570"))
_ED25519_BYTES = 32
#: Key type, signing mechanism, key generation mechanism.
_NEEDED: dict[str, tuple[KeyType, Mechanism, Mechanism]] = {
    "ES256": (KeyType.EC, Mechanism.ECDSA, Mechanism.EC_KEY_PAIR_GEN),
    "ES384": (KeyType.EC, Mechanism.ECDSA, Mechanism.EC_KEY_PAIR_GEN),
    "ES512": (KeyType.EC, Mechanism.ECDSA, Mechanism.EC_KEY_PAIR_GEN),
    "RS256": (KeyType.RSA, Mechanism.RSA_PKCS, Mechanism.RSA_PKCS_KEY_PAIR_GEN),
    "PS256": (KeyType.RSA, Mechanism.RSA_PKCS_PSS, Mechanism.RSA_PKCS_KEY_PAIR_GEN),
    "EdDSA": (KeyType.EC_EDWARDS, Mechanism.EDDSA, Mechanism.EC_EDWARDS_KEY_PAIR_GEN),
}
_BITS = {"P-256": 256, "P-384": 384, "P-521": 521, "Ed25519": 255, None: DEFAULT_RSA_BITS}
ALGORITHM_NAMES = frozenset(_NEEDED)
_PROTECTION = (
    (Attribute.SENSITIVE, True, "is not sensitive"),
    (Attribute.EXTRACTABLE, False, "is extractable"),
    (Attribute.ALWAYS_SENSITIVE, True, "was not always sensitive"),
    (Attribute.NEVER_EXTRACTABLE, True, "was made outside or could once be extracted"),
    (Attribute.SIGN, True, "is not for signing"),
)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A key pair on a token.

    Attributes:
        private: the private key's object.
        key_id: its CKA_ID.
        jwk: the public key.
        started_on: its start date (CKA_START_DATE), if any.
    """

    private: Any
    key_id: bytes
    jwk: dict[str, str]
    started_on: datetime | None


def offered_algorithms(token: OpenToken) -> frozenset[str]:
    """Return the names of the algorithms that the token supports for signing and key generation."""
    return frozenset(
        name
        for name, (_, signs, makes) in _NEEDED.items()
        if min(token.mechanisms.get(signs, 0), token.mechanisms.get(makes, 0))
        >= _BITS[get_algorithm(name).crv]
    )


def make_pair(session: Session, algorithm: Algorithm, label: str, key_id: bytes) -> None:
    """Create a key pair that cannot leave the token, with the label of a draft."""
    key_type, _, mechanism = _NEEDED[algorithm.name]
    for parameters in _parameters(algorithm):
        try:
            session.generate_keypair(
                key_type,
                key_length=DEFAULT_RSA_BITS if key_type is KeyType.RSA else None,
                id=key_id,
                label=draft_label(label),
                store=True,
                capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
                mechanism=mechanism,
                public_template=parameters,
                private_template={
                    Attribute.PRIVATE: True,
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                },
            )
        except (p11.DomainParamsInvalid, p11.AttributeValueInvalid) as error:
            refused = error
        else:
            return
    raise refused


def find_pair(session: Session, label: str) -> TokenKey | None:
    """Return the key pair whose private key has the label ``label``, or None.

    Raises:
        BackendBroken: there are several, the public half is missing, or the key may be known
            outside the token.
    """
    found = _objects(session, ObjectClass.PRIVATE_KEY, {Attribute.LABEL: label})
    if not found:
        return None
    if len(found) > 1:
        raise BackendBroken(f"{len(found)} private keys on the token are called {label!r}")
    private = found[0]
    for attribute, wanted, sentence in _PROTECTION:
        if bool(private[attribute]) is not wanted:
            raise BackendBroken(f"the private key {label!r} on the token {sentence}")
    key_id = bytes(private[Attribute.ID])
    public = _objects(session, ObjectClass.PUBLIC_KEY, {Attribute.ID: key_id})
    if len(public) != 1 or not key_id:
        raise BackendBroken(f"{label!r} on the token has {len(public)} public keys of its CKA_ID")
    jwk = public_jwk(_read_public(label, public[0]))
    return TokenKey(private, key_id, jwk, _started_on(public[0]))


def find_signer(key: TokenKey, alg: str) -> Callable[[bytes], bytes] | None:
    """Return a function from input to JOSE signature, or None if the key does not fit ``alg``."""
    if alg not in ALGORITHM_NAMES:
        return None
    try:
        load_public_key(key.jwk, alg)
    except KeysError:
        return None
    algorithm, (key_type, mechanism, _) = get_algorithm(alg), _NEEDED[alg]
    sign = key.private.sign
    if key_type is KeyType.EC_EDWARDS:
        return lambda data: bytes(sign(data, mechanism=mechanism))
    hash_name = algorithm.hash_name or ""
    if mechanism is Mechanism.RSA_PKCS:
        return lambda data: bytes(
            sign(SHA256_INFO + new_hash(hash_name, data).digest(), mechanism=mechanism)
        )
    parameters = _PSS if mechanism is Mechanism.RSA_PKCS_PSS else None
    return lambda data: bytes(
        sign(new_hash(hash_name, data).digest(), mechanism=mechanism, mechanism_param=parameters)
    )


def read_labels(session: Session) -> tuple[Register, ...]:
    """Return label and CKA_ID of every private key on the token."""
    return tuple(_registers(session))


def write_label(session: Session, key_id: bytes, label: str) -> None:
    """Change the label of both halves of a key pair, the private one last, whose label counts.

    Raises:
        BackendUnavailable: there is no such key.
    """
    pair = _both_halves(session, key_id)
    if not any(half.object_class is ObjectClass.PRIVATE_KEY for half in pair):
        raise BackendUnavailable("a key that was just made is not on the token", retry_after=1)
    for half in pair:
        half[Attribute.LABEL] = label


def destroy_pair(session: Session, key_id: bytes) -> None:
    """Delete both halves of a key pair, the private one first."""
    for half in reversed(_both_halves(session, key_id)):
        half.destroy()


def _both_halves(session: Session, key_id: bytes) -> list[Any]:
    return [
        found
        for kind in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)
        for found in _objects(session, kind, {Attribute.ID: key_id})
    ]


def _objects(session: Session, kind: ObjectClass, attributes: dict[Attribute, Any]) -> list[Any]:
    # A search in a lost session makes the library print to stderr; this call only raises.
    with suppress(p11.RandomNoRNG, p11.FunctionNotSupported):
        session.generate_random(64)
    return list(session.get_objects({Attribute.CLASS: kind} | attributes))


def _registers(session: Session) -> Iterator[Register]:
    for key in _objects(session, ObjectClass.PRIVATE_KEY, {}):
        try:
            yield Register(str(key[Attribute.LABEL]), bytes(key[Attribute.ID]))
        except (p11.ObjectHandleInvalid, UnicodeDecodeError):
            continue  # deleted a moment ago, or not made by this program


def _parameters(algorithm: Algorithm) -> list[dict[Attribute, bytes]]:
    if algorithm.kty == "RSA":
        return [{}]
    if algorithm.kty == "OKP":
        return [{Attribute.EC_PARAMS: name} for name in _ED25519]
    return [{Attribute.EC_PARAMS: _CURVES[algorithm.crv or ""][0]}]


def _read_public(label: str, public: Object) -> PublicKey:
    kind = public[Attribute.KEY_TYPE]
    try:
        if kind is KeyType.RSA:
            exponent = int.from_bytes(public[Attribute.PUBLIC_EXPONENT])
            return RSAPublicNumbers(
                exponent, int.from_bytes(public[Attribute.MODULUS])
            ).public_key()
        parameters, point = public[Attribute.EC_PARAMS], bytes(public[Attribute.EC_POINT])
        if kind is KeyType.EC_EDWARDS and parameters in _ED25519:
            return Ed25519PublicKey.from_public_bytes(point[-_ED25519_BYTES:])
        for known, curve in _CURVES.values():
            if kind is KeyType.EC and parameters == known:
                size = 1 + 2 * ((curve.key_size + 7) // 8)
                return EllipticCurvePublicKey.from_encoded_point(curve, point[-size:])
    except ValueError as error:
        raise BackendBroken(f"the public key {label!r} on the token cannot be read") from error
    raise BackendBroken(f"the public key {label!r} on the token has an unsupported type or curve")


def _started_on(public: Object) -> datetime | None:
    try:
        day: date = public[Attribute.START_DATE]
    except (ValueError, p11.PKCS11Error):  # raised by the library for an empty date
        return None
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
