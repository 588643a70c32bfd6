"""Sessions of operators, log-ins that have ended, and passkeys.

A session is found by the SHA-256 of what the browser holds: the table is of no use to a reader who
wants to ride a session.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, Session, mapped_column

from authz_server.database.deletions import delete_due
from authz_server.database.operators import OperatorEnrolment
from authz_server.database.orm import Base

#: A row is kept this much longer than it counts, for clocks that differ.
_MARGIN = timedelta(seconds=60)
_DIGEST_BYTES = 32
#: Before the ``sub`` of a person of the provider, as the id in records.
OF_PROVIDER = "openid:"
#: WebAuthn, 4: a credential id has at most 1023 bytes.
MAXIMUM_CREDENTIAL_ID_BYTES = 1_023


class OperatorSession(Base):
    """A session of an operator, who is local or known by a provider."""

    __tablename__ = "operator_session"
    __table_args__ = (Index(None, "expires_at"), Index(None, "operator_id"))

    digest: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES), primary_key=True)
    operator_id: Mapped[str] = mapped_column(String(200))
    issuer: Mapped[str] = mapped_column(String(300))
    subject: Mapped[str] = mapped_column(String(255))
    name: Mapped[str] = mapped_column(String(200))
    groups: Mapped[list[str]]
    amr: Mapped[list[str]]
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    authenticated_at: Mapped[datetime | None]
    expires_at: Mapped[datetime]

    @property
    def person(self) -> str:
        """The id of the person in records."""
        return person_id(self.operator_id, self.subject)


class OperatorLogIn(Base):
    """A log-in that has ended, by the digest of its token; it has no content."""

    __tablename__ = "operator_log_in"
    __table_args__ = (Index(None, "expires_at"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary(_DIGEST_BYTES), primary_key=True)
    content: Mapped[dict[str, Any]]
    expires_at: Mapped[datetime]


class OperatorPasskey(Base):
    """A passkey of a local operator (WebAuthn)."""

    __tablename__ = "operator_passkey"
    __table_args__ = (Index(None, "operator_id"),)

    credential_id: Mapped[bytes] = mapped_column(
        LargeBinary(MAXIMUM_CREDENTIAL_ID_BYTES), primary_key=True
    )
    operator_id: Mapped[str] = mapped_column(String(200))
    name: Mapped[str] = mapped_column(String(100))
    public_key: Mapped[bytes] = mapped_column(LargeBinary(4_096))
    sign_count: Mapped[int] = mapped_column(BigInteger)
    transports: Mapped[list[str]]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]


def person_id(operator_id: str, subject: str) -> str:
    """Return the id of a person in records.

    Args:
        operator_id: the id of a local operator; empty for a person of the provider.
        subject: the ``sub`` of the provider.
    """
    return operator_id or f"{OF_PROVIDER}{subject}"


def purge_sessions(session: Session, now: datetime, batch_rows: int) -> int:
    """Delete sessions, log-ins and enrolments that ended before ``now``; return how many.

    Args:
        session: the transaction.
        now: a time that has certainly passed.
        batch_rows: the largest number of rows of each kind.
    """
    return sum(
        delete_due(session, kind.digest, kind.expires_at < now - _MARGIN, batch_rows)
        for kind in (OperatorSession, OperatorLogIn, OperatorEnrolment)
    )
