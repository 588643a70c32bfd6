"""Whether a server can issue: from its own memory and what its processes know, asking nobody."""

from collections.abc import Callable, Mapping

from authz_server.observation import KnownBackends
from keys.ring import KeyRings


class KeyReadiness:
    """What readiness says of the key rings.

    Args:
        backends: the URI of each ring's backend, by the ring's name.
        key_rings: the rings, as last read.
        known: returns what the processes last heard of the backends.
    """

    def __init__(
        self,
        backends: Mapping[str, str],
        key_rings: KeyRings,
        known: Callable[[], KnownBackends] = KnownBackends,
    ) -> None:
        self._backends = dict(backends)
        self._key_rings = key_rings
        self._known = known

    def require(self) -> None:
        """Refuse readiness while nothing can be issued.

        That is where no ring has a key that may sign, and at a start without any backend. A backend
        that goes away later leaves the server of use: it verifies, publishes and revokes.

        Raises:
            LookupError: names the rings.
        """
        known = self._known()
        usable = [
            ring
            for ring, backend in self._backends.items()
            if self._key_rings.has_active_key(ring)
            and (backend not in known.down or ring in known.viewed_rings)
        ]
        if not usable:
            raise LookupError(", ".join(self._backends))

    def degradations(self) -> list[str]:
        """Return what cannot be issued at present, each as ``keys:RING`` and why."""
        known = self._known()
        found = []
        for ring, backend in self._backends.items():
            if not self._key_rings.has_active_key(ring):
                found.append(f"keys:{ring} no key may sign")
            elif backend in known.down:
                found.append(f"keys:{ring} its backend does not answer")
        return found
