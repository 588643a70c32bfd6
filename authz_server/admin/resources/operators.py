"""Operators: list, show, create, change, disable, enable and delete them."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.resources.clients import Instant, Names
from authz_server.errors import NotFoundError
from authz_server.operations.caller_power import require_no_more_of_roles
from authz_server.operations.operator_roles import AssignedRole
from authz_server.operations.operator_sessions import end_sessions
from authz_server.operations.operators import (
    Enrolment,
    OperatorView,
    create_operator,
    delete_operator,
    get_operator,
    list_operators,
    renew_enrolment,
    set_operator_enabled,
    update_operator,
)
from authz_server.operations.passkeys import PasskeyView, list_passkeys, remove_passkey
from authz_server.operations.permissions import roles_of

_MAXIMUM_ROLES = 20


class RoleBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A role to give to an operator.

    Attributes:
        role: its name.
        resource_servers: the ids of the resource servers that it is limited to; empty: all.
        organisations: the organisations that it is limited to; empty: all.
    """

    role: Annotated[str, Meta(min_length=1, max_length=40)]
    resource_servers: Names = ()
    organisations: Names = ()


class OperatorChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The roles of an operator, which replace the present ones."""

    roles: Annotated[tuple[RoleBody, ...], Meta(max_length=_MAXIMUM_ROLES)]


class NewOperatorBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An operator to create.

    Attributes:
        name: the name, as records have it.
        roles: the roles with their limits.
    """

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    roles: Annotated[tuple[RoleBody, ...], Meta(max_length=_MAXIMUM_ROLES)] = ()


class EnrolmentView(msgspec.Struct, frozen=True, kw_only=True):
    """A link by which an operator enrols a passkey, once.

    Attributes:
        link: the address, which cannot be read again; absent in a dry run, and in the answer to a
            repeated request.
        expires_at: the time after which it cannot be used.
    """

    link: str | UnsetType = UNSET
    expires_at: Instant


class EnrolmentMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a new link has beside those of the link.

    Attributes:
        enrolment_hint: how to get another link; in the answer to a repeated request alone.
    """

    enrolment_hint: str | UnsetType = UNSET


class CreatedOperator(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a creation has beside those of the operator.

    Attributes:
        enrolment: the link for the first passkey; null in the answer to a repeated request.
        enrolment_hint: how to get another link; in the answer to a repeated request alone.
    """

    enrolment: EnrolmentView | None = None
    enrolment_hint: str | UnsetType = UNSET


class RoleDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A role that operators may have.

    Attributes:
        name: its name.
        limited: whether it ``may`` or ``must`` be limited, or ``never`` is.
        permissions: what it permits.
    """

    name: str
    limited: str
    permissions: tuple[str, ...]


def list_roles(call: Call) -> Reply:
    """Answer a page of the roles that operators may have, by name."""
    found = [
        RoleDescription(
            name=each.name, limited=each.limited, permissions=tuple(sorted(each.permissions))
        )
        for each in roles_of(call.services.settings).values()
    ]
    return call.page(sorted(found, key=_name_of), _name_of, whole=True)


def list_all_passkeys(call: Call) -> Reply:
    """Answer a page of the passkeys of an operator, by id."""
    found = list_passkeys(call.services, call.parameters["operator"])
    return call.page(found, lambda each: each.id, whole=True)


def load_passkey(call: Call) -> PasskeyView:
    """Return the passkey of the path."""
    passkey_id = call.parameters["passkey"]
    for each in list_passkeys(call.services, call.parameters["operator"]):
        if each.id == passkey_id:
            return each
    raise NotFoundError(f"There is no passkey {passkey_id!r}.")


def show_passkey(call: Call) -> Reply:
    """Answer a passkey of an operator."""
    return Reply(load_passkey(call))


def remove_one_passkey(call: Call) -> Reply:
    """Remove a passkey of an operator, and end all sessions of the operator."""
    operator, passkey_id = call.parameters["operator"], call.parameters["passkey"]
    remove_passkey(
        call.services,
        operator,
        passkey_id,
        actor=call.caller.actor,
        acting_operator=call.caller.operator_id,
    )
    return Reply(None)


def list_all(call: Call) -> Reply:
    """Answer a page of operators, by name."""
    return call.page(list_operators(call.services), lambda each: each.name, whole=True)


def load(call: Call) -> OperatorView:
    """Return the operator of the path."""
    return get_operator(call.services, call.parameters["operator"])


def show(call: Call) -> Reply:
    """Answer an operator."""
    return Reply(load(call))


def create(call: Call) -> Reply:
    """Create an operator; the answer has the link for the first passkey, once."""
    body: NewOperatorBody = call.body
    roles = _roles(call, body.roles)
    done = create_operator(call.services, actor=call.caller.actor, name=body.name, roles=roles)
    members = {"enrolment": _shown_once(call, done.enrolment)}
    name = done.operator.name
    return Reply(done.operator, members, subject=name, location=quote(name, safe=""))


def repeat(call: Call, name: str) -> Reply:
    """Answer the operator that an earlier request with the same key created."""
    location = quote(name, safe="")
    members: dict[str, Any] = {"enrolment": None, "enrolment_hint": _hint(location)}
    return Reply(get_operator(call.services, name), members, location=location)


def change(call: Call) -> Reply:
    """Replace the roles of an operator."""
    body: OperatorChanges = call.body
    changed = update_operator(
        call.services,
        call.parameters["operator"],
        actor=call.caller.actor,
        roles=_roles(call, body.roles),
        acting_operator=call.caller.operator_id,
    )
    return Reply(changed)


def enable(call: Call) -> Reply:
    """Enable an operator."""
    return _switch(call, enabled=True)


def disable(call: Call) -> Reply:
    """Disable an operator, and end all sessions and links at once."""
    return _switch(call, enabled=False)


def remove(call: Call) -> Reply:
    """Delete an operator with the roles, passkeys and sessions."""
    delete_operator(
        call.services,
        call.parameters["operator"],
        actor=call.caller.actor,
        acting_operator=call.caller.operator_id,
    )
    return Reply(None)


def enrol(call: Call) -> Reply:
    """Answer a new link by which an operator enrols a passkey; an earlier link ends."""
    require_no_more_of_roles(call.services, call.caller, (each.role for each in load(call).roles))
    link = renew_enrolment(call.services, call.parameters["operator"], actor=call.caller.actor)
    diff = {"enrolment": {"before": None, "after": "issued"}}
    return Reply(_shown_once(call, link), subject=link.expires_at.isoformat(), diff=diff)


def repeat_enrolment(call: Call, expires_at: str) -> Reply:
    """Answer when the link ends that an earlier request with the same key issued."""
    # The operator may have been deleted meanwhile.
    hint = _hint(quote(load(call).name, safe=""))
    link = EnrolmentView(expires_at=datetime.fromisoformat(expires_at))
    return Reply(link, {"enrolment_hint": f"{hint} Use another key."})


def log_out(call: Call) -> Reply:
    """End all sessions of an operator, or of a person of the OpenID Connect provider."""
    done = end_sessions(call.services, call.parameters["operator"], actor=call.caller.actor)
    return Reply(done, diff={"sessions": {"before": done.sessions, "after": 0}})


def _switch(call: Call, *, enabled: bool) -> Reply:
    if enabled:
        roles = (each.role for each in load(call).roles)
        require_no_more_of_roles(call.services, call.caller, roles)
    switched = set_operator_enabled(
        call.services,
        call.parameters["operator"],
        actor=call.caller.actor,
        enabled=enabled,
        acting_operator=call.caller.operator_id,
    )
    return Reply(switched)


def _roles(call: Call, bodies: tuple[RoleBody, ...]) -> tuple[AssignedRole, ...]:
    require_no_more_of_roles(call.services, call.caller, (each.role for each in bodies))
    return tuple(
        AssignedRole(
            role=each.role,
            resource_servers=each.resource_servers,
            organisations=each.organisations,
        )
        for each in bodies
    )


def _shown_once(call: Call, enrolment: Enrolment) -> EnrolmentView:
    link = UNSET if call.dry_run else enrolment.link
    return EnrolmentView(link=link, expires_at=enrolment.expires_at)


def _hint(location: str) -> str:
    return f"POST /admin/v1/operators/{location}/enrolments answers a new link."


def _name_of(role: RoleDescription) -> str:
    return role.name
