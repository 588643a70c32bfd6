"""Sign at the rings' backends, and release only signatures that the published key verifies.

A private key that a backend once read wrongly would stay in its memory, and none of its signatures
would verify. After a mismatch, the backend therefore drops the key and reads it again.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from keys.backend import KeyBackend, TracedSignature
from keys.errors import (
    BackendBroken,
    BackendDenied,
    BackendError,
    BackendUnavailable,
    TokenRefusedError,
    VersionUnusable,
)
from keys.events import BackendAnswered, Notify, SignatureDiscarded, Signed
from keys.jose.jwk import thumbprint
from keys.key_set import KeySet, PublishedKey, RingKeys

logger = logging.getLogger(__name__)

#: The text that a key signs as proof of possession. Without a dot it cannot be a token.
PROOF_INPUT = b"authz-server proof of possession"
#: Shortest interval between two reloads of a key that does not match.
FORGET_INTERVAL_SECONDS = 1.0
#: How long the result of a signature or of a backend check is used.
PROOF_INTERVAL_SECONDS = 1.0
#: How many keys that failed are tried again at once.
TRIED_AT_ONCE = 16
#: Interval of test signatures at a backend that logs each one; in between its state is checked.
LOGGED_PROOF_INTERVAL_SECONDS = 60.0
_RESULTS: Mapping[type[BackendError], str] = {
    BackendUnavailable: "unavailable",
    BackendDenied: "denied",
    VersionUnusable: "unusable",
}

#: Receives the key's id and the backend's id of a request that signed no token.
OnProof = Callable[[str, str], None]


class _Outcome(NamedTuple):
    """The result of a key's last checked signature or backend check.

    ``signed_at`` is the time of the last successful signature and ``at`` that of the last check,
    in monotonic seconds. ``problem`` is empty on success.
    """

    at: float
    problem: str
    signed_at: float
    is_logged: bool


class CheckedSigner:
    """Signs with the keys of all rings; thread-safe.

    Args:
        backends: the open backends by URI; not copied.
        notify: receives remote signatures and mismatches.
        on_proof: receives each test signature that the backend logs.
        monotonic: returns monotonic seconds.
    """

    def __init__(
        self,
        backends: Mapping[str, KeyBackend],
        notify: Notify,
        *,
        on_proof: OnProof = lambda _kid, _request_id: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = backends
        self._notify = notify
        self._on_proof = on_proof
        self._monotonic = monotonic
        self._proven: frozenset[PublishedKey] = frozenset()
        self._outcomes: dict[str, _Outcome] = {}
        self._forgotten_at: dict[str, float] = {}
        self._logged: dict[str, set[str]] = {}

    # ------------------------------------------------------------------------------- signing

    def sign(self, ring: RingKeys, key: PublishedKey, signing_input: bytes) -> bytes:
        """Return the signature of ``key``, a key of ``ring``.

        Raises:
            BackendError: the backend failed, or its signature does not match the published key.
        """
        backend = self._get_backend(ring)
        if not backend.caps.in_process:
            return self._sign_remotely(ring, backend, key, signing_input)
        if key not in self._proven:
            self._prove(backend, key)
        return backend.sign(key.ring, key.ref, key.alg, (signing_input,))[0]

    def is_proven(self, key: PublishedKey) -> bool:
        """Return whether ``key`` signs in this process and matches the published key."""
        return key in self._proven

    def prove_candidates(self, known: KeySet) -> None:
        """Load and check the private keys of this process before their first use."""
        self._proven &= frozenset(known.by_kid.values())
        for kid in (self._outcomes.keys() | self._logged.keys()) - known.by_kid.keys():
            self._outcomes.pop(kid, None)
            self._logged.pop(kid, None)
        for ring in known.rings.values():
            for _, key in ring.candidates:
                try:
                    backend = self._get_backend(ring)
                    if backend.caps.in_process and key not in self._proven:
                        self._prove(backend, key)
                except BackendError as error:
                    self._log_failure(key, str(error))

    def _log_failure(self, key: PublishedKey, reason: str) -> None:
        """Log why a key cannot sign, once for each reason until it has signed."""
        logged = self._logged.setdefault(key.kid, set())
        if reason not in logged:
            logged.add(reason)
            logger.error("key %s cannot sign: %s", key.kid, reason)

    def _get_backend(self, ring: RingKeys) -> KeyBackend:
        try:
            return self._backends[ring.snapshot.backend_uri]
        except KeyError:
            raise BackendBroken(f"the backend of ring {ring.snapshot.name!r} is not open") from None

    def _sign_remotely(
        self, ring: RingKeys, backend: KeyBackend, key: PublishedKey, signing_input: bytes
    ) -> bytes:
        started, result, last = time.perf_counter(), "broken", self._outcomes.get(key.kid)
        try:
            signature = self._sign_and_check(backend, key, signing_input)
            result = "ok"
        except BackendError as error:
            result = _RESULTS.get(type(error), "broken")
            raise
        finally:
            self._notify(Signed(backend.scheme, key.alg, result, time.perf_counter() - started))
        if last is not None and last.problem:
            # Otherwise the backend counts as down until the next view of the ring.
            self._notify(BackendAnswered(ring.snapshot.backend_uri))
        return signature

    def _prove(self, backend: KeyBackend, key: PublishedKey) -> None:
        # Once per key, which also loads it; checking each signature would triple its cost.
        self._sign_and_check(backend, key, PROOF_INPUT)
        self._proven |= {key}
        self._logged.pop(key.kid, None)

    def _sign_and_check(self, backend: KeyBackend, key: PublishedKey, data: bytes) -> bytes:
        try:
            signature = self._sign_verified(backend, key, data)
        except BackendError as error:
            self._store_outcome(key, str(error) or type(error).__name__)
            raise
        self._store_outcome(key, "", is_logged=isinstance(signature, TracedSignature))
        return signature

    def _sign_verified(self, backend: KeyBackend, key: PublishedKey, data: bytes) -> bytes:
        signature = backend.sign(key.ring, key.ref, key.alg, (data,))[0]
        if _belongs(key, signature, data):
            return signature
        self._notify(SignatureDiscarded(key.ring, key.kid))
        # For a remote backend the next request retries, not this one.
        if self._reload(backend, key) and backend.caps.in_process:
            signature = backend.sign(key.ring, key.ref, key.alg, (data,))[0]
            if _belongs(key, signature, data):
                logger.warning("key %s was wrong in memory and has been reloaded", key.kid)
                return signature
        raise BackendBroken(f"a signature for {key.kid} does not match the published key")

    def _reload(self, backend: KeyBackend, key: PublishedKey) -> bool:
        """Make the backend drop ``key``; return whether it can be read again now."""
        self._proven -= {key}
        now = self._monotonic()
        last = self._forgotten_at.get(key.kid)
        if last is not None and now - last < FORGET_INTERVAL_SECONDS:
            return False
        self._forgotten_at[key.kid] = now
        # A backend from a plugin may lack this method.
        forget: Callable[[str, str], bool] | None = getattr(backend, "forget", None)
        return forget is not None and forget(key.ring, key.ref)

    # ------------------------------------------------------------------------------- showing

    def find_problem(self, ring: RingKeys, key: PublishedKey) -> str:
        """Return why ``key``, a key of ``ring``, cannot sign at present; empty if it can.

        A signature within the last second is sufficient proof. Otherwise the key signs a fixed
        text, or, if its backend logs each signature, the backend's state is checked. Both happen at
        most once a second.
        """
        now, last = self._monotonic(), self._outcomes.get(key.kid)
        if last is not None and now - last.at < PROOF_INTERVAL_SECONDS:
            return last.problem
        if last is not None:
            # Concurrent callers get the former result.
            self._outcomes[key.kid] = last._replace(at=now)
        try:
            backend = self._get_backend(ring)
            if _needs_no_signature(last, now):
                problem = _check_state(backend, key)
                self._store_outcome(key, problem, is_logged=True, signed=False)
                return problem
            self._sign_proof(ring, backend, key)
        except BackendError as error:
            self._store_outcome(key, str(error) or type(error).__name__)
            return str(error)
        return ""

    def find_failures(self, signers: Iterable[tuple[RingKeys, PublishedKey]]) -> dict[str, str]:
        """Return why keys cannot sign that failed last, by the name of the ring.

        A few of them are tried again, those first that were tried the longest ago: of many rings,
        one check would otherwise take minutes, and the backend would have no rest.
        """
        failed: list[tuple[_Outcome, RingKeys, PublishedKey]] = []
        for ring, key in signers:
            last = self._outcomes.get(key.kid)
            if last is not None and last.problem:
                failed.append((last, ring, key))
        failed.sort(key=lambda each: each[0].at)
        problems = {key.ring: last.problem for last, _, key in failed}
        for _, ring, key in failed[:TRIED_AT_ONCE]:
            problems[key.ring] = self.find_problem(ring, key)
        return {name: problem for name, problem in problems.items() if problem}

    def _sign_proof(self, ring: RingKeys, backend: KeyBackend, key: PublishedKey) -> None:
        if backend.caps.in_process:
            self._prove(backend, key)
            return
        signature = self._sign_remotely(ring, backend, key, PROOF_INPUT)
        if isinstance(signature, TracedSignature):
            self._on_proof(key.kid, signature.request_id)

    def _store_outcome(
        self, key: PublishedKey, problem: str, *, is_logged: bool = False, signed: bool = True
    ) -> None:
        now, last = self._monotonic(), self._outcomes.get(key.kid)
        if problem or not signed:
            signed_at = last.signed_at if last is not None else -LOGGED_PROOF_INTERVAL_SECONDS
        else:
            signed_at = now
        self._outcomes[key.kid] = _Outcome(now, problem, signed_at, is_logged)


def _belongs(key: PublishedKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except TokenRefusedError:
        return False
    return True


def _needs_no_signature(last: _Outcome | None, now: float) -> bool:
    """Return whether the backend logs signatures and has signed recently."""
    return (
        last is not None
        and last.is_logged
        and not last.problem
        and now - last.signed_at < LOGGED_PROOF_INTERVAL_SECONDS
    )


def _check_state(backend: KeyBackend, key: PublishedKey) -> str:
    """Return why a backend would not sign with ``key``; empty if it would.

    Raises:
        BackendError: the backend does not answer.
    """
    view = backend.describe_versions(key.ring)
    if view.disabled:
        return f"the key of {key.ring} is disabled at its backend"
    shown = next((version for version in view.versions if version.ref == key.ref), None)
    if shown is None:
        return f"version {key.ref} of {key.ring} is missing at its backend"
    if thumbprint(shown.jwk) != key.kid:
        return f"version {key.ref} of {key.ring} is another key at its backend"
    if int(key.ref) < int(view.sign_floor or 0):
        return f"version {key.ref} of {key.ring} may not sign: its backend's floor is above it"
    return ""
