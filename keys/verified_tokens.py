"""A bounded memory of verified signatures: a token seen again costs one hash."""

from hashlib import sha256
from threading import Lock

from keys.errors import TokenRefusedError
from keys.jose.compact import MAXIMUM_TOKEN_CHARACTERS
from keys.key_set import KnownKey, VerifiedToken

#: About a kilobyte each.
MAXIMUM_ENTRIES = 8_192


class VerifiedTokens:
    """Tokens whose signature was verified, by the hash of the whole token; the oldest go first.

    An entry counts for the very key object that verified it: a key that was read again, removed or
    revoked since verifies again or no more. Dates and revocation are never remembered.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[KnownKey, VerifiedToken]] = {}
        self._lock = Lock()

    def find(self, digest: bytes) -> tuple[KnownKey, VerifiedToken] | None:
        """Return the key and the content kept under a hash of :func:`hash_token`, or None."""
        return self._entries.get(digest)

    def keep(self, digest: bytes, key: KnownKey, verified: VerifiedToken) -> None:
        """Keep a token that ``key`` has verified."""
        with self._lock:
            while len(self._entries) >= MAXIMUM_ENTRIES:
                del self._entries[next(iter(self._entries))]
            self._entries[digest] = key, verified._replace(remembered=True)

    def after_fork(self) -> None:
        """Replace the lock, which another thread may have held at the fork."""
        self._lock = Lock()


def hash_token(token: str) -> bytes:
    """Return the SHA-256 of the token as presented, 32 bytes.

    Raises:
        TokenRefusedError: It is too large to be one of ours.
    """
    if len(token) > MAXIMUM_TOKEN_CHARACTERS:
        raise TokenRefusedError("too large")
    return sha256(token.encode(errors="surrogatepass")).digest()
