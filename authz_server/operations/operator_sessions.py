"""End the sessions of people who administer, local or known by the OpenID Connect provider."""

from dataclasses import dataclass

from sqlalchemy import delete, or_
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.sink import store_audit_record
from authz_server.database.operator_sessions import OperatorSession
from authz_server.errors import NotFoundError
from authz_server.operations.operators import find_operator
from authz_server.operations.views import record_diff


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut:
    """A person whose sessions have ended.

    Attributes:
        operator: the name in records.
        sessions: the number of sessions.
    """

    operator: str
    sessions: int


def end_sessions(services: Services, operator: str, *, actor: str) -> LoggedOut:
    """End every session of a person, on every node with the next request.

    A person of the provider has no row here that could be disabled: the provider refuses the next
    log-in, and this ends the sessions.

    Args:
        services: the parts of the server.
        operator: the name in records, the id of a local operator, or the ``sub`` of the provider.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is no such operator, and no session of such a person.
    """
    named = (OperatorSession.operator_id, OperatorSession.name, OperatorSession.subject)
    with services.transaction() as session:
        ended = delete(OperatorSession).where(or_(*(each == operator for each in named)))
        names = session.scalars(ended.returning(OperatorSession.name)).all()
        name = names[0] if names else _find_name(session, operator)
        store_audit_record(
            session,
            at=services.clock(),
            actor=actor,
            action="operator.sessions_ended",
            subject=name,
            sessions=len(names),
        )
        record_diff(session, {"sessions": {"before": len(names), "after": 0}})
    return LoggedOut(operator=name, sessions=len(names))


def _find_name(session: Session, operator: str) -> str:
    try:
        return find_operator(session, operator).name
    except NotFoundError as error:
        raise NotFoundError(
            f"There is neither an operator nor a session of {operator!r}."
        ) from error
