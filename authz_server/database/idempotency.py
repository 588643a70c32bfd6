"""Creations that are not repeated: the subject that a request with an idempotency key created."""

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, Index, LargeBinary, String, delete, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.orm import Base, insert_into

#: How long a key is remembered.
KEPT = timedelta(hours=24)
_DIGEST_BYTES = 32


class IdempotentCreation(Base):
    """A creation, by the SHA-256 of its caller, its address and its key."""

    __tablename__ = "idempotent_creation"
    __table_args__ = (Index(None, "expires_at"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES), primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES))
    subject: Mapped[str] = mapped_column(String(300))
    expires_at: Mapped[int] = mapped_column(BigInteger)


class EarlierCreation(NamedTuple):
    """The digest of the request that was sent with the key before, and the created subject."""

    request: bytes
    subject: str


def begin_creation(
    session: Session, digest: bytes, request: bytes, now: datetime
) -> EarlierCreation | None:
    """Reserve a key in the transaction of a creation; return the creation that already used it.

    A concurrent creation with the same key is waited for.

    Args:
        session: the transaction.
        digest: the SHA-256 that identifies the key.
        request: the SHA-256 of the request.
        now: the present time.
    """
    seconds = int(now.timestamp())
    spent = (IdempotentCreation.digest == digest) & (IdempotentCreation.expires_at <= seconds)
    session.execute(delete(IdempotentCreation).where(spent))
    values = {
        "digest": digest,
        "request": request,
        "subject": "",
        "expires_at": int((now + KEPT).timestamp()),
    }
    reserved = insert_into(session, IdempotentCreation).values(values).on_conflict_do_nothing()
    if session.execute(reserved.returning(IdempotentCreation.digest)).first():
        return None
    query = select(IdempotentCreation.request, IdempotentCreation.subject)
    found = session.execute(query.where(IdempotentCreation.digest == digest)).one()
    return EarlierCreation(found.request, found.subject)


def finish_creation(session: Session, digest: bytes, subject: str) -> None:
    """Store what was created with a reserved key, in the same transaction."""
    row = IdempotentCreation.digest == digest
    session.execute(update(IdempotentCreation).where(row).values(subject=subject))


def purge_creations(session: Session, now: datetime, batch_rows: int) -> int:
    """Delete up to ``batch_rows`` keys that expired by ``now``; return how many."""
    due = (
        select(IdempotentCreation.digest)
        .where(IdempotentCreation.expires_at <= int(now.timestamp()))
        .limit(batch_rows)
    )
    spent = delete(IdempotentCreation).where(IdempotentCreation.digest.in_(due))
    return session.execute(spent).rowcount  # type: ignore[attr-defined,no-any-return]
