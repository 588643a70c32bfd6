"""Nonces of DPoP proofs that need no storage (RFC 9449, 8)."""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256

_PURPOSE = b"authz-server DPoP nonce 1"
_SLOT_BYTES = 6
_TAG_BYTES = 15


class DPoPNonces:
    """Makes and recognises nonces, alike on every node.

    A nonce is the number of a slot of time with its HMAC. It is sent during its slot and accepted
    during the next one too, so that it lives for half of its lifetime at least.

    Args:
        secret: the secret that the nodes share; the key of the nonces is derived from it.
        lifetime_seconds: the longest life of a nonce: two slots.
    """

    def __init__(self, secret: bytes, lifetime_seconds: int) -> None:
        self._key = hmac.digest(secret, _PURPOSE, sha256)
        self._slot_seconds = lifetime_seconds / 2
        self._made = (-1, "")

    def make(self, now: float) -> str:
        """Return the nonce of the present slot.

        Args:
            now: seconds since 1970 UTC.
        """
        slot = int(now // self._slot_seconds)
        made, nonce = self._made
        if made != slot:
            nonce = self._encode(slot)
            self._made = (slot, nonce)
        return nonce

    def find_expiry(self, nonce: str, now: float) -> float | None:
        """Return when a nonce ends, in seconds since 1970; None if it is not accepted.

        The clock of another node may be ahead: the nonce of the next slot is accepted too.
        """
        present = int(now // self._slot_seconds)
        for slot in (present, present - 1, present + 1):
            expected = self.make(now) if slot == present else self._encode(slot)
            if hmac.compare_digest(nonce.encode(), expected.encode()):
                return (slot + 2) * self._slot_seconds
        return None

    def _encode(self, slot: int) -> str:
        number = slot.to_bytes(_SLOT_BYTES, "big")
        tag = hmac.digest(self._key, number, sha256)[:_TAG_BYTES]
        return urlsafe_b64encode(number + tag).decode()
