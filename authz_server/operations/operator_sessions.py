"""End the sessions of people who administer, local or known by the OpenID Connect provider."""

from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.pending_changes import PENDING, PendingChange, set_requester_groups
from authz_server.audit.records import record_diff, store_audit_record
from authz_server.database.operator_sessions import OF_PROVIDER, OperatorSession, person_id
from authz_server.database.operators import Operator
from authz_server.errors import ConflictError, NotFoundError
from authz_server.operations.permissions import Caller

_REQUESTER = "operator:"


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
        return person_id(self.operator_id, self.subject)


def end_sessions(services: Services, operator: str, *, actor: str) -> LoggedOut:
    """End every session of one person, on every node with the next request.

    A person of the provider has no row here that could be disabled: the provider refuses the next
    log-in. This ends the sessions, and the right to have approved what waits.

    Args:
        services: the parts of the server.
        operator: the first that fits of: the id in records, which is that of a local operator or
            ``openid:SUB``; the name in records; the ``sub`` of the provider.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is no such operator, and no session of such a person nor a change of
            theirs that waits.
        ConflictError: several people have the name or the ``sub``.
    """
    with services.transaction() as session:
        person, name = _find_person(session, operator)
        if not person.operator_id:
            set_requester_groups(session, f"{_REQUESTER}{person.key}", ())
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
    if operator.startswith(OF_PROVIDER):
        steps.append(_find_by_subject(session, operator.removeprefix(OF_PROVIDER)))
    rows = session.scalars(select(Operator).where(Operator.name == operator))
    named = {_Person(row.id, "", ""): row.name for row in rows}
    steps.append(named | _find_by_name(session, operator))
    steps.append(_find_by_subject(session, operator))
    for found in filter(None, steps):
        if len(found) > 1:
            keys = ", ".join(sorted(f"{person.key} ({name})" for person, name in found.items()))
            raise ConflictError(f"{operator!r} is that of several people; use an id: {keys}.")
        return next(iter(found.items()))
    raise NotFoundError(
        f"There is neither an operator nor a session nor a change that waits of {operator!r}."
    )


def _find_by_name(session: Session, name: str) -> dict[_Person, str]:
    actor = Caller(name=name, kind="operator", way="console", grants=()).actor
    of_provider = PendingChange.requester.startswith(f"{_REQUESTER}{OF_PROVIDER}")
    requested = and_(PendingChange.requested_by == actor, of_provider)
    return _find_people(session, OperatorSession.name == name, requested)


def _find_by_subject(session: Session, subject: str) -> dict[_Person, str]:
    requested = PendingChange.requester == f"{_REQUESTER}{OF_PROVIDER}{subject}"
    return _find_people(session, OperatorSession.subject == subject, requested)


def _find_people(
    session: Session, has_session: ColumnElement[bool], requested: ColumnElement[bool]
) -> dict[_Person, str]:
    """Return people with a session or a change that waits, each with a name in records."""
    columns = (getattr(OperatorSession, field) for field in _Person._fields)
    query = select(*columns, OperatorSession.name).where(has_session)
    found = {_Person(*row[:-1]): row[-1] for row in session.execute(query)}
    known = {person.key for person in found}
    waiting = select(PendingChange.requester, PendingChange.requested_by).where(
        PendingChange.state == PENDING, requested
    )
    for requester, actor in session.execute(waiting):
        key = requester.removeprefix(_REQUESTER)
        if key not in known:
            # A change does not name the provider, at which such a person has no session.
            person = _Person("", "", key.removeprefix(OF_PROVIDER))
            found[person] = actor.removeprefix(_REQUESTER).rpartition(" via ")[0]
    return found


def _is_of(person: _Person) -> ColumnElement[bool]:
    if person.operator_id:
        return OperatorSession.operator_id == person.operator_id
    return and_(*(getattr(OperatorSession, k) == v for k, v in person._asdict().items()))
