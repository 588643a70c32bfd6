"""The requests for operators."""

from collections.abc import Iterable
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.operations.operator_roles import AssignedRole, list_roles
from authz_server.operations.operator_sessions import LoggedOut, end_sessions
from authz_server.operations.operators import (
    Enrolment,
    NewOperator,
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
from authz_server.operations.permissions import Role

_READ, _WRITE = "operators:read", "operators:write"


@carries_out(list_roles)
def _list_roles(api: AdminApi) -> tuple[Role, ...]:
    return api.list(Role, _READ, "roles")


@carries_out(list_operators)
def _list_operators(api: AdminApi) -> tuple[OperatorView, ...]:
    return api.list(OperatorView, _READ, "operators")


@carries_out(get_operator)
def _get_operator(api: AdminApi, operator: str) -> OperatorView:
    return api.read(OperatorView, _READ, "operators", operator)


@carries_out(create_operator)
def _create_operator(
    api: AdminApi,
    *,
    name: str,
    roles: Iterable[AssignedRole] = (),
    **others: Any,  # noqa: ANN401 - the actor, and what only the server has
) -> NewOperator:
    del others
    body = {"name": name, "roles": tuple(map(_role, roles))}
    answer = api.create(_WRITE, "operators", body=body)
    return NewOperator(
        operator=convert(answer, OperatorView), enrolment=convert(answer["enrolment"], Enrolment)
    )


@carries_out(update_operator)
def _update_operator(
    api: AdminApi,
    operator: str,
    *,
    roles: Iterable[AssignedRole],
    **others: Any,  # noqa: ANN401 - the actor, whom the server knows
) -> OperatorView:
    del others
    body = {"roles": tuple(map(_role, roles))}
    return convert(api.change("PATCH", _WRITE, "operators", operator, body=body), OperatorView)


@carries_out(set_operator_enabled)
def _set_operator_enabled(
    api: AdminApi,
    operator: str,
    *,
    enabled: bool,
    **others: Any,  # noqa: ANN401 - the actor, whom the server knows
) -> OperatorView:
    del others
    item = ("operators", operator)
    verb = "enable" if enabled else "disable"
    return convert(api.change("POST", _WRITE, *item, verb, item=item, body={}), OperatorView)


@carries_out(delete_operator)
def _delete_operator(
    api: AdminApi,
    operator: str,
    **others: Any,  # noqa: ANN401 - the actor, whom the server knows
) -> None:
    del others
    api.change("DELETE", _WRITE, "operators", operator)


@carries_out(renew_enrolment)
def _renew_enrolment(
    api: AdminApi,
    operator: str,
    **others: Any,  # noqa: ANN401 - the actor, and what only the server has
) -> Enrolment:
    del others
    answer = api.create(_WRITE, "operators", operator, "enrolments", body={})
    return convert(answer, Enrolment)


def _role(role: AssignedRole) -> dict[str, Any]:
    return {
        "role": role.role,
        "resource_servers": role.resource_servers,
        "organisations": role.organisations,
    }


@carries_out(end_sessions)
def _end_sessions(api: AdminApi, operator: str, *, actor: str) -> LoggedOut:
    del actor
    return convert(api.post(_WRITE, "operators", operator, "log-out", body={}), LoggedOut)


@carries_out(list_passkeys)
def _list_passkeys(api: AdminApi, operator: str) -> tuple[PasskeyView, ...]:
    return api.list(PasskeyView, _READ, "operators", operator, "passkeys")


@carries_out(remove_passkey)
def _remove_passkey(
    api: AdminApi,
    operator: str,
    passkey_id: str,
    **others: Any,  # noqa: ANN401 - the actor, whom the server knows
) -> None:
    del others
    api.change("DELETE", _WRITE, "operators", operator, "passkeys", passkey_id)
