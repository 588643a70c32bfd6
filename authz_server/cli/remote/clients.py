"""The requests for clients and resource servers."""

from collections.abc import Mapping, Sequence
from typing import Any

from authz_server.cli.remote.api import AdminApi, convert
from authz_server.cli.remote.table import carries_out
from authz_server.clients.models import Kind
from authz_server.operations.client_orders import ClientSort
from authz_server.operations.client_search import (
    ClientFilters,
    FoundClient,
    FoundClients,
    find_clients,
)
from authz_server.operations.client_secrets import NewSecret
from authz_server.operations.client_views import ClientView
from authz_server.operations.clients import (
    ChangedClient,
    RegisteredClient,
    Switched,
    create_client,
    delete_client,
    get_client,
    set_enabled,
    update_client,
)
from authz_server.operations.resource_servers import (
    ChangedResourceServer,
    RegisteredResourceServer,
    ResourceServerView,
    create_resource_server,
    get_resource_server,
    list_resource_servers,
    update_resource_server,
)

#: The names of the two kinds in paths and permissions.
PATHS: Mapping[Kind, str] = {"client": "clients", "resource_server": "resource-servers"}


@carries_out(find_clients)
def _find_clients(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    filters: ClientFilters,
    *,
    sort: ClientSort = "id",
    descending: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> FoundClients:
    end = None if limit is None else offset + limit
    pages = api.pages(
        "clients:read",
        "clients",
        most=end,
        q=filters.text,
        organisation=filters.organisation,
        authentication_method=filters.authentication_method,
        scope=filters.scope,
        state=filters.state,
        unused_since=filters.unused_since,
        secret_ends_before=filters.secret_ends_before,
        sort=sort,
        descending=descending,
        total="exact" if limit == 0 else "false" if limit is None else "true",
    )
    items: list[Any] = []
    page: dict[str, Any] = {}
    for page in pages:
        items += page["items"]
    clients = tuple(convert(each, FoundClient) for each in items[offset:end])
    total, is_exact = page.get("total", 0), page.get("total_is_exact", True)
    if page["next"] is None:
        # The whole list was read.
        total, is_exact = len(items), True
    elif not is_exact:
        # More clients may be read than are counted.
        total = max(total, len(items))
    return FoundClients(clients=clients, total=total, is_exact=is_exact)


@carries_out(get_client)
def _get_client(api: AdminApi, client_id: str) -> ClientView:
    return api.read(ClientView, "clients:read", "clients", client_id)


@carries_out(create_client)
def _create_client(
    api: AdminApi,
    /,
    *,
    actor: str,
    imported_secret: bytes | None = None,
    **fields: Any,  # noqa: ANN401 - those of the operation
) -> RegisteredClient:
    del actor
    body = {**fields, "imported_secret": imported_secret and imported_secret.decode()}
    answer = api.create("clients:write", "clients", body=body)
    return RegisteredClient(
        client=convert(answer, ClientView),
        secret=_first_secret(answer),
        unowned_scopes=tuple(answer.get("unowned_scopes", ())),
    )


@carries_out(update_client)
def _update_client(
    api: AdminApi,
    /,
    client_id: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the operation
) -> ChangedClient:
    del actor
    answer = api.change("PATCH", "clients:write", "clients", client_id, body=changes)
    return ChangedClient(
        client=convert(answer, ClientView),
        changed=tuple(answer["diff"]),
        unowned_scopes=tuple(answer["unowned_scopes"]),
    )


@carries_out(set_enabled)
def _set_enabled(  # noqa: PLR0913 - those of the operation
    api: AdminApi,
    client_id: str,
    *,
    kind: Kind,
    actor: str,
    enabled: bool,
    revoke_tokens: bool = False,
) -> Switched:
    del actor
    item = (PATHS[kind], client_id)
    answer = api.change(
        "POST",
        f"{PATHS[kind]}:write",
        *item,
        "enable" if enabled else "disable",
        item=item,
        body={"revoke_tokens": revoke_tokens},
    )
    return Switched(
        id=client_id,
        enabled=enabled,
        changed=bool(answer["diff"]),
        tokens_revoked=revoke_tokens,
    )


@carries_out(delete_client)
def _delete_client(api: AdminApi, client_id: str, *, kind: Kind, actor: str) -> None:
    del actor
    api.change("DELETE", f"{PATHS[kind]}:write", PATHS[kind], client_id)


@carries_out(list_resource_servers)
def _list_resource_servers(api: AdminApi) -> tuple[ResourceServerView, ...]:
    return api.list(ResourceServerView, "resource-servers:read", "resource-servers")


@carries_out(get_resource_server)
def _get_resource_server(api: AdminApi, server_id: str) -> ResourceServerView:
    return api.read(ResourceServerView, "resource-servers:read", "resource-servers", server_id)


@carries_out(create_resource_server)
def _create_resource_server(
    api: AdminApi,
    /,
    *,
    actor: str,
    scopes: Sequence[str] = (),
    imported_secret: bytes | None = None,
    **fields: Any,  # noqa: ANN401 - those of the operation
) -> RegisteredResourceServer:
    del actor
    secret = imported_secret and imported_secret.decode()
    body = {**fields, "scopes": scopes, "imported_secret": secret}
    answer = api.create("resource-servers:write", "resource-servers", body=body)
    server = convert(answer, ResourceServerView)
    return RegisteredResourceServer(
        resource_server=server, assigned_scopes=server.scopes, secret=_first_secret(answer)
    )


@carries_out(update_resource_server)
def _update_resource_server(
    api: AdminApi,
    /,
    server_id: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the operation
) -> ChangedResourceServer:
    del actor
    answer = api.change(
        "PATCH", "resource-servers:write", "resource-servers", server_id, body=changes
    )
    return ChangedResourceServer(
        resource_server=convert(answer, ResourceServerView), changed=tuple(answer["diff"])
    )


def _first_secret(answer: Mapping[str, Any]) -> NewSecret | None:
    found = answer.get("secret")
    return None if found is None else convert({"value": "", **found}, NewSecret)
