"""Members of programmes that are deleted: they leave every programme in the same transaction."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.orm import Session

from authz_server.audit.records import store_audit_record
from authz_server.errors import ConflictError
from authz_server.tokens.models import Programme, Stop


def leave_programmes(
    session: Session, kind: Literal["scopes", "clients"], name: str, *, actor: str, at: datetime
) -> None:
    """Take a scope or a client that is deleted out of the programmes; an empty one is deleted.

    A programme that names what is not there could be neither changed nor exported and applied.

    Args:
        session: the transaction of the deletion.
        kind: the kind of what is deleted.
        name: its canonical name or its id.
        actor: the actor for the audit record.
        at: the time of the record.

    Raises:
        ConflictError: one of the programmes is stopped.
    """
    # Not by the session, which does not show programmes to administrators with limits.
    session.flush()
    connection = session.connection()
    query = select(Programme.name, Programme.scopes, Programme.clients).order_by(Programme.name)
    for programme, scopes, clients in connection.execute(query.with_for_update()).all():
        before = {"scopes": list(scopes), "clients": list(clients)}
        if name not in before[kind]:
            continue
        after = {**before, kind: [each for each in before[kind] if each != name]}
        is_empty = not any(after.values())
        _require_no_stop(connection, programme, name)
        _replace(connection, programme, {} if is_empty else after)
        store_audit_record(
            session,
            at=at,
            actor=actor,
            action="scope.programme_deleted" if is_empty else "scope.programme_defined",
            subject=programme,
            diff={kind: {"before": before[kind], "after": None if is_empty else after[kind]}},
            **(before if is_empty else after),
        )
    for each in session.identity_map.values():
        if isinstance(each, Programme):
            session.expire(each)


def _require_no_stop(connection: Connection, programme: str, member: str) -> None:
    its = select(Stop.subject).where(Stop.kind == "programme", Stop.subject == programme)
    if connection.scalar(its) is not None:
        raise ConflictError(f"A programme with {member!r} is stopped: lift the stop first.")


def _replace(connection: Connection, name: str, members: Mapping[str, list[str]]) -> None:
    """Replace the members of a programme; without members, delete it."""
    is_this = Programme.name == name
    if members:
        connection.execute(update(Programme).where(is_this).values(**members))
    else:
        connection.execute(delete(Programme).where(is_this))
