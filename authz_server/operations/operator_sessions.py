"""End the sessions of people who administer, local or known by the OpenID Connect provider."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff, store_audit_record
from authz_server.database.operator_sessions import OperatorSession
from authz_server.database.operators import Operator
from authz_server.errors import ConflictError, NotFoundError

#: Before the ``sub`` of a person of the provider, as the id in records.
_OF_PROVIDER = "openid:"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedOut:
    """A person whose sessions have ended.

    Attributes:
        operator: the name in records.
        sessions: the number of sessions.
    """

    operator: str
    sessions: int


class _Person(NamedTuple):
    """The identity of a person: the id of a local operator, or the provider and its ``sub``."""

    operator_id: str
    issuer: str
    subject: str

    @property
    def key(self) -> str:
        """The id in records."""
        return self.operator_id or f"{_OF_PROVIDER}{self.subject}"


def end_sessions(services: Services, operator: str, *, actor: str) -> LoggedOut:
    """End every session of one person, on every node with the next request.

    A person of the provider has no row here that could be disabled: the provider refuses the next
    log-in, and this ends the sessions.

    Args:
        services: the parts of the server.
        operator: the first that fits of: the id in records, which is that of a local operator or
            ``openid:SUB``; the name in records; the ``sub`` of the provider.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is no such operator, and no session of such a person.
        ConflictError: several people have the name or the ``sub``.
    """
    with services.transaction() as session:
        person, name = _find_person(session, operator)
        ended = delete(OperatorSession).where(_is_of(person))
        names = session.scalars(ended.returning(OperatorSession.name)).all()
        store_audit_record(
            session,
            at=services.corrected_clock(),
            actor=actor,
            action="operator.sessions_ended",
            subject=name,
            operator_id=person.key,
            sessions=len(names),
        )
        record_diff(session, {"sessions": {"before": len(names), "after": 0}})
    return LoggedOut(operator=name, sessions=len(names))


def _find_person(session: Session, operator: str) -> tuple[_Person, str]:
    """Return a person with the name in records; the errors are those of :func:`end_sessions`."""
    local = session.get(Operator, operator)
    if local is not None:
        return _Person(local.id, "", ""), local.name
    steps: list[dict[_Person, str]] = []
    if operator.startswith(_OF_PROVIDER):
        subject = operator.removeprefix(_OF_PROVIDER)
        steps.append(_find_people(session, OperatorSession.subject == subject))
    rows = session.scalars(select(Operator).where(Operator.name == operator))
    named = {_Person(row.id, "", ""): row.name for row in rows}
    steps.append(named | _find_people(session, OperatorSession.name == operator))
    steps.append(_find_people(session, OperatorSession.subject == operator))
    for found in filter(None, steps):
        if len(found) > 1:
            keys = ", ".join(sorted(f"{person.key} ({name})" for person, name in found.items()))
            raise ConflictError(f"{operator!r} is that of several people; use an id: {keys}.")
        return next(iter(found.items()))
    raise NotFoundError(f"There is neither an operator nor a session of {operator!r}.")


def _find_people(session: Session, condition: ColumnElement[bool]) -> dict[_Person, str]:
    """Return the people with sessions of a condition, each with a name in records."""
    columns = (getattr(OperatorSession, field) for field in _Person._fields)
    query = select(*columns, OperatorSession.name).where(condition)
    return {_Person(*row[:-1]): row[-1] for row in session.execute(query)}


def _is_of(person: _Person) -> ColumnElement[bool]:
    if person.operator_id:
        return OperatorSession.operator_id == person.operator_id
    return and_(*(getattr(OperatorSession, k) == v for k, v in person._asdict().items()))
