"""Create, list, show, change, disable, enable and delete operators.

An operator is a person who administers the server and logs in with a passkey. Operators that log
in at an OpenID Connect provider have no row here.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, selectinload

from authz_server.assembly import Services
from authz_server.audit.records import record_diff, record_difference, store_audit_record
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.database.operator_sessions import OperatorPasskey, OperatorSession
from authz_server.database.operators import (
    MAXIMUM_NAME_CHARACTERS,
    Operator,
    OperatorEnrolment,
    OperatorRole,
)
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations.enrolment import (
    VALID_FOR,
    enrolment_link,
    issue_enrolment,
    prepare_enrolment,
)
from authz_server.operations.operator_roles import (
    SECURITY_OFFICER,
    AssignedRole,
    RoleView,
    date_roles,
    limits_of_role,
    note_roles,
    plain_roles,
    replace_roles,
    require_another_officer,
    require_other_operator,
)
from authz_server.operations.permissions import Grant, make_grants, roles_of

_NAME = re.compile(rf"[\w.@+-]{{1,{MAXIMUM_NAME_CHARACTERS}}}")
_ID_BYTES = 8
_ID = re.compile(rf"[0-9a-f]{{{2 * _ID_BYTES}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorView:
    """An operator.

    Attributes:
        state: ``enabled`` or ``disabled``.
        permissions: what the roles permit together, each within the limits of its role.
        passkeys: the number of enrolled passkeys; without one, the operator cannot log in.
    """

    id: str
    name: str
    state: str
    roles: tuple[RoleView, ...]
    permissions: tuple[str, ...]
    passkeys: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A link by which an operator enrols a passkey, once.

    Attributes:
        link: the address, which cannot be read again.
        expires_at: the time after which it cannot be used.
    """

    link: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewOperator:
    """An operator that was created.

    Attributes:
        operator: the stored operator.
        enrolment: the link for the first passkey.
    """

    operator: OperatorView
    enrolment: Enrolment


def create_operator(
    services: Services,
    *,
    actor: str,
    name: str,
    roles: Iterable[AssignedRole] = (),
    prepared: PreparedSecret | None = None,
) -> NewOperator:
    """Create an operator, with the link for the first passkey.

    Args:
        services: the parts of the server.
        actor: the recorded actor.
        name: the name, as records have it: letters, digits and ``.@+_-``.
        roles: the roles with their limits.
        prepared: the id and the link of an approved change.

    Raises:
        InvalidChangeError: a value breaks a rule.
        ConflictError: the name is taken.
    """
    name = _require_name(name)
    now = services.corrected_clock()
    with services.transaction() as session:
        if session.scalar(select(Operator.id).where(Operator.name == name)) is not None:
            raise ConflictError(f"The name {name!r} is taken.")
        made = prepared.id if prepared else token_hex(_ID_BYTES)
        row = Operator(id=made, name=name, created_at=now, updated_at=now)
        row.enabled = True
        session.add(row)
        replace_roles(services, session, row, roles, now)
        session.flush()
        _audit(services, session, row, actor, "operator.created", roles=plain_roles(row.roles))
        token = issue_enrolment(session, row.id, now, prepared)
        link = prepare_enrolment(row.id, token)
        note_roles(services, session, row, [], actor=actor, operation="create_operator", link=link)
        operator = _describe(services, session, row)
        record_difference(session, None, operator, subject=name)
        return NewOperator(operator=operator, enrolment=_enrolment(services, token, now))


def renew_enrolment(
    services: Services, operator: str, *, actor: str, prepared: PreparedSecret | None = None
) -> Enrolment:
    """Return a new link for a further passkey of an operator; an earlier link ends.

    Args:
        services: the parts of the server.
        operator: the id or the name.
        actor: the recorded actor.
        prepared: the link of an approved change.

    Raises:
        NotFoundError: there is no such operator.
        ConflictError: the operator is disabled.
    """
    now = services.corrected_clock()
    with services.transaction() as session:
        row = _locked(session, operator)
        if not row.enabled:
            raise ConflictError(f"The operator {row.name!r} is disabled.")
        token = issue_enrolment(session, row.id, now, prepared)
        _audit(services, session, row, actor, "operator.enrolment_issued")
        record_diff(session, {"enrolment": {"before": None, "after": "issued"}})
        link, held = prepare_enrolment(row.id, token), plain_roles(row.roles)
        renew = "renew_enrolment"
        note_roles(services, session, row, held, actor=actor, operation=renew, link=link)
    return _enrolment(services, token, now)


def list_operators(services: Services) -> tuple[OperatorView, ...]:
    """Return every operator, by name."""
    with services.database.reading() as session:
        query = select(Operator).options(selectinload(Operator.roles)).order_by(Operator.name)
        counts = _count_passkeys(session)
        return tuple(_describe(services, session, row, counts) for row in session.scalars(query))


def get_operator(services: Services, operator: str) -> OperatorView:
    """Return the operator of an id or a name; NotFoundError if there is none."""
    with services.transaction() as session:
        return _describe(services, session, find_operator(session, operator))


def find_operator(session: Session, operator: str) -> Operator:
    """Return the row of an id or a name; NotFoundError if there is none."""
    row = session.get(Operator, operator)
    if row is None:
        row = session.scalar(select(Operator).where(Operator.name == operator))
    if row is None:
        raise NotFoundError(
            f"There is no operator {operator!r}. `authz-server operator list` shows them."
        )
    return row


def find_grants(services: Services, session: Session, operator_id: str) -> tuple[Grant, ...]:
    """Return what an enabled operator may do; nothing if there is none of that id.

    Args:
        services: the parts of the server.
        session: a database session.
        operator_id: the id of the operator.
    """
    row = session.get(Operator, operator_id)
    if row is None or not row.enabled:
        return ()
    assigned = ((each.role, limits_of_role(each)) for each in row.roles)
    return make_grants(services.settings, assigned)


def update_operator(
    services: Services,
    operator: str,
    *,
    actor: str,
    roles: Iterable[AssignedRole],
    acting_operator: str = "",
) -> OperatorView:
    """Replace the roles of an operator; sessions have them from the next request.

    Args:
        services: the parts of the server.
        operator: the id or the name.
        actor: the recorded actor.
        roles: the roles with their limits.
        acting_operator: the id of the operator that makes the change; empty for others.

    Raises:
        NotFoundError: there is no such operator.
        InvalidChangeError: a value breaks a rule.
        OwnOperatorError: it is the acting operator.
        ConflictError: it is the last enabled security officer.
    """
    now = services.corrected_clock()
    with services.transaction() as session:
        row = _locked(session, operator)
        require_other_operator(row, acting_operator, "changes your roles")
        wanted = tuple(roles)
        if SECURITY_OFFICER not in {each.role for each in wanted}:
            require_another_officer(session, row)
        before, seen = plain_roles(row.roles), _describe(services, session, row)
        replace_roles(services, session, row, wanted, now)
        session.flush()
        after = plain_roles(row.roles)
        if before != after:
            row.updated_at = now
            facts = {"before": before, "after": after}
            _audit(services, session, row, actor, "operator.roles_changed", **facts)
            note_roles(services, session, row, before, actor=actor, operation="update_operator")
        changed = _describe(services, session, row)
        record_difference(session, seen, changed, subject=row.name)
        return changed


def set_operator_enabled(
    services: Services, operator: str, *, actor: str, enabled: bool, acting_operator: str = ""
) -> OperatorView:
    """Enable or disable an operator; to disable ends all sessions and links at once.

    An operator who is enabled has the roles since then: they decide on later changes alone.

    Args:
        services: the parts of the server.
        operator: the id or the name.
        actor: the recorded actor.
        enabled: the new state.
        acting_operator: as for :func:`update_operator`.

    Raises:
        NotFoundError: there is no such operator.
        OwnOperatorError: the acting operator would be disabled.
        ConflictError: it is the last enabled security officer.
    """
    now = services.corrected_clock()
    with services.transaction() as session:
        row = _locked(session, operator)
        before = _describe(services, session, row)
        if not enabled:
            require_other_operator(row, acting_operator, "disables you")
            require_another_officer(session, row)
            _end_sessions(session, row.id)
        if row.enabled != enabled:
            row.enabled, row.updated_at = enabled, now
            action = "operator.enabled" if enabled else "operator.disabled"
            _audit(services, session, row, actor, action)
            if enabled:
                date_roles(services, session, row, now, actor=actor)
        after = _describe(services, session, row)
        record_difference(session, before, after, subject=row.name)
        return after


def delete_operator(
    services: Services, operator: str, *, actor: str, acting_operator: str = ""
) -> None:
    """Delete an operator with the roles, passkeys and sessions.

    Raises:
        NotFoundError: there is no such operator.
        OwnOperatorError: it is the acting operator.
        ConflictError: it is the last enabled security officer.
    """
    with services.transaction() as session:
        row = _locked(session, operator)
        require_other_operator(row, acting_operator, "deletes you")
        require_another_officer(session, row)
        before = _describe(services, session, row)
        _end_sessions(session, row.id)
        session.execute(delete(OperatorPasskey).where(OperatorPasskey.operator_id == row.id))
        _audit(services, session, row, actor, "operator.deleted")
        record_difference(session, before, None, subject=row.name)
        session.delete(row)
        session.flush()


def _enrolment(services: Services, token: str, now: datetime) -> Enrolment:
    return Enrolment(link=enrolment_link(services.settings, token), expires_at=now + VALID_FOR)


def _require_name(name: str) -> str:
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name):
        raise InvalidChangeError(
            f"name: use 1 to {MAXIMUM_NAME_CHARACTERS} letters, digits and . @ + _ -"
        )
    if _ID.fullmatch(name):
        # Where either names an operator, the id is looked for first.
        raise InvalidChangeError("name: it has the form of an operator's id")
    return name


def _locked(session: Session, operator: str) -> Operator:
    """Return the row of an id or a name, locked with the rows of all security officers.

    Of two that disable each other at the same time, the second one finds herself the last.
    """
    officers = select(OperatorRole.operator_id).where(OperatorRole.role == SECURITY_OFFICER)
    query = select(Operator.id).where(Operator.id.in_(officers)).order_by(Operator.id)
    session.execute(query.with_for_update())
    row = find_operator(session, operator)
    session.refresh(row, with_for_update=True)
    return row


def _end_sessions(session: Session, operator_id: str) -> None:
    for kind in (OperatorSession, OperatorEnrolment):
        session.execute(delete(kind).where(kind.operator_id == operator_id))


def _count_passkeys(session: Session) -> dict[str, int]:
    query = select(OperatorPasskey.operator_id, func.count()).group_by(OperatorPasskey.operator_id)
    return {name: count for name, count in session.execute(query)}  # noqa: C416 - typed rows


def _describe(
    services: Services,
    session: Session,
    row: Operator,
    counts: dict[str, int] | None = None,
) -> OperatorView:
    known = roles_of(services.settings)
    grants = make_grants(
        services.settings, ((each.role, limits_of_role(each)) for each in row.roles)
    )
    permissions = frozenset[str]().union(*(each.permissions for each in grants))
    if counts is None:
        counts = _count_passkeys(session)
    return OperatorView(
        id=row.id,
        name=row.name,
        state="enabled" if row.enabled else "disabled",
        roles=tuple(
            RoleView(
                role=each.role,
                resource_servers=tuple(each.resource_servers),
                organisations=tuple(each.organisations),
                granted_at=each.granted_at,
                known=each.role in known,
            )
            for each in sorted(row.roles, key=lambda role: role.role)
        ),
        permissions=tuple(sorted(permissions)),
        passkeys=counts.get(row.id, 0),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _audit(
    services: Services, session: Session, row: Operator, actor: str, action: str, **facts: object
) -> None:
    store_audit_record(
        session,
        at=services.corrected_clock(),
        actor=actor,
        action=action,
        subject=row.name,
        operator_id=row.id,
        **facts,
    )
