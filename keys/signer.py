"""Signs at the rings' backends, releases what the published key verifies, and knows what failed.

A private key that a backend read wrongly once would stay in its memory: it signs, and nothing that
it signs verifies. So a mismatch has the backend forget the key and read it again.
"""

import logging
import time
from collections.abc import Callable, Mapping
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
from keys.jose.jwk import thumbprint
from keys.key_set import KnownKey, KnownKeys, KnownRing
from keys.observer import Observer

logger = logging.getLogger(__name__)

#: What a key signs to show that it is the published one. No token: that would have a dot.
PROOF_INPUT = b"authz-server proof of possession"
#: A key that does not match is read again at most once in this time, however many requests fail.
FORGET_INTERVAL_SECONDS = 1.0
#: The result of a signature or of a look at the backend is believed for this time.
PROOF_INTERVAL_SECONDS = 1.0
#: A backend that logs each signature is asked for one so often; in between it is only looked at.
LOGGED_PROOF_INTERVAL_SECONDS = 60.0
_RESULTS: Mapping[type[BackendError], str] = {
    BackendUnavailable: "unavailable",
    BackendDenied: "denied",
    VersionUnusable: "unusable",
}

#: Takes the key's id and the backend's id of a call that signed no token.
OnProof = Callable[[str, str], None]


class _Outcome(NamedTuple):
    """How the last checked signature of a key ended, or the last look at its backend.

    ``signed_at`` is when a signature last succeeded, ``at`` when the key was last looked at, both
    in monotonic seconds. ``problem`` is empty where all is well.
    """

    at: float
    problem: str
    signed_at: float
    is_logged: bool


class CheckedSigner:
    """Signs with the keys of all rings; safe for threads.

    Args:
        backends: The open backends by URI. Not copied.
        observer: Receives remote signatures and mismatches.
        on_proof: Receives each proof that a backend has in its audit log.
        monotonic: Returns seconds that only grow.
    """

    def __init__(
        self,
        backends: Mapping[str, KeyBackend],
        observer: Observer,
        *,
        on_proof: OnProof = lambda _kid, _request_id: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = backends
        self._observer = observer
        self._on_proof = on_proof
        self._monotonic = monotonic
        self._proven: frozenset[KnownKey] = frozenset()
        self._outcomes: dict[str, _Outcome] = {}
        self._forgotten_at: dict[str, float] = {}

    # ------------------------------------------------------------------------------- signing

    def sign(self, ring: KnownRing, key: KnownKey, signing_input: bytes) -> bytes:
        """Return the signature of ``key``, a key of ``ring``.

        Raises:
            BackendError: The backend failed, or signed with something else than the published key.
        """
        backend = self._get_backend(ring)
        if not backend.caps.in_process:
            return self._sign_remotely(backend, key, signing_input)
        if key not in self._proven:
            self._prove(backend, key)
        return backend.sign(key.ring, key.ref, key.alg, (signing_input,))[0]

    def is_proven(self, key: KnownKey) -> bool:
        """Tell whether ``key`` signs in this process and was shown to be the published one."""
        return key in self._proven

    def prove_candidates(self, known: KnownKeys) -> None:
        """Load and check every key in this process that signs or will, before it has to."""
        self._proven &= frozenset(known.by_kid.values())
        for kid in self._outcomes.keys() - known.by_kid.keys():
            self._outcomes.pop(kid, None)
        for ring in known.rings.values():
            for _, key in ring.candidates:
                try:
                    backend = self._get_backend(ring)
                    if backend.caps.in_process and key not in self._proven:
                        self._prove(backend, key)
                except BackendError as error:
                    logger.error("key %s cannot sign: %s", key.kid, error)  # noqa: TRY400 - the cause is said

    def _get_backend(self, ring: KnownRing) -> KeyBackend:
        try:
            return self._backends[ring.snapshot.backend_uri]
        except KeyError:
            raise BackendBroken(
                f"the ring {ring.snapshot.name!r} names a backend that is not open here"
            ) from None

    def _sign_remotely(self, backend: KeyBackend, key: KnownKey, signing_input: bytes) -> bytes:
        started, result = time.perf_counter(), "broken"
        try:
            signature = self._sign_and_check(backend, key, signing_input)
            result = "ok"
        except BackendError as error:
            result = _RESULTS.get(type(error), "broken")
            raise
        finally:
            self._observer.signed(backend.scheme, key.alg, result, time.perf_counter() - started)
        return signature

    def _prove(self, backend: KeyBackend, key: KnownKey) -> None:
        # Once per key, which also loads it; checking each signature would treble its cost.
        self._sign_and_check(backend, key, PROOF_INPUT)
        self._proven |= {key}

    def _sign_and_check(self, backend: KeyBackend, key: KnownKey, data: bytes) -> bytes:
        try:
            signature = self._sign_verified(backend, key, data)
        except BackendError as error:
            self._note(key, str(error) or type(error).__name__)
            raise
        self._note(key, "", is_logged=isinstance(signature, TracedSignature))
        return signature

    def _sign_verified(self, backend: KeyBackend, key: KnownKey, data: bytes) -> bytes:
        signature = backend.sign(key.ring, key.ref, key.alg, (data,))[0]
        if _belongs(key, signature, data):
            return signature
        self._observer.mismatch(key.ring, key.kid)
        # What lies elsewhere is asked again by the next request, not by this one.
        if self._has_forgotten(backend, key) and backend.caps.in_process:
            signature = backend.sign(key.ring, key.ref, key.alg, (data,))[0]
            if _belongs(key, signature, data):
                logger.warning("key %s was held wrongly in memory; read again, it fits", key.kid)
                return signature
        raise BackendBroken(f"a signature for {key.kid} does not belong to the published key")

    def _has_forgotten(self, backend: KeyBackend, key: KnownKey) -> bool:
        """Have the backend forget ``key``; tell whether it can now be read again."""
        self._proven -= {key}
        now = self._monotonic()
        last = self._forgotten_at.get(key.kid)
        if last is not None and now - last < FORGET_INTERVAL_SECONDS:
            return False
        self._forgotten_at[key.kid] = now
        # A backend from elsewhere may be older than this method.
        forget: Callable[[str, str], bool] | None = getattr(backend, "forget", None)
        return forget is not None and forget(key.ring, key.ref)

    # ------------------------------------------------------------------------------- showing

    def find_problem(self, ring: KnownRing, key: KnownKey) -> str:
        """Return why ``key``, a key of ``ring``, cannot sign at present; empty if it can.

        A signature that succeeded within the last second is proof enough. Else the key signs a
        fixed text; where its backend logs each signature, it is mostly looked at instead. Both
        happen at most once a second.
        """
        now, last = self._monotonic(), self._outcomes.get(key.kid)
        if last is not None and now - last.at < PROOF_INTERVAL_SECONDS:
            return last.problem
        if last is not None:
            # Others who ask meanwhile get what was known before.
            self._outcomes[key.kid] = last._replace(at=now)
        try:
            backend = self._get_backend(ring)
            if _needs_no_signature(last, now):
                problem = _look(backend, key)
                self._note(key, problem, is_logged=True, signed=False)
                return problem
            self._show(backend, key)
        except BackendError as error:
            self._note(key, str(error) or type(error).__name__)
            return str(error)
        return ""

    def _show(self, backend: KeyBackend, key: KnownKey) -> None:
        if backend.caps.in_process:
            self._prove(backend, key)
            return
        signature = self._sign_remotely(backend, key, PROOF_INPUT)
        if isinstance(signature, TracedSignature):
            self._on_proof(key.kid, signature.request_id)

    def _note(
        self, key: KnownKey, problem: str, *, is_logged: bool = False, signed: bool = True
    ) -> None:
        now, last = self._monotonic(), self._outcomes.get(key.kid)
        if problem or not signed:
            signed_at = last.signed_at if last is not None else -LOGGED_PROOF_INTERVAL_SECONDS
        else:
            signed_at = now
        self._outcomes[key.kid] = _Outcome(now, problem, signed_at, is_logged)


def _belongs(key: KnownKey, signature: bytes, data: bytes) -> bool:
    try:
        key.verify(signature, data)
    except TokenRefusedError:
        return False
    return True


def _needs_no_signature(last: _Outcome | None, now: float) -> bool:
    """Tell whether the backend logs signatures and has shown lately that it makes them."""
    return (
        last is not None
        and last.is_logged
        and not last.problem
        and now - last.signed_at < LOGGED_PROOF_INTERVAL_SECONDS
    )


def _look(backend: KeyBackend, key: KnownKey) -> str:
    """Return why a backend that answers would not sign with ``key``; empty if it would.

    Raises:
        BackendError: The backend does not answer.
    """
    view = backend.view(key.ring)
    if view.disabled:
        return f"the key of {key.ring} is switched off at its backend"
    shown = next((version for version in view.versions if version.ref == key.ref), None)
    if shown is None:
        return f"version {key.ref} of {key.ring} is not shown by its backend"
    if thumbprint(shown.jwk) != key.kid:
        return f"version {key.ref} of {key.ring} is another key at its backend"
    if int(key.ref) < int(view.sign_floor or 0):
        return f"version {key.ref} of {key.ring} may not sign: its backend's floor is above it"
    return ""
