"""Links by which an operator enrols a passkey: single use, for 15 minutes."""

import secrets
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from authz_server.clients.secret_changes import PreparedSecret
from authz_server.database.operators import Operator, OperatorEnrolment
from authz_server.errors import NotFoundError
from authz_server.settings import Settings

#: How long a link can be used.
VALID_FOR = timedelta(minutes=15)
_TOKEN_BYTES = 32
_MAXIMUM_TOKEN_CHARACTERS = 100


class EnrolmentRefusedError(NotFoundError):
    """The link is unknown, used or expired, or its operator is disabled."""

    def __init__(self) -> None:
        super().__init__(
            "This link has been used or has expired. A security officer issues another one."
        )


def enrolment_link(settings: Settings, token: str) -> str:
    """Return the address at which an operator uses a token."""
    return f"{settings.admin.url}/enrol/{token}"


def issue_enrolment(
    session: Session, operator_id: str, now: datetime, prepared: PreparedSecret | None = None
) -> str:
    """Return the token of a new link; the operator's earlier links end.

    Args:
        session: the transaction, in which nothing else is stored of the token but a digest.
        operator_id: the id of the operator.
        now: the present time.
        prepared: the record of the token that an approved change issues, which is not returned.
    """
    earlier = OperatorEnrolment.operator_id == operator_id
    session.execute(delete(OperatorEnrolment).where(earlier))
    token = "" if prepared else secrets.token_urlsafe(_TOKEN_BYTES)
    session.add(
        OperatorEnrolment(
            digest=bytes.fromhex(prepared.record) if prepared else _digest(token),
            operator_id=operator_id,
            created_at=now,
            expires_at=now + VALID_FOR,
        )
    )
    session.flush()
    return token


def prepare_enrolment(operator_id: str, token: str) -> PreparedSecret:
    """Return the record of a token, by which an approved change issues it."""
    return PreparedSecret(operator_id, _digest(token).hex())


def find_enrolment(session: Session, token: str, now: datetime) -> Operator:
    """Return the operator of a link that can be used, without using it.

    Args:
        session: the transaction.
        token: the token as the browser sends it.
        now: the present time.

    Raises:
        EnrolmentRefusedError: it cannot be used.
    """
    query = (
        select(Operator)
        .join(OperatorEnrolment, OperatorEnrolment.operator_id == Operator.id)
        .where(*_usable(token, now), Operator.enabled)
    )
    operator = session.scalar(query) if _is_plausible(token) else None
    if operator is None:
        raise EnrolmentRefusedError
    return operator


def use_enrolment(session: Session, token: str, now: datetime) -> Operator:
    """Use a link, in the transaction that stores the passkey; return its operator.

    Of several concurrent uses one succeeds.

    Args:
        session: the transaction.
        token: the token as the browser sends it.
        now: the present time.

    Raises:
        EnrolmentRefusedError: it cannot be used.
    """
    operator = find_enrolment(session, token, now)
    used = (
        update(OperatorEnrolment)
        .where(*_usable(token, now))
        .values(used_at=now)
        .returning(OperatorEnrolment.operator_id)
    )
    if session.execute(used).first() is None:
        raise EnrolmentRefusedError
    return operator


def _usable(token: str, now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        OperatorEnrolment.digest == _digest(token),
        OperatorEnrolment.used_at.is_(None),
        OperatorEnrolment.expires_at > now,
    )


def _is_plausible(token: str) -> bool:
    return token.isascii() and 1 <= len(token) <= _MAXIMUM_TOKEN_CHARACTERS


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="replace")).digest()
