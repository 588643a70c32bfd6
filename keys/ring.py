"""The key rings of a process: sign with the active key, verify with any known key, the JWKS."""

import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple
from weakref import WeakSet

from keys.backend import KeyBackend
from keys.compact import MAXIMUM_TOKEN_CHARACTERS, encode_segment, parse_compact
from keys.errors import (
    BackendBroken,
    BackendError,
    BackendUnavailable,
    LifetimeExceededError,
    NoActiveKeyError,
    StoreUnavailable,
    TokenRefusedError,
    TokenTooLargeError,
)
from keys.known_keys import (
    Decoy,
    KnownKey,
    KnownKeys,
    KnownRing,
    index_rings,
    make_decoy,
    read_ring,
)
from keys.signing_key import RingSnapshot
from keys.store import KeyStore

logger = logging.getLogger(__name__)

#: A node signs only from a snapshot younger than this: S of the design.
SNAPSHOT_LIFETIME = timedelta(seconds=120)
#: After a failed reading, a signature asks for the next one no sooner than this: R of the design.
RETRY_AFTER_SECONDS = 5
#: What a key signs to show that it is the published one. No token: that would have a dot.
PROOF_INPUT = b"authz-server proof of possession"


class SignedToken(NamedTuple):
    """A token in compact form and the key that signed it."""

    token: str
    kid: str


class VerifiedToken(NamedTuple):
    """A token whose signature one of our keys made: ``header`` holds alg, kid and typ."""

    kid: str
    ring: str
    header: Mapping[str, str]
    payload: bytes


class KeyRings:
    """All rings of one process; safe for threads and for fork.

    Args:
        store: Where the rings' public state is read.
        backends: The open backends by the URI that the rings name.
        clock: Returns the present, timezone-aware.
        default_ring: The ring preferred where several would do.
    """

    def __init__(
        self,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        clock: Callable[[], datetime],
        default_ring: str,
    ) -> None:
        self._store = store
        self._backends = dict(backends)
        self._clock = clock
        self._default_ring = default_ring
        self._known: KnownKeys = index_rings((), None)
        self._decoy: Decoy | None = None
        self._proven: frozenset[KnownKey] = frozenset()
        self._retry_at: datetime | None = None
        self._refreshing = Lock()
        _all_rings.add(self)

    # ------------------------------------------------------------------------------- reading

    def refresh(self) -> None:
        """Read the rings from the store; if that fails, log it and go on with what is known."""
        with self._refreshing:
            now = self._clock()
            try:
                known = self._read(now)
            except StoreUnavailable as error:
                logger.warning("the key rings could not be read: %s", error)
                self._retry_at = now + timedelta(seconds=RETRY_AFTER_SECONDS)
                return
            self._retry_at = None
            self._decoy = self._make_decoy(known)
            self._known = known
        self._prove_candidates(known)

    def _read(self, now: datetime) -> KnownKeys:
        held = self._known.rings
        rings = []
        for snapshot in self._store.load_rings(now):
            known = held.get(snapshot.name)
            if known is None or known.snapshot != snapshot:
                _require_newer(snapshot, known)
                known = read_ring(snapshot)
            rings.append(known)
        return index_rings(rings, now)

    def _make_decoy(self, known: KnownKeys) -> Decoy | None:
        preferred = known.rings.get(self._default_ring)
        keys = preferred.keys if preferred and preferred.keys else tuple(known.by_kid.values())
        return make_decoy(keys[0]) if keys else None

    def _fresh(self, now: datetime) -> KnownKeys:
        if not _is_fresh(self._known, now):
            if self._retry_at is None or now >= self._retry_at:
                self.refresh()
            if not _is_fresh(self._known, now):
                raise BackendUnavailable("the key rings were not read lately", RETRY_AFTER_SECONDS)
        return self._known

    # ------------------------------------------------------------------------------- signing

    def sign(self, ring: str, payload: bytes, *, typ: str, lifetime_seconds: int) -> SignedToken:
        """Sign ``payload`` with the active key of ``ring``; never makes a key.

        Args:
            ring: Name of the ring.
            payload: The claims as JSON.
            typ: The token's type for its header, for example ``at+jwt``.
            lifetime_seconds: ``exp`` less ``iat`` of the claims.

        Raises:
            NoActiveKeyError: No key of that ring may sign now.
            LifetimeExceededError: The token would live longer than the ring allows, or not at all.
            TokenTooLargeError: The token would be refused at its verification.
            BackendError: The backend failed, or signed with something else than the published key.
        """
        now = self._clock()
        known_ring = self._fresh(now).rings.get(ring)
        key = known_ring.find_active(now) if known_ring is not None else None
        if known_ring is None or key is None:
            raise NoActiveKeyError(f"the ring {ring!r} has no key that may sign now")
        limit = known_ring.snapshot.maximum_lifetime_seconds
        if not 0 < lifetime_seconds <= limit:
            raise LifetimeExceededError(
                f"a life of {lifetime_seconds} s is not within the {limit} s of the ring {ring!r}"
            )
        signing_input = key.header(typ) + encode_segment(payload)
        token = signing_input + b"." + encode_segment(self._sign(known_ring, key, signing_input))
        if len(token) > MAXIMUM_TOKEN_CHARACTERS:
            raise TokenTooLargeError(f"a token of {len(token)} characters would be refused")
        return SignedToken(token.decode(), key.kid)

    def _sign(self, ring: KnownRing, key: KnownKey, signing_input: bytes) -> bytes:
        backend = self._get_backend(ring)
        if not backend.caps.in_process:
            return _sign_and_check(backend, key, signing_input)
        if key not in self._proven:
            self._prove(backend, key)
        return backend.sign(key.ring, key.ref, key.alg, (signing_input,))[0]

    def _get_backend(self, ring: KnownRing) -> KeyBackend:
        try:
            return self._backends[ring.snapshot.backend_uri]
        except KeyError:
            raise BackendBroken(
                f"the ring {ring.snapshot.name!r} names a backend that is not open here"
            ) from None

    def _prove(self, backend: KeyBackend, key: KnownKey) -> None:
        # Once per key, which also loads it; checking each signature would treble its cost.
        _sign_and_check(backend, key, PROOF_INPUT)
        self._proven |= {key}

    def _prove_candidates(self, known: KnownKeys) -> None:
        self._proven &= frozenset(known.by_kid.values())
        for ring in known.rings.values():
            for _, key in ring.candidates:
                try:
                    backend = self._get_backend(ring)
                    if backend.caps.in_process and key not in self._proven:
                        self._prove(backend, key)
                except BackendError as error:
                    logger.error("key %s cannot sign: %s", key.kid, error)  # noqa: TRY400 - the cause is said

    # ----------------------------------------------------------------------------- verifying

    def verify(self, token: str) -> VerifiedToken:
        """Return the content of ``token`` if one of our keys signed it.

        The caller still has to check ``typ`` and every claim. Works from memory alone.

        Raises:
            TokenRefusedError: Anything at all is wrong with it (RFC 8725, 3).
        """
        parsed = parse_compact(token)
        key = self._known.by_kid.get(parsed.header["kid"])
        if key is None:
            raise TokenRefusedError("unknown key")
        if parsed.header["alg"] != key.alg:
            raise TokenRefusedError("another algorithm than the key's")
        key.verify(parsed.signature, parsed.signing_input)
        return VerifiedToken(key.kid, key.ring, parsed.header, parsed.payload)

    def spend_one_verification(self) -> None:
        """Cost what verifying a token of the default ring costs, to no effect."""
        if (decoy := self._decoy) is not None:
            decoy.spend()

    # ------------------------------------------------------------------------------- showing

    def jwks(self) -> bytes:
        """Return the JWKS (RFC 7517, 5) of all rings, the same bytes on every node at one epoch."""
        return self._known.jwks

    def jwks_etag(self) -> str:
        """Return the strong entity tag of the JWKS, with its quotes."""
        return self._known.etag

    def has_active_key(self, ring: str) -> bool:
        """Tell whether ``ring`` has a key that may sign now."""
        known = self._known.rings.get(ring)
        return known is not None and known.find_active(self._clock()) is not None

    def algorithms(self) -> tuple[str, ...]:
        """Return the names of the algorithms that ``verify`` accepts now, sorted."""
        return tuple(sorted({key.alg for key in self._known.by_kid.values()}))

    def snapshots(self) -> tuple[RingSnapshot, ...]:
        """Return every ring as last read, by name."""
        return tuple(ring.snapshot for ring in self._known.rings.values())

    def ring_names(self) -> tuple[str, ...]:
        """Return the names of all rings, sorted."""
        return tuple(self._known.rings)

    def ring_for_algorithm(self, alg: str) -> str | None:
        """Return the default ring if it is of ``alg``, else the first by name, else None."""
        rings = self._known.rings
        names = [name for name, ring in rings.items() if ring.snapshot.alg == alg]
        if self._default_ring in names:
            return self._default_ring
        return names[0] if names else None


def _is_fresh(known: KnownKeys, now: datetime) -> bool:
    return known.loaded_at is not None and now - known.loaded_at <= SNAPSHOT_LIFETIME


def _require_newer(snapshot: RingSnapshot, known: KnownRing | None) -> None:
    # A lagging read would bring back what has been revoked since.
    if known is not None and snapshot.epoch < known.snapshot.epoch:
        raise StoreUnavailable(
            f"the ring {snapshot.name!r} was read at epoch {snapshot.epoch}, "
            f"after epoch {known.snapshot.epoch} had been seen"
        )


def _sign_and_check(backend: KeyBackend, key: KnownKey, signing_input: bytes) -> bytes:
    signature = backend.sign(key.ring, key.ref, key.alg, (signing_input,))[0]
    try:
        key.verify(signature, signing_input)
    except TokenRefusedError:
        raise BackendBroken(
            f"a signature for {key.kid} does not belong to the published key"
        ) from None
    return signature


_all_rings: WeakSet[KeyRings] = WeakSet()


def _renew_locks() -> None:
    # A lock that another thread held at the fork would stay locked in the child for ever.
    for rings in list(_all_rings):
        rings._refreshing = Lock()  # noqa: SLF001 - the same module


os.register_at_fork(after_in_child=_renew_locks)
