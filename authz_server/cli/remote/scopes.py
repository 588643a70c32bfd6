"""The requests for scopes."""

from collections.abc import Sequence
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.operations.scope_changes import delete_scope, update_scope
from authz_server.operations.scopes import (
    ScopeView,
    add_scope,
    assign_scopes,
    get_scope,
    import_g2p_connect,
    list_scopes,
)
from authz_server.scopes.service import ImportResult

_READ, _WRITE = "scopes:read", "scopes:write"


@carries_out(import_g2p_connect)
def _import_g2p_connect(api: AdminApi, *, actor: str) -> ImportResult:
    del actor
    answer = api.post(_WRITE, "scopes", "imports", body={"catalogue": "g2p-connect"})
    return convert(answer, ImportResult)


@carries_out(list_scopes)
def _list_scopes(api: AdminApi, *, resource_server_id: str | None = None) -> tuple[ScopeView, ...]:
    return api.list(ScopeView, _READ, "scopes", resource_server=resource_server_id)


@carries_out(get_scope)
def _get_scope(api: AdminApi, spelling: str) -> ScopeView:
    return api.read(ScopeView, _READ, "scopes", spelling)


@carries_out(add_scope)
def _add_scope(
    api: AdminApi,
    /,
    *,
    actor: str,
    **fields: Any,  # noqa: ANN401 - those of the operation
) -> ScopeView:
    del actor
    body = {**fields, "resource_server": fields.pop("resource_server_id", None)}
    body.pop("resource_server_id", None)
    return convert(api.create(_WRITE, "scopes", body=body), ScopeView)


@carries_out(assign_scopes)
def _assign_scopes(
    api: AdminApi,
    names: Sequence[str],
    resource_server_id: str | None,
    *,
    actor: str,
    take_over: bool,
) -> tuple[str, ...]:
    del actor
    body = {"scopes": names, "resource_server": resource_server_id, "take_over": take_over}
    # Null is a value here: the scopes lose their owner.
    answer = api.answer("POST", _WRITE, ("scopes", "assignments"), body=body)
    return tuple(answer["changed"])


@carries_out(update_scope)
def _update_scope(
    api: AdminApi,
    /,
    name: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the operation
) -> ScopeView:
    del actor
    return convert(api.change("PATCH", _WRITE, "scopes", name, body=changes), ScopeView)


@carries_out(delete_scope)
def _delete_scope(api: AdminApi, name: str, *, actor: str) -> None:
    del actor
    api.change("DELETE", _WRITE, "scopes", name)
