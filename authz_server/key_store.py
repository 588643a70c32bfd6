"""The key rings' tables, behind ``keys.store.KeyStore`` and the local backend's storage.

Unlike a service, these two own their transactions: a ring's change is one compare-and-set, and a
private key must be kept for good before anybody hears of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CursorResult,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    delete,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.changes import record_change
from authz_server.db import Base, BigIntegerKey, Transaction
from keys.backends.storage import EncryptedKey
from keys.errors import BackendUnavailable, StoreUnavailable
from keys.signing_key import KeyState, RingDefinition, RingSnapshot, SigningKey
from keys.store import KeyChange

RETRY_AFTER_SECONDS = 5


class KeyRing(Base):
    """A ring; ``epoch`` counts its changes and is what they are made against."""

    __tablename__ = "key_ring"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    alg: Mapped[str] = mapped_column(String(20))
    backend_uri: Mapped[str] = mapped_column(String(500))
    epoch: Mapped[int]
    maximum_lifetime_seconds: Mapped[int]
    prepublication_seconds: Mapped[int]
    rotation_interval_seconds: Mapped[int]


class SigningKeyRow(Base):
    """The public side of one version of a ring.

    The partial index bounds what is *recorded* as active. Who signs follows from ``activate_at``,
    so a change-over does not touch this table until somebody records it, the old key first.
    """

    __tablename__ = "signing_key"
    __table_args__ = (
        UniqueConstraint("ring", "version"),
        Index(
            "uq_signing_key_active",
            "ring",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)
    ring: Mapped[str] = mapped_column(ForeignKey("key_ring.name"))
    version: Mapped[int]
    alg: Mapped[str] = mapped_column(String(20))
    public_jwk: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    activate_at: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    fenced_at: Mapped[datetime | None]
    remove_after: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    reason: Mapped[str | None] = mapped_column(Text)


class KeyEvent(Base):
    """What happened to a key, by whom and why; written with the change, never changed."""

    __tablename__ = "key_event"
    __table_args__ = (Index(None, "ring", "epoch"),)

    id: Mapped[int] = mapped_column(BigIntegerKey, primary_key=True)
    ring: Mapped[str] = mapped_column(ForeignKey("key_ring.name"))
    epoch: Mapped[int]
    kid: Mapped[str] = mapped_column(ForeignKey("signing_key.kid"))
    event: Mapped[str] = mapped_column(String(60))
    actor: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class EncryptedPrivateKey(Base):
    """A private key of the local backend, encrypted; of no use without the key-encryption key."""

    __tablename__ = "encrypted_private_key"

    ring: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kid: Mapped[str] = mapped_column(String(64), unique=True)
    alg: Mapped[str] = mapped_column(String(20))
    public_jwk: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    envelope: Mapped[bytes] = mapped_column(LargeBinary)


class SqlKeyStore:
    """Keeps the rings in the database: ``keys.store.KeyStore``.

    Args:
        transaction: Opens a session that is committed at its end.
        reading: Opens a session for reading, where that is another one.
    """

    def __init__(self, transaction: Transaction, reading: Transaction | None = None) -> None:
        self._transaction = transaction
        self._reading = reading or transaction

    def load_rings(self, loaded_at: datetime) -> tuple[RingSnapshot, ...]:
        """Return every ring by name; StoreUnavailable if the database cannot be read."""
        with _store_errors(), self._reading() as session:
            # The rings first: an epoch read after its keys would let a change pass on old rows.
            rings = session.scalars(select(KeyRing).order_by(KeyRing.name)).all()
            rows = session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.version)).all()
            return tuple(_to_snapshot(ring, rows, loaded_at) for ring in rings)

    def add_ring(self, definition: RingDefinition) -> None:
        """Add a ring without keys unless there is one of that name."""
        with _store_errors():
            try:
                with self._transaction() as session:
                    if session.get(KeyRing, definition.name) is None:
                        session.add(_to_ring_row(definition))
            except IntegrityError:
                return  # somebody else added it in between

    def change_ring(self, ring: str, seen_epoch: int, changes: Sequence[KeyChange]) -> bool:
        """Write the changes if the ring is still at ``seen_epoch``; else return False."""
        with _store_errors():
            try:
                with self._transaction() as session:
                    if not _advance_epoch(session, ring, seen_epoch):
                        return False
                    _write_changes(session, seen_epoch + 1, changes)
                    record_change(session, "key", ring)
            except IntegrityError:
                return False
        return True


class SqlEncryptedKeyStorage:
    """Keeps encrypted private keys: ``keys.backends.storage.EncryptedKeyStorage``.

    Args:
        transaction: Opens a session that is committed at its end.
        reading: Opens a session for reading, where that is another one.
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

    def find_any(self) -> EncryptedKey | None:
        """Return some key, or None if there is none."""
        with _backend_errors(), self._reading() as session:
            row = session.scalars(select(EncryptedPrivateKey).limit(1)).first()
            return None if row is None else _to_encrypted_key(row)

    def add(self, key: EncryptedKey) -> bool:
        """Keep ``key`` durably; return False if its version or kid is taken."""
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
def _store_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise StoreUnavailable("the database cannot answer for the key rings") from error
    except ValueError as error:
        raise StoreUnavailable(
            f"the key rings hold what this version cannot read: {error}"
        ) from error


@contextmanager
def _backend_errors() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise BackendUnavailable(
            "the database cannot answer for the private keys", RETRY_AFTER_SECONDS
        ) from error


def _advance_epoch(session: Session, ring: str, seen_epoch: int) -> bool:
    result = session.execute(
        update(KeyRing)
        .where(KeyRing.name == ring, KeyRing.epoch == seen_epoch)
        .values(epoch=KeyRing.epoch + 1)
    )
    return isinstance(result, CursorResult) and result.rowcount == 1


def _write_changes(session: Session, epoch: int, changes: Sequence[KeyChange]) -> None:
    # Whoever stops being active first, or the index would see two of them for a moment.
    for change in sorted(changes, key=lambda change: change.key.state is KeyState.ACTIVE):
        session.merge(_to_key_row(change.key))
        session.flush()
        session.add(_to_event_row(change, epoch))


def _to_snapshot(ring: KeyRing, rows: Iterable[SigningKeyRow], loaded_at: datetime) -> RingSnapshot:
    return RingSnapshot(
        name=ring.name,
        alg=ring.alg,
        backend_uri=ring.backend_uri,
        maximum_lifetime_seconds=ring.maximum_lifetime_seconds,
        prepublication_seconds=ring.prepublication_seconds,
        rotation_interval_seconds=ring.rotation_interval_seconds,
        epoch=ring.epoch,
        keys=tuple(_to_signing_key(row) for row in rows if row.ring == ring.name),
        loaded_at=loaded_at,
    )


def _to_ring_row(definition: RingDefinition) -> KeyRing:
    return KeyRing(
        name=definition.name,
        alg=definition.alg,
        backend_uri=definition.backend_uri,
        epoch=0,
        maximum_lifetime_seconds=definition.maximum_lifetime_seconds,
        prepublication_seconds=definition.prepublication_seconds,
        rotation_interval_seconds=definition.rotation_interval_seconds,
    )


def _to_signing_key(row: SigningKeyRow) -> SigningKey:
    return SigningKey(
        ring=row.ring,
        version=row.version,
        kid=row.kid,
        alg=row.alg,
        public_jwk=row.public_jwk,
        state=KeyState(row.state),
        created_at=row.created_at,
        published_at=row.published_at,
        activate_at=row.activate_at,
        stopped_at=row.stopped_at,
        fenced_at=row.fenced_at,
        remove_after=row.remove_after,
        revoked_at=row.revoked_at,
        reason=row.reason,
    )


def _to_key_row(key: SigningKey) -> SigningKeyRow:
    return SigningKeyRow(
        kid=key.kid,
        ring=key.ring,
        version=key.version,
        alg=key.alg,
        public_jwk=dict(key.public_jwk),
        state=key.state.value,
        created_at=key.created_at,
        published_at=key.published_at,
        activate_at=key.activate_at,
        stopped_at=key.stopped_at,
        fenced_at=key.fenced_at,
        remove_after=key.remove_after,
        revoked_at=key.revoked_at,
        reason=key.reason,
    )


def _to_event_row(change: KeyChange, epoch: int) -> KeyEvent:
    return KeyEvent(
        ring=change.key.ring,
        epoch=epoch,
        kid=change.key.kid,
        event=change.event,
        actor=change.actor,
        reason=change.reason,
        at=change.at,
    )


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
