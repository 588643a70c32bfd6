"""Resource servers: list, show, register, change, enable, disable and delete them."""

from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.pages import PageQuery
from authz_server.admin.resources.clients import (
    Names,
    imported_secret,
    lock_client,
    repeated,
    shown_once,
    switch,
)
from authz_server.clients.models import Kind
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.errors import ConflictError
from authz_server.operations.clients import delete_client
from authz_server.operations.limited_services import reach_of
from authz_server.operations.resource_servers import (
    ResourceServerView,
    create_resource_server,
    get_resource_server,
    list_resource_servers,
    page_resource_servers,
    update_resource_server,
)

_KIND: Kind = "resource_server"


class ResourceServerQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of resource servers.

    Attributes:
        q: a part of the id, the name or the identifier; the case of letters does not count.
    """

    q: Annotated[str, Meta(max_length=200)] = ""


class ResourceServerChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a resource server to change."""

    name: str | UnsetType = UNSET
    identifier: str | UnsetType = UNSET
    organisation: str | UnsetType = UNSET
    authentication_method: str | UnsetType = UNSET
    token_format: str | UnsetType = UNSET
    signing_ring: str | UnsetType | None = UNSET
    token_type: str | UnsetType = UNSET
    introspection_audience: str | UnsetType = UNSET
    permissions: Names | UnsetType = UNSET
    properties: dict[str, Any] | UnsetType = UNSET


class NewResourceServer(ResourceServerChanges, frozen=True, kw_only=True):
    """A resource server to register.

    Attributes:
        id: its id; without one, one is generated.
        scopes: scopes that it owns, in any spelling; a trailing ``/*`` stands for all below.
        take_over: take scopes away from another owner.
        with_secret: add a first secret, if its method uses one.
        imported_secret: an existing secret to store as the first.
    """

    id: str | UnsetType = UNSET
    name: str
    identifier: str
    scopes: Names = ()
    take_over: bool = False
    with_secret: bool = True
    imported_secret: Annotated[str, Meta(max_length=1_000)] | UnsetType = UNSET


def list_servers(call: Call) -> Reply:
    """Answer a page of resource servers, by id."""
    query: ResourceServerQuery = call.query
    text = query.q.casefold()
    if not text:
        page = page_resource_servers(call.services, after=call.after(), limit=query.most + 1)
        return call.page([_shown(call, each) for each in page], lambda server: server.id)
    found = [
        each
        for each in map(partial(_shown, call), list_resource_servers(call.services))
        if text in f"{each.id}\n{each.name}\n{each.identifier}".casefold()
    ]
    return call.page(found, lambda server: server.id, whole=True)


def load_server(call: Call) -> ResourceServerView:
    """Return the resource server of the path; in a change, locked."""
    lock_client(call)
    return _shown(call, get_resource_server(call.services, call.parameters["client_id"]))


def show_server(call: Call) -> Reply:
    """Answer a resource server."""
    return Reply(load_server(call))


def register_server(call: Call) -> Reply:
    """Register a resource server, with its scopes and its first secret."""
    fields = call.given(without=("imported_secret",))
    done = create_resource_server(
        call.services, actor=call.caller.actor, imported_secret=imported_secret(call), **fields
    )
    server = done.resource_server
    members = {"secret": shown_once(call, done.secret)}
    return Reply(server, members, subject=server.id, location=quote(server.id, safe=""))


def repeat_server(call: Call, server_id: str) -> Reply:
    """Answer the resource server that an earlier request with the same key registered."""
    server = _shown(call, get_resource_server(call.services, server_id))
    return repeated(server, "resource-servers")


def change_server(call: Call) -> Reply:
    """Change the fields of a resource server."""
    if "identifier" in call.given():
        _require_not_admin(call)
    changed = update_resource_server(
        call.services, call.parameters["client_id"], actor=call.caller.actor, **call.given()
    )
    return Reply(changed.resource_server)


def enable_server(call: Call) -> Reply:
    """Enable a resource server."""
    return _switch(call, enabled=True)


def disable_server(call: Call) -> Reply:
    """Disable a resource server: it can introspect no token."""
    return _switch(call, enabled=False)


def remove_server(call: Call) -> Reply:
    """Delete a resource server with its secrets; its scopes then have no owner."""
    _require_not_admin(call)
    delete_client(call.services, call.parameters["client_id"], kind=_KIND, actor=call.caller.actor)
    return Reply(None)


def _require_not_admin(call: Call) -> None:
    """Refuse a change by which others could take the scopes of the admin API.

    Raises:
        ConflictError: the resource server is the admin API.
    """
    if load_server(call).identifier == ADMIN_IDENTIFIER:
        raise ConflictError(
            "This is the admin API itself: the command line on the server changes its identifier "
            "or deletes it."
        )


def _shown(call: Call, server: ResourceServerView) -> ResourceServerView:
    """Return a resource server as the caller sees it."""
    reach = reach_of(call.services)
    return server if reach is None else reach.shown_server(server)


def _switch(call: Call, *, enabled: bool) -> Reply:
    switch(call, _KIND, enabled=enabled)
    return Reply(get_resource_server(call.services, call.parameters["client_id"]))
