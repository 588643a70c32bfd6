"""Signed tokens and public keys of other parties, for example of clients and their issuers.

Unlike the tokens of this server, they may have any header that does not change how a token is
verified. A header never provides the key, except where a proof of possession requires it.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import combinations
from types import MappingProxyType
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from keys.errors import KeysError, TokenRefusedError
from keys.jose.algorithms import ALGORITHMS, KEY_USE, Algorithm
from keys.jose.compact import (
    MAXIMUM_KID_CHARACTERS,
    decode_segment,
    parse_json_object,
    split_segments,
)
from keys.jose.encryption import MAXIMUM_EXPONENT_BITS, is_for_encryption
from keys.jose.jwk import (
    PUBLIC_MEMBERS,
    compute_thumbprint,
    load_public_key,
    public_jwk,
    require_canonical_point,
)
from keys.jose.signatures import PublicKey, Verifier, make_verifier, signature_size

#: The algorithms by which other parties may sign. "Ed25519" is RFC 9864's name of "EdDSA" with
#: that curve; a key registered for either verifies both.
FOREIGN_ALGORITHMS: Mapping[str, Algorithm] = MappingProxyType(
    {
        **{name: ALGORITHMS[name] for name in ("ES256", "ES384", "ES512", "PS256")},
        "PS384": Algorithm("PS384", "RSA", None, "sha384", None),
        "PS512": Algorithm("PS512", "RSA", None, "sha512", None),
        "EdDSA": ALGORITHMS["EdDSA"],
        "Ed25519": Algorithm("Ed25519", "OKP", "Ed25519", None, 64),
        "RS256": ALGORITHMS["RS256"],
    }
)
#: A larger key takes milliseconds for each verification.
MAXIMUM_RSA_BITS = 4_096
_MAXIMUM_MEMBER_CHARACTERS = MAXIMUM_RSA_BITS // 6 + 1
MAXIMUM_KEYS = 20
#: Header members that change how a token is verified, or that provide a key or its address.
REFUSED_MEMBERS = frozenset({"b64", "crit", "enc", "jku", "jwk", "x5c", "x5u", "zip"})
#: A longer header is parsed each time, so that those in memory stay small.
_REMEMBERED_HEADER_BYTES = 512
#: RFC 7518, 6.2.2, 6.3.2 and 6.4; RFC 8037, 2; RFC 9964.
_PRIVATE_MEMBERS = frozenset({"d", "dp", "dq", "k", "oth", "p", "priv", "q", "qi"})
_EDWARDS_NAMES = frozenset({"EdDSA", "Ed25519"})
#: RFC 8032, 5.1: the order of the base point. A larger scalar is refused without a computation.
_EDWARDS_ORDER = 2**252 + 27742317777372353535851937790883648493
#: The algorithm by which a key of each type and curve is read.
_READ_BY: Mapping[tuple[str, str | None], str] = {
    (ALGORITHMS[name].kty, ALGORITHMS[name].crv): name
    for name in ("ES256", "ES384", "ES512", "PS256", "EdDSA")
}


def is_same_algorithm(registered: str, alg: str) -> bool:
    """Return whether two names are of one algorithm: EdDSA is Ed25519 here (RFC 9864, 2.2)."""
    return registered == alg or {registered, alg} == _EDWARDS_NAMES


class ForeignToken(NamedTuple):
    """A parsed token of another party; nothing in it is trusted before it is verified.

    Attributes:
        header: the members; ``alg`` is a string, and so are ``kid`` and ``typ`` where present.
        payload: the signed bytes, decoded.
        signing_input: header and payload as presented.
        signature: the signature, decoded.
    """

    header: Mapping[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    @property
    def typ(self) -> str:
        """The type in lower case without ``application/`` (RFC 7515, 4.1.9); empty if absent."""
        typ: str = self.header.get("typ", "")
        return typ.lower().removeprefix("application/")


def parse_foreign(
    token: str, maximum_bytes: int, *, permitted: frozenset[str] = frozenset()
) -> ForeignToken:
    """Parse a token in the compact serialization of RFC 7515, 3.1.

    Args:
        token: the token as presented.
        maximum_bytes: the largest accepted size.
        permitted: the members of :data:`REFUSED_MEMBERS` that the header may have, for example
            ``jwk`` in a DPoP proof.

    Raises:
        TokenRefusedError: it is too large, not three non-empty segments of canonical base64url, or
            its header is malformed or has a refused member. Nothing else is raised for any text.
    """
    header, payload, signature = split_segments(token, maximum_bytes)
    is_usual = not permitted and len(header) <= _REMEMBERED_HEADER_BYTES
    members = _read_usual_header(header) if is_usual else _read_header(header, permitted)
    return ForeignToken(
        members, decode_segment(payload), header + b"." + payload, decode_segment(signature)
    )


def _read_header(segment: bytes, permitted: frozenset[str]) -> Mapping[str, Any]:
    members = parse_json_object(decode_segment(segment))
    if not (REFUSED_MEMBERS - permitted).isdisjoint(members):
        raise TokenRefusedError("header members")
    values = members.get("alg"), members.get("kid", ""), members.get("typ", "")
    if not all(isinstance(value, str) for value in values):
        raise TokenRefusedError("header values")
    if len(members.get("kid", "")) > MAXIMUM_KID_CHARACTERS:
        raise TokenRefusedError("unknown key")
    return MappingProxyType(members)


@lru_cache(maxsize=256)
def _read_usual_header(segment: bytes) -> Mapping[str, Any]:
    # Cached: all tokens of a key have the same header. Refused headers are not cached.
    return _read_header(segment, frozenset())


class ForeignKey:
    """A public key of another party.

    Args:
        jwk: the key, which may have further members, such as ``kid`` and ``x5c``.

    Attributes:
        kid: its id; empty if it has none.
        certificate: the first certificate of its ``x5c``, in DER; empty if it has none.
        thumbprint: its RFC 7638 thumbprint.
        algorithms: the algorithms of its signatures.

    Raises:
        KeysError: it is not a public key for signatures, contradicts its ``alg``, ``use`` or
            ``key_ops``, or is too weak or too large (RFC 8725, 3.1 and 3.4).
    """

    __slots__ = ("_key", "_verifiers", "algorithms", "certificate", "kid", "thumbprint")

    def __init__(self, jwk: object) -> None:
        if not isinstance(jwk, Mapping):
            raise KeysError("a key must be a JSON object")
        members = _public_members(jwk)
        self.algorithms = _algorithms_of(jwk, members)
        self.kid = _kid_of(jwk)
        self._key = load_public_key(members, _READ_BY[members["kty"], members.get("crv")])
        self.certificate = _certificate_of(jwk, self._key)
        _require_bounded(self._key)
        if isinstance(self._key, EllipticCurvePublicKey):
            require_canonical_point(self._key, members)
        elif isinstance(self._key, RSAPublicKey):
            # Numbers with leading zeros would be another thumbprint of the same key.
            members = public_jwk(self._key)
        self.thumbprint = compute_thumbprint(members)
        self._verifiers: dict[str, Verifier] = {}

    def verifier(self, alg: str) -> Verifier:
        """Return a function of signature and input that raises TokenRefusedError on a mismatch.

        ``signature_checked`` of the error is true if the refusal took a whole verification.

        Raises:
            KeysError: the key does not fit ``alg``.
        """
        if alg not in self.algorithms:
            raise KeysError(f"the key does not fit {alg}")
        found = self._verifiers.get(alg)
        if found is None:
            found = self._verifiers[alg] = make_bounded_verifier(self._key, FOREIGN_ALGORITHMS[alg])
        return found


class ForeignKeys:
    """The public keys of another party.

    Keys of different algorithms may share an id (RFC 7517, 4.5).

    Args:
        keys: the keys.
    """

    def __init__(self, keys: list[ForeignKey]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def algorithms(self) -> frozenset[str]:
        """The algorithms of their signatures."""
        return frozenset().union(*(key.algorithms for key in self._keys))

    def find(self, kid: str | None, alg: str) -> Verifier | None:
        """Return the verifier of the one key that a token's header identifies.

        A key without an id has its thumbprint as id. If no key has the id, a single key without
        one is used. A token without ``kid`` is accepted only if a single key fits its algorithm
        (OpenID Connect Core, 10.1). A key that is listed several times is one key.

        Args:
            kid: the ``kid`` of the token; None if absent.
            alg: the ``alg`` of the token.

        Returns:
            None if no key or more than one fits; of several with the id, none is tried by chance.
        """
        fitting = [key for key in self._keys if alg in key.algorithms]
        if kid is not None:
            named = [key for key in fitting if kid == (key.kid or key.thumbprint)]
            fitting = named or [key for key in fitting if not key.kid]
        if len(fitting) != 1 and len({key.thumbprint for key in fitting}) != 1:
            return None
        return fitting[0].verifier(alg)

    def holds_certificate(self, der: bytes, key_thumbprint: str) -> bool:
        """Return whether a certificate belongs to one of the keys (RFC 8705, 2.2.2).

        A key with an ``x5c`` has that certificate alone; any other one has each of its key.

        Args:
            der: the certificate.
            key_thumbprint: the RFC 7638 thumbprint of its key.
        """
        return any(
            key.certificate == der if key.certificate else key.thumbprint == key_thumbprint
            for key in self._keys
        )


def parse_key_set(document: object, *, maximum_keys: int = MAXIMUM_KEYS) -> ForeignKeys:
    """Return the keys of a JWK set (RFC 7517, 5) for signatures, each of which must be usable.

    Keys whose ``use`` is ``enc`` are for encryption and left out.

    Raises:
        KeysError: it is not a JWK set, holds no key, more than ``maximum_keys``, an id or a key
            twice for one algorithm, or a key that :class:`ForeignKey` refuses.
    """
    listed = _listed(document, maximum_keys)
    keys = [ForeignKey(jwk) for jwk in listed if not is_for_encryption(jwk)]
    if not listed:
        raise KeysError("the JWK set holds no key")
    for one, other in combinations(keys, 2):
        have_one_id = (one.kid or one.thumbprint) == (other.kid or other.thumbprint)
        is_ambiguous = have_one_id or one.thumbprint == other.thumbprint
        if is_ambiguous and one.algorithms & other.algorithms:
            raise KeysError("the JWK set holds a key or an id twice for one algorithm")
    return ForeignKeys(keys)


def parse_published_key_set(document: bytes, *, maximum_keys: int = MAXIMUM_KEYS) -> ForeignKeys:
    """Return the usable keys of a JWK set that another party publishes.

    Keys for encryption, of unknown types and of refused strength are ignored (RFC 7517, 5), and so
    is a key whose private part is published. Keys that share their id verify only by algorithms
    that a single one of them has.

    Raises:
        KeysError: it is not a JWK set, or holds more than ``maximum_keys``.
    """
    try:
        parsed = parse_json_object(document)
    except TokenRefusedError:
        raise KeysError("the JWK set is not a JSON object") from None
    keys: list[ForeignKey] = []
    for jwk in _listed(parsed, maximum_keys):
        with suppress(KeysError):
            keys.append(ForeignKey(jwk))
    return ForeignKeys(keys)


def _listed(document: object, maximum_keys: int) -> list[object]:
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list):
        raise KeysError('a JWK set is an object with a list "keys"')
    if len(keys) > maximum_keys:
        raise KeysError(f"the JWK set holds more than {maximum_keys} keys")
    return keys


def _public_members(jwk: Mapping[str, object]) -> dict[str, str]:
    kty = jwk.get("kty")
    if not _PRIVATE_MEMBERS.isdisjoint(jwk):
        raise KeysError("a private or symmetric key is not a public key")
    names = PUBLIC_MEMBERS.get(kty) if isinstance(kty, str) else None
    if names is None:
        raise KeysError("a key has an unsupported type")
    members: dict[str, str] = {}
    for name in names:
        value = jwk.get(name)
        if not isinstance(value, str):
            raise KeysError(f"the member {name!r} of a key is not a string")
        if name not in {"kty", "crv"}:
            _require_segment(value)
        members[name] = value
    if (members["kty"], members.get("crv")) not in _READ_BY:
        raise KeysError("a key has an unsupported type or curve")
    return members


def _require_segment(value: str) -> None:
    if len(value) > _MAXIMUM_MEMBER_CHARACTERS:
        raise KeysError(f"an RSA key has more than {MAXIMUM_RSA_BITS} bits")
    try:
        decode_segment(value.encode("ascii"))
    except (UnicodeEncodeError, TokenRefusedError):
        raise KeysError("a key has a member that is not base64url") from None


def _algorithms_of(jwk: Mapping[str, object], members: Mapping[str, str]) -> frozenset[str]:
    """Return the algorithms of the key's type that its own members permit."""
    if jwk.get("use", KEY_USE) != KEY_USE:
        raise KeysError("a key is not for signatures: its use is not sig")
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise KeysError("a key is not for verifying: its key_ops do not list verify")
    # RFC 7517, 4.3, 4.8 and 4.9; a registered key is stored, and sent back, with these members.
    texts = [*operations, jwk.get("x5t", ""), jwk.get("x5t#S256", "")]
    if not all(isinstance(each, str) for each in texts):
        raise KeysError("a key has a member in key_ops, x5t or x5t#S256 that is not a string")
    of_type = frozenset(
        name
        for name, algorithm in FOREIGN_ALGORITHMS.items()
        if algorithm.kty == members["kty"] and algorithm.crv == members.get("crv")
    )
    alg = jwk.get("alg")
    if alg is None:
        return of_type
    if not isinstance(alg, str) or alg not in of_type:
        raise KeysError("the alg of a key does not fit the key")
    return _EDWARDS_NAMES if alg in _EDWARDS_NAMES else frozenset({alg})


def _certificate_of(jwk: Mapping[str, object], key: PublicKey) -> bytes:
    """Return the first certificate of ``x5c``, in DER; empty if there is none."""
    if jwk.get("x5c") is None:
        return b""
    # Few keys have one, and the library takes long to import.
    from keys.jose.key_certificates import read_key_certificate  # noqa: PLC0415

    return read_key_certificate(jwk, key)


def _kid_of(jwk: Mapping[str, object]) -> str:
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAXIMUM_KID_CHARACTERS:
        raise KeysError(f"a kid is a string of at most {MAXIMUM_KID_CHARACTERS} characters")
    return kid


def _require_bounded(key: PublicKey) -> None:
    if not isinstance(key, RSAPublicKey):
        return
    numbers = key.public_numbers()
    if key.key_size > MAXIMUM_RSA_BITS:
        raise KeysError(f"an RSA key has more than {MAXIMUM_RSA_BITS} bits")
    if numbers.e.bit_length() > MAXIMUM_EXPONENT_BITS or numbers.n % 2 == 0:
        raise KeysError("an RSA key has an exponent that is too large, or an even modulus")


def make_bounded_verifier(key: PublicKey, algorithm: Algorithm) -> Verifier:
    """Return a verifier that refuses impossible signatures as not checked.

    The library refuses them early, so that the time of the refusal would reveal the key.

    Args:
        key: a public key.
        algorithm: one that it fits.
    """
    size = signature_size(key, algorithm)
    verify = make_verifier(key, algorithm)
    modulus = key.public_numbers().n.to_bytes(size) if isinstance(key, RSAPublicKey) else None
    is_edwards = algorithm.kty == "OKP"

    def verifier(signature: bytes, data: bytes) -> None:
        if len(signature) != size:
            raise TokenRefusedError("signature of the wrong size")
        if (modulus is not None and signature >= modulus) or (
            is_edwards and int.from_bytes(signature[32:], "little") >= _EDWARDS_ORDER
        ):
            raise TokenRefusedError("signature out of range")
        verify(signature, data)

    return verifier
