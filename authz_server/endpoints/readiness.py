"""Readiness to issue tokens, from memory and the states reported by the workers."""

import time
from collections.abc import Callable, Iterable, Mapping

from authz_server.metrics.source import KnownBackends
from keys.ring import KeyRings

#: Within this time of its start a worker has observed every backend or given up.
FIRST_VIEW_SECONDS = 5.0


class KeyReadiness:
    """Readiness of the key rings.

    Args:
        backends: the URI of each ring's backend, by the ring's name.
        key_rings: the rings, as last read.
        known: returns the backends' states as the workers last reported them.
        monotonic: returns monotonic seconds.
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
        self._reported_since: float | None = None

    def require(self) -> None:
        """Raise unless at least one ring can sign.

        No ring can sign if none has an active key. While the server starts, a ring counts only once
        its backend has been observed. A backend that fails later does not end readiness: the
        server still verifies, publishes and revokes.

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
        if not known.reported:
            return False
        now = self._monotonic()
        if self._reported_since is None:
            self._reported_since = now
        return now - self._reported_since < FIRST_VIEW_SECONDS

    def degradations(self, of_workers: Iterable[str] = ()) -> list[str]:
        """Return the rings that cannot sign at present, each as ``keys:RING`` and the reason.

        Args:
            of_workers: what the workers reported, which follows. Their own experience of the
                default ring is left out if the state of the rings, which is more exact, is
                returned.
        """
        known, reported = self._known(), tuple(of_workers)
        found = []
        for ring, backend in self._backends.items():
            # A first key that is published but not yet active is part of a healthy rotation.
            judgement = self._key_rings.judge(ring)
            if judgement.lacks_signer:
                found.append(f"keys:{ring} {judgement.detail}")
            elif backend in known.down and not _is_told(ring, reported):
                found.append(f"keys:{ring} its backend does not answer")
        return found + [each for each in reported if not (found and each.startswith("keys: "))]


def _is_told(ring: str, reported: Iterable[str]) -> bool:
    """Return whether a worker has reported why ``ring`` cannot sign."""
    return any(each.startswith(f"keys:{ring} ") for each in reported)
