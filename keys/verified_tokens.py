"""A bounded cache of verified signatures: verifying a token again costs one hash."""

from hashlib import sha256
from threading import Lock

from keys.errors import TokenRefusedError
from keys.jose.compact import MAXIMUM_TOKEN_CHARACTERS
from keys.key_set import PublishedKey, VerifiedToken

#: An entry takes about a kilobyte.
MAXIMUM_ENTRIES = 8_192


class VerifiedTokens:
    """Tokens with a verified signature, by the hash of the token; the oldest are dropped.

    An entry is valid only for the key object that verified it. After a key is reloaded, removed or
    revoked, its tokens are verified again or refused. Dates and revocation are never cached.
    """

    def __init__(self) -> None:
        self._entries: dict[bytes, tuple[PublishedKey, VerifiedToken]] = {}
        self._lock = Lock()

    def find(self, digest: bytes) -> tuple[PublishedKey, VerifiedToken] | None:
        """Return the key and the content stored under a hash of :func:`hash_token`, or None."""
        return self._entries.get(digest)

    def keep(self, digest: bytes, key: PublishedKey, verified: VerifiedToken) -> None:
        """Store a token that ``key`` has verified."""
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
        TokenRefusedError: it is larger than any token of this server.
    """
    if len(token) > MAXIMUM_TOKEN_CHARACTERS:
        raise TokenRefusedError("too large")
    return sha256(token.encode(errors="surrogatepass")).digest()
