"""Find a key by its id, the beginning of its id, its ring and version, or its ring."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from keys.errors import OrderRefusedError
from keys.lifecycle.rules import find_active_key, find_next_key
from keys.signing_key import RingSnapshot, SigningKey

_LIST = "`authz-server keys list` shows them"


class NamedKey(Protocol):
    """A key with its id, ring and version."""

    @property
    def kid(self) -> str:
        """Its id."""
        ...

    @property
    def ring(self) -> str:
        """The name of its ring."""
        ...

    @property
    def version(self) -> int:
        """Its version."""
        ...


ChooseKey = Callable[[RingSnapshot], SigningKey | None]


def find_kid(rings: Sequence[RingSnapshot], named: str, choose: ChooseKey | None = None) -> str:
    """Return the id of the key that a name identifies.

    Args:
        rings: every ring.
        named: an id, the beginning of exactly one, ``RING:VERSION``, or with ``choose`` a ring.
        choose: returns the key that the name of a ring identifies.

    Raises:
        OrderRefusedError: there is none, or there are several.
    """
    chosen = {ring.name: ring for ring in rings}.get(named) if choose else None
    if choose is not None and chosen is not None:
        key = choose(chosen)
        return require_chosen(named, None if key is None else key.kid)
    return find_beginning((key for ring in rings for key in ring.keys), named)


def require_chosen(ring: str, kid: str | None) -> str:
    """Return the id of the key that the name of a ring identifies; OrderRefusedError for None."""
    if kid is None:
        raise OrderRefusedError(
            f"the name of the ring {ring!r} stands for no key now: name one by its id, "
            f"or as {ring}:VERSION; {_LIST}"
        )
    return kid


def find_beginning(keys: Iterable[NamedKey], named: str) -> str:
    """Return the id of the key that begins with a text, or is named by ``RING:VERSION``.

    Raises:
        OrderRefusedError: there is none, or there are several.
    """
    found = [
        key
        for key in keys
        if named and (key.kid.startswith(named) or f"{key.ring}:{key.version}" == named)
    ]
    if len(found) > 1:
        candidates = ", ".join(f"{key.kid} ({key.ring}, version {key.version})" for key in found)
        raise OrderRefusedError(f"{named!r} begins several keys' ids: {candidates}")
    if not found:
        raise OrderRefusedError(f"no ring has a key {named!r}; {_LIST}")
    return found[0].kid


def find_signing_key(ring: RingSnapshot) -> SigningKey | None:
    """Return the key of a ring that signs now."""
    return find_active_key(ring.keys, ring.loaded_at)


def find_standby_key(ring: RingSnapshot) -> SigningKey | None:
    """Return the key of a ring that signs next."""
    return find_next_key(ring.keys, ring.loaded_at)
