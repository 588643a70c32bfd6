"""Key rings of a process: sign with the active key, verify with published keys, serve the JWKS."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from threading import Lock
from typing import NamedTuple

from keys.backend import KeyBackend, TracedSignature
from keys.errors import (
    BackendUnavailable,
    LifetimeExceededError,
    NoActiveKeyError,
    StoreUnavailable,
    TokenRefusedError,
    TokenTooLargeError,
    UnknownKeyError,
    VersionUnusable,
)
from keys.events import Notify, UnknownKidPresented, ignore
from keys.forks import on_fork
from keys.jose.compact import (
    MAXIMUM_TOKEN_CHARACTERS,
    encode_segment,
    parse_compact,
    parse_json_object,
)
from keys.key_set import (
    DummyVerification,
    KeySet,
    PublishedKey,
    RingKeys,
    VerifiedToken,
    find_dummy_verification,
    find_signer,
    index_rings,
    kids_in,
    read_rings,
)
from keys.lifecycle.judgement import Judgement, Standing, judge_ring
from keys.lifecycle.timing import Timing
from keys.node_clock import NodeClock
from keys.signer import CheckedSigner, OnProof
from keys.signing_key import KeyState, RingSnapshot
from keys.store import KeyStore
from keys.verified_tokens import VerifiedTokens, hash_token

logger = logging.getLogger(__name__)


class SignedToken(NamedTuple):
    """A token in compact form, the id of its key, and the remote backend's id of the request."""

    token: str
    kid: str
    request_id: str = ""


class KeyRings:
    """All rings of one process; thread-safe and fork-safe.

    Args:
        store: the store of the rings' public state.
        backends: the open backends by the URI that the rings name; empty if nothing is signed.
        clock: returns the present time, timezone-aware.
        default_ring: the preferred ring if several would do.
        timing: the installation's durations.
        notify: receives remote signatures, unknown key ids and the alarm ``clock.off``.
        on_proof: receives each backend request that signed no token, for the audit record.
    """

    def __init__(  # noqa: PLR0913 - its parts, by name
        self,
        store: KeyStore,
        backends: Mapping[str, KeyBackend],
        clock: Callable[[], datetime],
        default_ring: str,
        *,
        timing: Timing | None = None,
        notify: Notify = ignore,
        on_proof: OnProof = lambda _kid, _request_id: None,
    ) -> None:
        self._store = store
        self._backends = dict(backends)
        self._clock = clock
        self._default_ring = default_ring
        self._timing = timing or Timing()
        self._tolerance = timedelta(seconds=self._timing.clock_tolerance_seconds)
        self._snapshot_lifetime = timedelta(seconds=self._timing.snapshot_lifetime_seconds)
        self._notify = notify
        tolerance = self._timing.clock_tolerance_seconds
        self._node_clock = NodeClock(store, clock, tolerance, notify)
        self._signer = CheckedSigner(self._backends, notify, on_proof=on_proof)
        self._tainted: frozenset[str] = frozenset()
        self._ended: frozenset[str] = frozenset()
        self._ever_known: frozenset[str] = frozenset()
        self._key_set: KeySet = index_rings((), None)
        self._dummy: DummyVerification | None = None
        self._retry_at: datetime | None = None
        self._failure = ""
        self._refreshing = Lock()
        self._verified = VerifiedTokens()
        on_fork(self._after_fork)

    def _after_fork(self) -> None:
        self._refreshing = Lock()
        self._verified.after_fork()

    # ------------------------------------------------------------------------------- reading

    def load(self) -> None:
        """Load the rings from the store; no backend is called.

        Raises:
            StoreUnavailable: the rings cannot be read; the present ones are kept.
        """
        with self._refreshing:
            self._load()

    def refresh(self, *, if_due: bool = False) -> None:
        """Load the rings, keep the present ones if that fails, and prove the keys that sign.

        A failure is logged once for each reason. With ``if_due``, waiting calls share one result.
        """
        with self._refreshing:
            now = self._clock()
            if if_due and (self._is_fresh(now) or now < (self._retry_at or now)):
                return
            try:
                self._load()
            except StoreUnavailable as error:
                if str(error) != self._failure:
                    logger.warning("cannot load the key rings: %s", error)
                self._failure = str(error)
                pause = timedelta(seconds=self._timing.refresh_interval_seconds)
                self._retry_at = self._clock() + pause
                return
        self.prove_candidates()

    def _load(self) -> None:
        now, held = self._clock(), self._key_set.rings
        known = read_rings(self._store.load_rings(now), held, now)
        self._node_clock.measure()
        self._retry_at, self._failure = None, ""
        self._dummy = find_dummy_verification(known, self._default_ring)
        self._tainted = kids_in(known, frozenset({KeyState.TAINTED}))
        self._ended = kids_in(known, frozenset({KeyState.REMOVED, KeyState.REVOKED}))
        self._ever_known = kids_in(known, frozenset(KeyState))
        self._key_set = known

    def prove_candidates(self) -> None:
        """Check the keys that sign in this process; waits for their backends."""
        if self._backends:
            self._signer.prove_candidates(self._key_set)

    def _fresh(self, now: datetime) -> KeySet:
        retry_after = self._timing.refresh_interval_seconds
        if not self._is_fresh(now):
            self.refresh(if_due=True)
            if not self._is_fresh(now):
                raise BackendUnavailable("the key rings are outdated", retry_after)
        self.require_clock()
        return self._key_set

    def require_clock(self) -> None:
        """Raise BackendUnavailable while this machine's clock is off: its tokens would be, too."""
        problem = self._node_clock.find_problem()
        if problem:
            pause = self._timing.refresh_interval_seconds
            raise BackendUnavailable(f"{problem}: nothing is signed here", pause)

    def _is_fresh(self, now: datetime) -> bool:
        loaded_at = self._key_set.loaded_at
        # After a clock goes back, an old snapshot would look new.
        return (
            loaded_at is not None and -self._tolerance <= now - loaded_at <= self._snapshot_lifetime
        )

    # ------------------------------------------------------------------------------- signing

    def waits_to_sign(self, ring: str) -> bool:
        """Return whether :meth:`sign` for ``ring`` may wait.

        It waits for a remote backend, and checks a key at its first signature in this process.
        """
        now = self._clock()
        if not self._is_fresh(now):
            return True
        try:
            _, key = find_signer(self._key_set, ring, now, self._tolerance)
        except NoActiveKeyError:
            return False
        return not self._signer.is_proven(key)

    def sign(
        self,
        ring: str,
        payload: bytes,
        *,
        typ: str,
        lifetime_seconds: int,
        maximum_characters: int = MAXIMUM_TOKEN_CHARACTERS,
    ) -> SignedToken:
        """Sign ``payload`` with the active key of ``ring``; never creates a key.

        Args:
            ring: the name of the ring.
            payload: the claims as JSON.
            typ: the ``typ`` of the token's header, for example ``at+jwt``.
            lifetime_seconds: ``exp`` minus ``iat`` of the claims.
            maximum_characters: the largest token; :meth:`verify` accepts none above the default.

        Raises:
            NoActiveKeyError: no key of that ring may sign now.
            LifetimeExceededError: the lifetime is not positive or exceeds that of the ring.
            TokenTooLargeError: the token is larger.
            BackendError: the backend failed, or its signature does not match the published key.
        """
        now = self._clock()
        known_ring, key = find_signer(self._fresh(now), ring, now, self._tolerance)
        limit = known_ring.snapshot.maximum_lifetime_seconds
        if not 0 < lifetime_seconds <= limit:
            raise LifetimeExceededError(
                f"a lifetime of {lifetime_seconds} s is not within the {limit} s of ring {ring!r}"
            )
        segment = encode_segment(payload)
        try:
            return self._sign(known_ring, key, typ, segment, maximum_characters)
        except VersionUnusable:
            # Fenced or disabled since the last load: the store may have another active key.
            self.refresh()
            successor_ring, successor = find_signer(self._key_set, ring, now, self._tolerance)
            if successor.kid == key.kid:
                raise
            return self._sign(successor_ring, successor, typ, segment, maximum_characters)

    def _sign(
        self, ring: RingKeys, key: PublishedKey, typ: str, payload: bytes, maximum_characters: int
    ) -> SignedToken:
        signing_input = key.header(typ) + payload
        signature = self._signer.sign(ring, key, signing_input)
        token = signing_input + b"." + encode_segment(signature)
        if len(token) > maximum_characters:
            raise TokenTooLargeError(f"a token of {len(token)} characters would be refused")
        request_id = signature.request_id if isinstance(signature, TracedSignature) else ""
        return SignedToken(token.decode(), key.kid, request_id)

    # ----------------------------------------------------------------------------- verifying

    def verify(self, token: str) -> VerifiedToken:
        """Verify the signature of ``token`` and return its content.

        Uses only memory. The caller must check ``typ`` and every claim.

        Raises:
            TokenRefusedError: the token is invalid (RFC 8725, 3).
        """
        digest = hash_token(token)
        found = self._verified.find(digest)
        if found is not None and self._key_set.by_kid.get(found[0].kid) is found[0]:
            return found[1]
        parsed = parse_compact(token)
        key = self._key_set.by_kid.get(parsed.header["kid"])
        if key is None:
            if parsed.header["kid"] not in self._ever_known:
                self._notify(UnknownKidPresented())
            raise UnknownKeyError(parsed.header["kid"], parsed.payload)
        if parsed.header["alg"] != key.alg:
            raise TokenRefusedError("another algorithm than the key's")
        key.verify(parsed.signature, parsed.signing_input)
        parse_json_object(parsed.payload)
        verified = VerifiedToken(key.kid, key.ring, parsed.header, parsed.payload)
        self._verified.keep(digest, key, verified)
        return verified

    def accepts(self, kid: str) -> bool:
        """Return whether the signatures of a key are accepted."""
        return kid in self._key_set.by_kid

    def spend_one_verification(self) -> None:
        """Spend the time of verifying a token of the default ring, for equal timing."""
        if (dummy := self._dummy) is not None:
            dummy.spend()

    # ------------------------------------------------------------------------------- showing

    def jwks(self) -> bytes:
        """Return the JWKS (RFC 7517, 5) of all rings, identical on every node at one epoch."""
        return self._key_set.jwks

    def jwks_etag(self) -> str:
        """Return the strong entity tag of the JWKS, with its quotes."""
        return self._key_set.etag

    def jwks_maximum_age_seconds(self) -> int:
        """Return how long verifiers may cache the JWKS; reduced for a while after an emergency."""
        now = self._clock()
        for ring in self._key_set.rings.values():
            until = ring.snapshot.cautious_until
            if until is not None and now < until:
                return self._timing.cautious_jwks_maximum_age_seconds
        return self._timing.jwks_maximum_age_seconds

    def has_ended(self, kid: str) -> bool:
        """Return whether the key is revoked or removed: no token that it signed is accepted."""
        return kid in self._ended

    def is_tainted(self, kid: str) -> bool:
        """Return whether the key is tainted."""
        return kid in self._tainted

    def epochs(self) -> dict[str, int]:
        """Return the epoch of each loaded ring, by name."""
        return {name: ring.snapshot.epoch for name, ring in self._key_set.rings.items()}

    @property
    def clock_offset_seconds(self) -> float:
        """The store's clock minus this machine's, as last measured."""
        return self._node_clock.offset_seconds

    @property
    def clock_correction_seconds(self) -> float:
        """Seconds to add to this machine's clock to check expiry; see ``NodeClock``."""
        return self._node_clock.correction_seconds

    @property
    def is_clock_off(self) -> bool:
        """Whether this machine's clock is off by more than the tolerance."""
        return bool(self._node_clock.find_problem())

    def why_not_ready(self, ring: str, now: datetime | None = None) -> str:
        """Return why this process cannot sign for ``ring`` now; empty if it can.

        Cheap enough for each request of a monitor: nothing is loaded from the store, and the key
        signs a fixed text at most once a second. The reason begins with ``clock:`` or ``keys:``.

        Args:
            ring: the name of the ring.
            now: the present time; None: by the clock.
        """
        now = now or self._clock()
        problem = self._node_clock.find_problem()
        if problem:
            return f"clock: {problem}"
        loaded_at = self._key_set.loaded_at
        if loaded_at is None:
            return "keys: the key rings have not been read yet"
        if not self._is_fresh(now):
            return f"keys: the key rings were last read at {loaded_at:%Y-%m-%dT%H:%M:%SZ}"
        try:
            found, key = find_signer(self._key_set, ring, now, self._tolerance)
        except NoActiveKeyError as error:
            return f"keys: {error}"
        problem = self._signer.find_problem(found, key)
        return f"keys: {problem}" if problem else ""

    def find_failures(self, besides: str) -> list[str]:
        """Return why other rings than ``besides`` cannot sign, as far as this process has failed.

        Each entry begins with ``keys:RING``. Only keys that failed last are tried again, a few at a
        time.
        """
        known, now = self._key_set, self._clock()
        signers = []
        for name in known.rings.keys() - {besides}:
            with suppress(NoActiveKeyError):
                signing, key = find_signer(known, name, now, self._tolerance)
                # A ring that has moved is reported under the name of its successor.
                signers += [(signing, key)] if key.ring == name else []
        found = self._signer.find_failures(signers)
        return sorted(f"keys:{name} {problem}" for name, problem in found.items())

    def has_active_key(self, ring: str) -> bool:
        """Return whether ``ring``, or the ring that succeeds it, has an active key."""
        try:
            find_signer(self._key_set, ring, self._clock(), self._tolerance)
        except NoActiveKeyError:
            return False
        return True

    def judge(self, ring: str) -> Judgement:
        """Return the judgement of ``ring``, as last loaded."""
        found = self._key_set.rings.get(ring)
        if found is None:
            return Judgement(Standing.EMPTY, "it has not been loaded yet or has no keys")
        return judge_ring(found.snapshot, self.snapshots(), self._clock())

    def algorithms(self) -> tuple[str, ...]:
        """Return the names of the algorithms that ``verify`` accepts, sorted."""
        return tuple(sorted({key.alg for key in self._key_set.by_kid.values()}))

    def snapshots(self) -> tuple[RingSnapshot, ...]:
        """Return every loaded ring, by name."""
        return tuple(ring.snapshot for ring in self._key_set.rings.values())

    def ring_names(self) -> tuple[str, ...]:
        """Return the names of all rings, sorted."""
        return tuple(self._key_set.rings)
