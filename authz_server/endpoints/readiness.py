"""Whether a server can issue: from its own memory and what its processes know, asking nobody."""

import time
from collections.abc import Callable, Mapping

from authz_server.metrics.observer import KnownBackends
from keys.ring import KeyRings

#: A process asks every backend at its start; by then it has an answer, or has given up.
FIRST_VIEW_SECONDS = 5.0


class KeyReadiness:
    """What readiness says of the key rings.

    Args:
        backends: the URI of each ring's backend, by the ring's name.
        key_rings: the rings, as last read.
        known: returns what the processes last heard of the backends.
        monotonic: counts seconds.
    """

    def __init__(
        self,
        backends: Mapping[str, str],
        key_rings: KeyRings,
        known: Callable[[], KnownBackends] = KnownBackends,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backends = dict(backends)
        self._key_rings = key_rings
        self._known = known
        self._monotonic = monotonic
        self._told_since: float | None = None

    def require(self) -> None:
        """Refuse readiness while nothing can be issued.

        That is where no ring has a key that may sign, and at a start without any backend, also in
        the first moments, when none has answered yet. A backend that goes away later leaves the
        server of use: it verifies, publishes and revokes.

        Raises:
            LookupError: names the rings.
        """
        known = self._known()
        unsure = self._awaits_first_view(known)
        usable = [
            ring
            for ring, backend in self._backends.items()
            if self._key_rings.has_active_key(ring)
            and (ring in known.viewed_rings or not (unsure or backend in known.down))
        ]
        if not usable:
            raise LookupError(f"no ring can sign: {', '.join(self._backends)}")

    def _awaits_first_view(self, known: KnownBackends) -> bool:
        if not known.told:
            return False
        now = self._monotonic()
        if self._told_since is None:
            self._told_since = now
        return now - self._told_since < FIRST_VIEW_SECONDS

    def degradations(self) -> list[str]:
        """Return what cannot be issued at present, each as ``keys:RING`` and why."""
        known = self._known()
        found = []
        for ring, backend in self._backends.items():
            # A ring whose first key waits for verifiers to know it is in order: a healthy move.
            judgement = self._key_rings.judge(ring)
            if judgement.lacks_signer:
                found.append(f"keys:{ring} {judgement.detail}")
            elif backend in known.down:
                found.append(f"keys:{ring} its backend does not answer")
        return found
