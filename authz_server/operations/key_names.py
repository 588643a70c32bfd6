"""Find a key by its id, the beginning of its id, or its ring."""

from collections.abc import Callable, Sequence

from keys.errors import OrderRefusedError
from keys.lifecycle.rules import find_active_key
from keys.signing_key import RingSnapshot, SigningKey

_LIST = "`authz-server keys list` shows them"

ChooseKey = Callable[[RingSnapshot], SigningKey | None]


def find_kid(rings: Sequence[RingSnapshot], named: str, choose: ChooseKey | None = None) -> str:
    """Return the id of the key that a name identifies.

    Args:
        rings: every ring.
        named: an id, the beginning of exactly one, or with ``choose`` the name of a ring.
        choose: returns the key that the name of a ring identifies.

    Raises:
        OrderRefusedError: there is none, or there are several.
    """
    for ring in rings:
        if choose is not None and ring.name == named:
            key = choose(ring)
            if key is None:
                raise OrderRefusedError(f"the ring {named!r} has no such key; {_LIST}")
            return key.kid
    found = [key for ring in rings for key in ring.keys if named and key.kid.startswith(named)]
    if len(found) > 1:
        candidates = ", ".join(f"{key.kid} ({key.ring}, version {key.version})" for key in found)
        raise OrderRefusedError(f"{named!r} begins several keys' ids: {candidates}")
    if not found:
        raise OrderRefusedError(f"no ring has a key {named!r}; {_LIST}")
    return found[0].kid


def find_signing_key(ring: RingSnapshot) -> SigningKey | None:
    """Return the key of a ring that signs now."""
    return find_active_key(ring.keys, ring.loaded_at)
