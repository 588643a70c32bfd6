"""Encrypted private keys of the local backend in a table: ``EncryptedKeyStorage``.

Unlike a service, the storage owns its transactions: a private key must be stored durably before its
public key is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import LargeBinary, String, delete, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from authz_server.database.orm import Base, Transaction
from keys.backends.local.storage import EncryptedKey
from keys.errors import BackendUnavailable

RETRY_AFTER_SECONDS = 5


class EncryptedPrivateKey(Base):
    """A private key of the local backend, encrypted with the key-encryption key."""

    __tablename__ = "encrypted_private_key"

    ring: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kid: Mapped[str] = mapped_column(String(64), unique=True)
    alg: Mapped[str] = mapped_column(String(20))
    public_jwk: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    envelope: Mapped[bytes] = mapped_column(LargeBinary)


class SqlEncryptedKeyStorage:
    """Stores encrypted private keys (``keys.backends.local.storage.EncryptedKeyStorage``).

    Args:
        transaction: opens a session that commits at its end.
        reading: opens a session for reading, if different.
    """

    def __init__(self, transaction: Transaction, reading: Transaction | None = None) -> None:
        self._transaction = transaction
        self._reading = reading or transaction

    def load(self, ring: str) -> tuple[EncryptedKey, ...]:
        """Return every version of ``ring``, lowest first."""
        statement = (
            select(EncryptedPrivateKey)
            .where(EncryptedPrivateKey.ring == ring)
            .order_by(EncryptedPrivateKey.version)
        )
        with _backend_errors(), self._reading() as session:
            return tuple(_to_encrypted_key(row) for row in session.scalars(statement))

    def find_newest(self) -> EncryptedKey | None:
        """Return the key that was created last, of any ring; None if there is none."""
        statement = select(EncryptedPrivateKey).order_by(
            EncryptedPrivateKey.created_at.desc(), EncryptedPrivateKey.version.desc()
        )
        with _backend_errors(), self._reading() as session:
            row = session.scalars(statement.limit(1)).first()
            return None if row is None else _to_encrypted_key(row)

    def add(self, key: EncryptedKey) -> bool:
        """Store ``key`` durably; return False if its version or kid is taken."""
        with _backend_errors():
            try:
                with self._transaction() as session:
                    session.add(_to_private_row(key))
            except IntegrityError:
                return False
        return True

    def delete_below(self, ring: str, version: int) -> None:
        """Delete every version of ``ring`` below ``version``."""
        statement = delete(EncryptedPrivateKey).where(
            EncryptedPrivateKey.ring == ring, EncryptedPrivateKey.version < version
        )
        with _backend_errors(), self._transaction() as session:
            session.execute(statement)


@contextmanager
def _backend_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise BackendUnavailable(
            "the database cannot answer for the private keys", RETRY_AFTER_SECONDS
        ) from error


def _to_encrypted_key(row: EncryptedPrivateKey) -> EncryptedKey:
    return EncryptedKey(
        ring=row.ring,
        version=row.version,
        kid=row.kid,
        alg=row.alg,
        public_jwk=row.public_jwk,
        created_at=row.created_at,
        envelope=row.envelope,
    )


def _to_private_row(key: EncryptedKey) -> EncryptedPrivateKey:
    return EncryptedPrivateKey(
        ring=key.ring,
        version=key.version,
        kid=key.kid,
        alg=key.alg,
        public_jwk=dict(key.public_jwk),
        created_at=key.created_at,
        envelope=key.envelope,
    )
