"""The rings as a process holds them in memory: read once per change, then only looked up."""

import logging
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from keys.errors import KeysError, TokenRefusedError
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import encode_header
from keys.jose.jwk import jwks_document, load_public_key, thumbprint
from keys.jose.signatures import Verifier, make_verifier, meaningless_signature, signature_size
from keys.lifecycle.rules import public_keys, signing_candidates
from keys.signing_key import KeyState, RingSnapshot, SigningKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class KnownKey:
    """A published key, ready to verify and to head a token.

    Attributes:
        ring: Name of its ring.
        kid: Its thumbprint.
        alg: Its algorithm.
        ref: What its backend calls it.
        signature_bytes: The exact size of its signatures.
    """

    ring: str
    kid: str
    alg: str
    ref: str
    signature_bytes: int
    _verify: Verifier
    _headers: dict[str, bytes] = field(default_factory=dict, repr=False)

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise TokenRefusedError unless this key made ``signature`` over ``data``."""
        if len(signature) != self.signature_bytes:
            raise TokenRefusedError("signature of the wrong size")
        self._verify(signature, data)

    def header(self, typ: str) -> bytes:
        """Return the first segment of a token of type ``typ`` and its dot.

        Kept per type: ``typ`` comes from this server's code, never from a request.
        """
        encoded = self._headers.get(typ)
        if encoded is None:
            encoded = self._headers[typ] = encode_header(self.alg, self.kid, typ)
        return encoded


class VerifiedToken(NamedTuple):
    """A token whose signature one of our keys made: ``header`` holds alg, kid and typ.

    ``remembered``: the signature was verified at an earlier sight of the token.
    """

    kid: str
    ring: str
    header: Mapping[str, str]
    payload: bytes
    remembered: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class KnownRing:
    """A ring with its readable keys.

    Attributes:
        snapshot: As the store gave it.
        keys: The public ones, lowest version first.
        candidates: What may sign and from when, highest version first.
    """

    snapshot: RingSnapshot
    keys: tuple[KnownKey, ...]
    candidates: tuple[tuple[datetime, KnownKey], ...]

    def find_active(self, now: datetime) -> KnownKey | None:
        """Return what ``keys.lifecycle.rules.find_active_key`` names, without sorting again."""
        for activate_at, key in self.candidates:
            if activate_at <= now:
                return key
        return None


@dataclass(frozen=True, slots=True, eq=False)
class KnownKeys:
    """Everything a process knows of all rings at one moment; replaced as a whole, never changed.

    Attributes:
        rings: By name.
        by_kid: Every key whose signatures count.
        jwks: The JWKS.
        etag: Its strong entity tag, with quotes.
        loaded_at: When the reading began; None before the first.
    """

    rings: Mapping[str, KnownRing]
    by_kid: Mapping[str, KnownKey]
    jwks: bytes
    etag: str
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class Decoy:
    """A verification whose outcome is known and that costs what a true one costs."""

    key: KnownKey
    signature: bytes
    signing_input: bytes = bytes(600)

    def spend(self) -> None:
        """Verify in vain."""
        with suppress(TokenRefusedError):
            self.key.verify(self.signature, self.signing_input)


def make_decoy(key: KnownKey) -> Decoy:
    """Return a decoy that costs as much as verifying with ``key``."""
    return Decoy(key, meaningless_signature(key.signature_bytes))


def read_ring(snapshot: RingSnapshot) -> KnownRing:
    """Make a ring's keys ready; one that cannot be trusted is left out and logged."""
    readable = {
        key.version: known
        for key in public_keys(snapshot.keys)
        if (known := _find_readable(key, snapshot.alg)) is not None
    }
    candidates = tuple(
        (key.activate_at, readable[key.version])
        for key in signing_candidates(snapshot.keys)
        if key.activate_at is not None and key.version in readable
    )
    return KnownRing(snapshot=snapshot, keys=tuple(readable.values()), candidates=candidates)


def index_rings(rings: Iterable[KnownRing], loaded_at: datetime | None) -> KnownKeys:
    """Return the index of ``rings`` with their JWKS, in the order of names and versions."""
    by_name = {ring.snapshot.name: ring for ring in sorted(rings, key=lambda r: r.snapshot.name)}
    by_kid = {key.kid: key for ring in by_name.values() for key in ring.keys}
    jwks = jwks_document(
        key
        for ring in by_name.values()
        for key in public_keys(ring.snapshot.keys)
        if key.kid in by_kid
    )
    digest = urlsafe_b64encode(sha256(jwks).digest()).rstrip(b"=").decode()
    return KnownKeys(by_name, by_kid, jwks, f'"{digest}"', loaded_at)


def kids_in(known: KnownKeys, states: frozenset[KeyState]) -> frozenset[str]:
    """Return the ids of the keys in these states."""
    rings = known.rings.values()
    return frozenset(key.kid for ring in rings for key in ring.snapshot.keys if key.state in states)


def _find_readable(key: SigningKey, alg: str) -> KnownKey | None:
    try:
        return _read_key(key, alg)
    except KeysError as error:
        logger.error("key %s of ring %s is left out: %s", key.kid, key.ring, error)  # noqa: TRY400 - the cause is said
        return None


def _read_key(key: SigningKey, alg: str) -> KnownKey:
    if key.alg != alg:
        raise KeysError(f"it is of {key.alg} in a ring of {alg}")
    if thumbprint(key.public_jwk) != key.kid:
        raise KeysError("its kid is not its thumbprint")
    public = load_public_key(key.public_jwk, key.alg)
    algorithm = get_algorithm(key.alg)
    return KnownKey(
        ring=key.ring,
        kid=key.kid,
        alg=key.alg,
        ref=str(key.version),
        signature_bytes=signature_size(public, algorithm),
        _verify=make_verifier(public, algorithm),
    )
