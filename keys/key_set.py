"""The key set of a process: rings and keys in memory, rebuilt at each change."""

import logging
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from keys.errors import KeysError, NoActiveKeyError, StoreUnavailable, TokenRefusedError
from keys.jose.algorithms import get_algorithm
from keys.jose.compact import encode_header
from keys.jose.jwk import jwks_document, load_public_key, thumbprint
from keys.jose.signatures import Verifier, make_verifier, meaningless_signature, signature_size
from keys.lifecycle.rules import (
    MAXIMUM_SUCCESSIONS,
    find_beginning,
    public_keys,
    signing_candidates,
)
from keys.signing_key import KeyState, RingSnapshot, SigningKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PublishedKey:
    """A published key, ready to verify and to encode token headers.

    Attributes:
        ring: the name of its ring.
        kid: its thumbprint.
        alg: its algorithm.
        ref: its version at the backend.
        signature_bytes: the exact size of its signatures.
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
        """Return the first segment of a token of type ``typ``, with its dot.

        Cached per type: ``typ`` comes from this server's code, never from a request.
        """
        encoded = self._headers.get(typ)
        if encoded is None:
            encoded = self._headers[typ] = encode_header(self.alg, self.kid, typ)
        return encoded


class VerifiedToken(NamedTuple):
    """A token with a valid signature; ``header`` holds alg, kid and typ.

    ``remembered`` is true if the signature was verified earlier and cached.
    """

    kid: str
    ring: str
    header: Mapping[str, str]
    payload: bytes
    remembered: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class RingKeys:
    """A ring with its readable keys.

    Attributes:
        snapshot: the ring as loaded from the store.
        keys: the public keys, lowest version first.
        candidates: the keys that may sign with the time of activation, highest version first.
        begins_at: when the first key begins to sign, or did.
    """

    snapshot: RingSnapshot
    keys: tuple[PublishedKey, ...]
    candidates: tuple[tuple[datetime, PublishedKey], ...]
    begins_at: datetime | None

    def has_begun(self, now: datetime) -> bool:
        """Return whether a key of the ring signs, or has signed."""
        return self.begins_at is not None and self.begins_at <= now

    def find_active(self, now: datetime) -> PublishedKey | None:
        """Return the active key, as ``keys.lifecycle.rules.find_active_key`` without sorting."""
        for activate_at, key in self.candidates:
            if activate_at <= now:
                return key
        return None


@dataclass(frozen=True, slots=True, eq=False)
class KeySet:
    """An immutable set of all rings and keys at one moment.

    Attributes:
        rings: the rings by name.
        by_kid: every key whose signatures are valid.
        jwks: the JWKS.
        etag: its strong entity tag, with quotes.
        loaded_at: the time at which loading began; None before the first load.
    """

    rings: Mapping[str, RingKeys]
    by_kid: Mapping[str, PublishedKey]
    jwks: bytes
    etag: str
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True, eq=False)
class DummyVerification:
    """A dummy verification with the cost of a real one."""

    key: PublishedKey
    signature: bytes
    signing_input: bytes = bytes(600)

    def spend(self) -> None:
        """Verify without effect."""
        with suppress(TokenRefusedError):
            self.key.verify(self.signature, self.signing_input)


def make_dummy_verification(key: PublishedKey) -> DummyVerification:
    """Return a dummy verification with the cost of verifying with ``key``."""
    return DummyVerification(key, meaningless_signature(key.signature_bytes))


def read_ring(snapshot: RingSnapshot) -> RingKeys:
    """Prepare a ring's keys; a key that cannot be trusted is logged and skipped."""
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
    return RingKeys(
        snapshot=snapshot,
        keys=tuple(readable.values()),
        candidates=candidates,
        begins_at=find_beginning(snapshot.keys),
    )


def find_dummy_verification(known: KeySet, ring: str) -> DummyVerification | None:
    """Return a dummy for a key of ``ring``, else of another ring; None if there is no key."""
    preferred = known.rings.get(ring)
    keys = preferred.keys if preferred and preferred.keys else tuple(known.by_kid.values())
    return make_dummy_verification(keys[0]) if keys else None


def read_rings(
    snapshots: Iterable[RingSnapshot], held: Mapping[str, RingKeys], loaded_at: datetime
) -> KeySet:
    """Return the key set of ``snapshots``; rings that are ``held`` unchanged are not read again.

    Raises:
        StoreUnavailable: a ring was read before its held state: an outdated read would restore a
            key that has been revoked since.
    """
    rings = []
    for snapshot in snapshots:
        known = held.get(snapshot.name)
        if known is None or known.snapshot != snapshot:
            if known is not None and snapshot.epoch < known.snapshot.epoch:
                raise StoreUnavailable(
                    f"the ring {snapshot.name!r} was read at epoch {snapshot.epoch}, "
                    f"after epoch {known.snapshot.epoch} had been seen; restart the server if the "
                    "database was restored"
                )
            known = read_ring(snapshot)
        rings.append(known)
    return index_rings(rings, loaded_at)


def index_rings(rings: Iterable[RingKeys], loaded_at: datetime | None) -> KeySet:
    """Return the key set of ``rings`` with their JWKS, in the order of names and versions."""
    by_name = {ring.snapshot.name: ring for ring in sorted(rings, key=lambda r: r.snapshot.name)}
    by_kid = {key.kid: key for ring in by_name.values() for key in ring.keys}
    jwks = jwks_document(
        key
        for ring in by_name.values()
        for key in public_keys(ring.snapshot.keys)
        if key.kid in by_kid
    )
    digest = urlsafe_b64encode(sha256(jwks).digest()).rstrip(b"=").decode()
    return KeySet(by_name, by_kid, jwks, f'"{digest}"', loaded_at)


def find_signer(
    known: KeySet, ring: str, now: datetime, tolerance: timedelta
) -> tuple[RingKeys, PublishedKey]:
    """Return the ring that signs for ``ring`` now, with its active key.

    The succession is that of ``keys.lifecycle.rules.succeeded_since``.

    Raises:
        NoActiveKeyError: no key may sign now.
    """
    found = last = known.rings.get(ring)
    for _ in range(MAXIMUM_SUCCESSIONS):
        if last is None or not last.snapshot.is_move_due(now):
            break
        last = known.rings.get(last.snapshot.successor or "")
        if last is None or last.has_begun(now + tolerance):
            found = last
    # The node that activated a key may have a clock that is ahead of this one.
    if found and (key := found.find_active(now) or found.find_active(now + tolerance)):
        return found, key
    raise NoActiveKeyError(f"the ring {ring!r} has no key that may sign now")


def kids_in(known: KeySet, states: frozenset[KeyState]) -> frozenset[str]:
    """Return the ids of the keys in these states."""
    rings = known.rings.values()
    return frozenset(key.kid for ring in rings for key in ring.snapshot.keys if key.state in states)


def _find_readable(key: SigningKey, alg: str) -> PublishedKey | None:
    try:
        return _read_key(key, alg)
    except KeysError as error:
        logger.error("skipping key %s of ring %s: %s", key.kid, key.ring, error)  # noqa: TRY400 - the message has it
        return None


def _read_key(key: SigningKey, alg: str) -> PublishedKey:
    if key.alg != alg:
        raise KeysError(f"its algorithm is {key.alg} in a ring of {alg}")
    if thumbprint(key.public_jwk) != key.kid:
        raise KeysError("its kid is not its thumbprint")
    public = load_public_key(key.public_jwk, key.alg)
    algorithm = get_algorithm(key.alg)
    return PublishedKey(
        ring=key.ring,
        kid=key.kid,
        alg=key.alg,
        ref=str(key.version),
        signature_bytes=signature_size(public, algorithm),
        _verify=make_verifier(public, algorithm),
    )
