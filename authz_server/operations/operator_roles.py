"""Roles of operators, and the rules by which they are given."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.registrations import is_resource_server
from authz_server.clients.secret_changes import PreparedSecret
from authz_server.clients.validation import require_text
from authz_server.database.operators import Operator, OperatorRole
from authz_server.errors import ConflictError, InvalidChangeError, OperatorError
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.permissions import Limits, Role, make_limits, roles_of
from authz_server.operations.views import revision_of
from authz_server.settings.approvals import CHANGE_ROLE

SECURITY_OFFICER = "security-officer"
_MAXIMUM_LIMITS = 200


class OwnOperatorError(OperatorError):
    """Operators change their own roles, or disable or delete themselves.

    Args:
        act: the act in the third person, with its object.
    """

    def __init__(self, act: str) -> None:
        super().__init__(f"Another operator {act}.")


def list_roles(services: Services) -> tuple[Role, ...]:
    """Return the roles that operators may have, by name."""
    return tuple(sorted(roles_of(services.settings).values(), key=lambda role: role.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedRole:
    """A role to give to an operator; an empty list does not limit.

    Attributes:
        role: its name.
        resource_servers: the ids of the resource servers that it is limited to.
        organisations: the organisations that it is limited to.
    """

    role: str
    resource_servers: tuple[str, ...] = ()
    organisations: tuple[str, ...] = ()

    @property
    def limits(self) -> Limits:
        """The limits of the role."""
        return make_limits(self.resource_servers, self.organisations)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleView(AssignedRole):
    """A role of an operator.

    Attributes:
        granted_at: the time since which the operator has it in this form.
        known: whether the settings have the role; it grants nothing otherwise.
    """

    granted_at: datetime
    known: bool


def replace_roles(
    services: Services,
    session: Session,
    row: Operator,
    roles: Iterable[AssignedRole],
    now: datetime,
) -> None:
    """Replace the roles of an operator; one that stays in the same form keeps its time.

    Args:
        services: the parts of the server.
        session: the transaction.
        row: the operator.
        roles: the roles with their limits.
        now: the present time.

    Raises:
        InvalidChangeError: a role breaks a rule.
    """
    wanted = {each.role: each for each in _checked_roles(services, session, roles)}
    for held in list(row.roles):
        each = wanted.get(held.role)
        if each is None:
            row.roles.remove(held)
            continue
        del wanted[held.role]
        if limits_of_role(held) != each.limits:
            held.resource_servers = list(each.resource_servers)
            held.organisations = list(each.organisations)
            held.granted_at = now
    for each in wanted.values():
        row.roles.append(
            OperatorRole(
                role=each.role,
                resource_servers=list(each.resource_servers),
                organisations=list(each.organisations),
                granted_at=now,
            )
        )


def limits_of_role(role: OperatorRole) -> Limits:
    """Return the limits of a stored role."""
    return make_limits(role.resource_servers, role.organisations)


def plain_roles(roles: Iterable[OperatorRole]) -> list[dict[str, object]]:
    """Return stored roles as a record has them, by name."""
    return [
        {
            "role": each.role,
            "resource_servers": list(each.resource_servers),
            "organisations": list(each.organisations),
        }
        for each in sorted(roles, key=lambda role: role.role)
    ]


def note_roles(  # noqa: PLR0913 - the facts of an act, by name
    services: Services,
    session: Session,
    row: Operator,
    before: Sequence[Mapping[str, object]],
    *,
    actor: str,
    operation: str,
    link: PreparedSecret | None = None,
) -> None:
    """Note roles, a link for a passkey, or an enabled operator, which may need a second person.

    Args:
        services: the parts of the server.
        session: the transaction.
        row: the operator, after the change.
        before: the roles before, as :func:`plain_roles` returns them.
        actor: the recorded actor.
        operation: ``create_operator``, ``update_operator``, ``renew_enrolment`` or
            ``set_operator_enabled``, which enables.
        link: the link that is issued.
    """
    after = plain_roles(row.roles)
    if not (before or after):
        return
    creates = operation == "create_operator"
    arguments: dict[str, object] = {"name" if creates else "operator": row.name}
    if operation == "set_operator_enabled":
        arguments["enabled"] = True
        diff: dict[str, object] = {"state": {"before": "disabled", "after": "enabled"}}
    elif before == after:
        diff = {"enrolment": {"before": None, "after": "issued"}}
    else:
        arguments["roles"] = after
        diff = {"roles": {"before": before, "after": after}}
    act = NotedAct(
        acts=(CHANGE_ROLE,),
        actor=actor,
        operation=operation,
        arguments=arguments,
        subject=f"operator:{row.name}",
        basis="" if creates else revision_of((row.id, row.enabled, before)),
        diff=diff,
        secret=link,
    )
    note_act(services, session, act)


def date_roles(
    services: Services, session: Session, row: Operator, now: datetime, *, actor: str
) -> None:
    """Give the roles of an operator who is enabled the present time, and note the act.

    Args:
        services: the parts of the server.
        session: the transaction.
        row: the operator, after the change.
        now: the present time.
        actor: the recorded actor.
    """
    for each in row.roles:
        each.granted_at = now
    held = plain_roles(row.roles)
    note_roles(services, session, row, held, actor=actor, operation="set_operator_enabled")


def _checked_roles(
    services: Services, session: Session, roles: Iterable[AssignedRole]
) -> Sequence[AssignedRole]:
    known = roles_of(services.settings)
    checked: list[AssignedRole] = []
    for each in roles:
        if each.role not in known:
            raise InvalidChangeError(
                f"roles: there is no role {each.role!r}; there are {', '.join(sorted(known))}"
            )
        if each.role in {other.role for other in checked}:
            raise InvalidChangeError(f"roles: {each.role} is named twice")
        _require_limits(session, known[each.role], each)
        checked.append(each)
    _require_mergeable(known, checked)
    return checked


def _require_limits(session: Session, role: Role, assigned: AssignedRole) -> None:
    servers, organisations = assigned.resource_servers, assigned.organisations
    if max(len(servers), len(organisations)) > _MAXIMUM_LIMITS:
        raise InvalidChangeError(f"roles: name at most {_MAXIMUM_LIMITS} for one role")
    if role.limited == "must" and not servers:
        raise InvalidChangeError(f"roles: {role.name} needs the resource servers that it is for")
    if role.limited == "never" and assigned.limits:
        raise InvalidChangeError(f"roles: {role.name} is for the whole server, without limits")
    for server_id in servers:
        if not is_resource_server(session, server_id):
            raise InvalidChangeError(f"roles: there is no resource server {server_id!r}")
    for organisation in organisations:
        require_text("roles", organisation)


def _require_mergeable(known: Mapping[str, Role], roles: Sequence[AssignedRole]) -> None:
    """Refuse two roles that permit the same within limits of different kinds.

    Limits of different kinds narrow each other, so that a further role would take rights away.
    """
    for one, other in combinations([each for each in roles if each.limits], 2):
        shared = known[one.role].permissions & known[other.role].permissions
        same = one.limits == other.limits
        of_servers = not (one.organisations or other.organisations)
        of_organisations = not (one.resource_servers or other.resource_servers)
        if shared and not (same or of_servers or of_organisations):
            raise InvalidChangeError(
                f"roles: {one.role} and {other.role} both permit {min(shared)}; limit both by"
                " resource servers, or both by organisations"
            )


def require_other_operator(row: Operator, acting_operator: str, act: str) -> None:
    """Refuse an act of an operator on herself.

    Args:
        row: the operator that the act concerns.
        acting_operator: the id of the operator that acts; empty for others.
        act: as for :class:`OwnOperatorError`.

    Raises:
        OwnOperatorError: both are the same.
    """
    if acting_operator and row.id == acting_operator:
        raise OwnOperatorError(act)


def require_another_officer(session: Session, row: Operator) -> None:
    """Refuse to lose the last enabled security officer.

    Raises:
        ConflictError: the operator is that.
    """
    if not row.enabled or SECURITY_OFFICER not in {each.role for each in row.roles}:
        return
    another = (
        select(Operator.id)
        .join(OperatorRole, OperatorRole.operator_id == Operator.id)
        .where(OperatorRole.role == SECURITY_OFFICER, Operator.enabled, Operator.id != row.id)
        .limit(1)
    )
    if session.scalar(another) is None:
        raise ConflictError(
            f"{row.name} is the last enabled security officer: give this role to another"
            " operator first."
        )
