"""The passkeys of operators, as those see them who administer operators."""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_difference, store_audit_record
from authz_server.database.operator_sessions import OperatorPasskey, OperatorSession
from authz_server.database.operators import Operator
from authz_server.errors import ConflictError, NotFoundError
from authz_server.operations.operators import find_operator

_ID_CHARACTERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyView:
    """A passkey.

    Attributes:
        id: the beginning of the SHA-256 digest of its credential id, in hex.
        name: the name that its operator gave it.
        last_used_at: the time of its last log-in; None: never.
    """

    id: str
    name: str
    created_at: datetime
    last_used_at: datetime | None


def list_passkeys(services: Services, operator: str) -> tuple[PasskeyView, ...]:
    """Return the passkeys of an operator, by id.

    Args:
        services: the parts of the server.
        operator: the id or the name.

    Raises:
        NotFoundError: there is no such operator.
    """
    with services.transaction() as session:
        rows = _rows(session, find_operator(session, operator))
        return tuple(sorted(map(describe_passkey, rows), key=lambda each: each.id))


def remove_passkey(  # noqa: PLR0913 - who removes what, where
    services: Services,
    operator: str,
    passkey_id: str,
    *,
    actor: str,
    acting_operator: str = "",
    own_session: bytes = b"",
) -> None:
    """Remove a passkey of an operator, for example of a lost device, and end all sessions.

    Without a passkey, the operator needs a link to log in again.

    Args:
        services: the parts of the server.
        operator: the id or the name.
        passkey_id: the id of the passkey.
        actor: the recorded actor.
        acting_operator: the id of the operator that removes it; empty for others.
        own_session: the digest of a session of the acting operator, which stays open.

    Raises:
        NotFoundError: there is no such operator or passkey.
        ConflictError: it is the last passkey of the acting operator.
    """
    with services.transaction() as session:
        row = find_operator(session, operator)
        session.refresh(row, with_for_update=True)
        passkeys = _rows(session, row)
        for passkey in passkeys:
            if describe_passkey(passkey).id == passkey_id:
                break
        else:
            raise NotFoundError(f"{row.name} has no passkey {passkey_id!r}.")
        if row.id == acting_operator and len(passkeys) == 1:
            raise ConflictError("This is your last passkey: add another one before you remove it.")
        session.delete(passkey)
        others = OperatorSession.digest != own_session
        session.execute(
            delete(OperatorSession).where(OperatorSession.operator_id == row.id, others)
        )
        store_audit_record(
            session,
            at=services.corrected_clock(),
            actor=actor,
            action="operator.passkey_removed",
            subject=row.name,
            operator_id=row.id,
            passkey=passkey.name,
        )
        record_difference(session, describe_passkey(passkey), None)


def _rows(session: Session, operator: Operator) -> list[OperatorPasskey]:
    query = select(OperatorPasskey).where(OperatorPasskey.operator_id == operator.id)
    return list(session.scalars(query.order_by(OperatorPasskey.created_at)))


def describe_passkey(row: OperatorPasskey) -> PasskeyView:
    """Return the view of a passkey."""
    return PasskeyView(
        id=sha256(row.credential_id).hexdigest()[:_ID_CHARACTERS],
        name=row.name,
        created_at=row.created_at,
        last_used_at=row.last_used_at,
    )
