"""Generate and verify client secrets."""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from authz_server.errors import InvalidChangeError

HMAC_PREFIX = "hmac-sha256$"
ARGON2_PREFIX = "argon2id$"
DERIVED_PREFIX = "derived-hmac-sha512$"
SECRET_BYTES = 32
MINIMUM_IMPORTED_BYTES = 8
MAXIMUM_IMPORTED_BYTES = 1_024
#: Its secrets sign assertions, so that the server has to know them.
CLIENT_SECRET_JWT = "client_secret_jwt"  # noqa: S105 - a method, not a secret

# RFC 9106, 4, second recommended option: 64 MiB, three passes.
_argon2 = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=1)


def is_secret_method(method: str) -> bool:
    """Return whether a client authentication method, or a registration for it, needs a secret.

    Methods of plugins have credentials of their own.
    """
    return method.startswith("client_secret")


def generate_secret() -> str:
    """Return 256 bits from the system's generator as 43 characters of ``[A-Za-z0-9_-]``."""
    return secrets.token_urlsafe(SECRET_BYTES)


class SecretScheme:
    """Makes and checks the records of secrets.

    Args:
        pepper: at least 32 bytes, kept outside the database; every record is made with it.
        argon2_concurrency: the number of argon2id computations that may run at once in this
            process; each takes 64 MiB.

    Attributes:
        argon2_concurrency: as given.
        fingerprint: 16 hex digits that identify the pepper, from which it cannot be found.
    """

    def __init__(self, pepper: bytes, argon2_concurrency: int) -> None:
        self._pepper = pepper
        self.argon2_concurrency = argon2_concurrency
        self.fingerprint = self.digest(b"fingerprint of the pepper\0")[:8].hex()

    def digest(self, secret: bytes) -> bytes:
        """Return HMAC-SHA256(pepper, secret), 32 bytes."""
        return hmac.digest(self._pepper, secret, hashlib.sha256)

    def record(self, secret: bytes) -> str:
        """Return the record of a generated secret: ``hmac-sha256$`` and 64 hex digits."""
        return HMAC_PREFIX + self.digest(secret).hex()

    def import_record(self, secret: bytes) -> str:
        """Return the record of an imported secret: ``argon2id$`` and the encoded hash.

        Raises:
            InvalidChangeError: it is empty, too short, too long, or holds control characters.
        """
        _require_importable(secret)
        return ARGON2_PREFIX + _argon2.hash(self.digest(secret))

    def derived_record(self) -> tuple[str, str]:
        """Return the record of a new secret that signs assertions, and the secret.

        The record is ``derived-hmac-sha512$`` and a salt of 64 hex digits. The secret follows from
        it and the pepper (``docs/decisions/0024-derived-secrets.md``).
        """
        salt = secrets.token_bytes(SECRET_BYTES)
        return DERIVED_PREFIX + salt.hex(), self.derive(salt).decode()

    def derive(self, salt: bytes) -> bytes:
        """Return the secret of a salt: 86 characters of ``[A-Za-z0-9_-]``.

        That is enough for HS512, whose keys have at least 64 bytes (RFC 7518, 3.2).
        """
        derived = hmac.digest(self._pepper, b"client_secret_jwt\0" + salt, hashlib.sha512)
        return urlsafe_b64encode(derived).rstrip(b"=")

    def fits(self, record: str, method: str) -> bool:
        """Return whether a secret with this record authenticates by a method."""
        if method == CLIENT_SECRET_JWT:
            return bool(self.salt_of(record))
        return is_secret_method(method)

    @staticmethod
    def salt_of(record: str) -> bytes:
        """Return the salt of a derived secret; no bytes for any other.

        Raises:
            ValueError: the record is damaged.
        """
        if not record.startswith(DERIVED_PREFIX):
            return b""
        salt = bytes.fromhex(record[len(DERIVED_PREFIX) :])
        if len(salt) != SECRET_BYTES:
            raise ValueError("a secret's record is damaged")
        return salt

    def entry_parts(self, record: str) -> tuple[bytes, str]:
        """Return the parts of a record for the cache.

        Returns:
            the digest of a generated or derived secret (32 bytes) and an empty string, or no bytes
            and the encoded argon2id hash of an imported one.

        Raises:
            ValueError: its scheme is unknown, or it is damaged.
        """
        if record.startswith(HMAC_PREFIX):
            digest = bytes.fromhex(record[len(HMAC_PREFIX) :])
            if len(digest) == hashlib.sha256().digest_size:
                return digest, ""
        elif record.startswith(ARGON2_PREFIX):
            return b"", record[len(ARGON2_PREFIX) :]
        elif salt := self.salt_of(record):
            return self.digest(self.derive(salt)), ""
        raise ValueError("a secret's record has an unknown scheme")

    def verify_imported(self, encoded: str, secret: bytes) -> bool:
        """Return whether ``secret`` matches this hash; both outcomes take equally long.

        It takes 64 MiB and some tenths of a second, for which :attr:`argon2_concurrency` holds.
        """
        try:
            return _argon2.verify(encoded, self.digest(secret))
        except (VerificationError, InvalidHashError):
            return False


def _require_importable(secret: bytes) -> None:
    if not secret.strip():
        raise InvalidChangeError("secret: it is empty or blank")
    if not MINIMUM_IMPORTED_BYTES <= len(secret) <= MAXIMUM_IMPORTED_BYTES:
        raise InvalidChangeError(
            f"secret: it must have {MINIMUM_IMPORTED_BYTES} to {MAXIMUM_IMPORTED_BYTES} bytes"
        )
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidChangeError("secret: it is not UTF-8 text") from None
    if not text.isprintable():
        raise InvalidChangeError("secret: it holds control or invisible characters")
