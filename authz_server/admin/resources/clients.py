"""Clients: list, show, register, change, enable, disable and delete them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.pages import PageQuery
from authz_server.admin.problems import Problem
from authz_server.clients.models import Client, Kind
from authz_server.operations.caller_power import require_no_more_of_client
from authz_server.operations.client_orders import ClientOrder, ClientSort, Place
from authz_server.operations.client_search import (
    COUNTED,
    ClientFilters,
    sort_clients,
)
from authz_server.operations.client_secrets import NewSecret
from authz_server.operations.client_views import ClientView
from authz_server.operations.clients import (
    create_client,
    delete_client,
    get_client,
    set_enabled,
    update_client,
)
from authz_server.operations.limited_services import OutsideLimitsError, reach_of
from authz_server.operations.resource_servers import ResourceServerView
from authz_server.operations.scopes import get_scope, list_scopes

_MAXIMUM_ITEMS = 1_000

Instant = Annotated[datetime, Meta(tz=True)]
Names = Annotated[tuple[str, ...], Meta(max_length=_MAXIMUM_ITEMS)]
State = Literal["enabled", "disabled", "expired", "not yet"]


class ClientQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of clients.

    Attributes:
        q: a part of the id, the name, the organisation or an allowed scope.
        organisation: the whole organisation.
        authentication_method: the registered method.
        scope: an allowed scope, in any spelling.
        resource_server: the id of a resource server, of which a scope is allowed.
        state: the state.
        unused_since: the time since which it obtained no token; it is older than that.
        secret_ends_before: the time before which one of its active secrets ends.
        sort: the order; clients that were never used come first by ``last-used``.
        descending: whether the order is reversed.
        total: whether the answer has the number of clients in the whole list: ``true`` counts up to
            1,000, ``exact`` all of them.
    """

    q: Annotated[str, Meta(max_length=200)] = ""
    organisation: str | None = None
    authentication_method: str | None = None
    scope: str | None = None
    resource_server: str | None = None
    state: State | None = None
    unused_since: Instant | None = None
    secret_ends_before: Instant | None = None
    sort: ClientSort = "id"
    descending: bool = False
    total: bool | Literal["exact"] = False

    def filters(self) -> dict[str, Any]:
        """Return the parameters that select the clients: a cursor continues with any total."""
        return {**super().filters(), "total": False}


class ClientListMembers(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a list of clients has beside those of a list.

    Attributes:
        total: the number of clients in the whole list, or 1,000 if there are more; if it was
            asked for.
        total_is_exact: whether it is the number.
    """

    total: int | UnsetType = UNSET
    total_is_exact: bool | UnsetType = UNSET


class ClientChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a client to change; a list replaces the whole list.

    Properties are merged with those of the client; null removes one.
    """

    name: str | UnsetType = UNSET
    organisation: str | UnsetType = UNSET
    authentication_method: str | UnsetType = UNSET
    grant_types: Names | UnsetType = UNSET
    allowed_scopes: Names | UnsetType = UNSET
    default_scopes: Names | UnsetType = UNSET
    allowed_resource_servers: Names | UnsetType = UNSET
    permissions: Names | UnsetType = UNSET
    token_lifetime_seconds: int | UnsetType | None = UNSET
    g2p_answer: str | UnsetType = UNSET
    starts_at: Instant | UnsetType | None = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    properties: dict[str, Any] | UnsetType = UNSET


class NewClient(ClientChanges, frozen=True, kw_only=True):
    """A client to register; scopes may be given in any spelling.

    Attributes:
        id: its id; without one, one is generated.
        with_secret: add a first secret, if its method uses one.
        imported_secret: an existing secret to store as the first.
    """

    id: str | UnsetType = UNSET
    name: str
    allowed_scopes: Names
    with_secret: bool = True
    imported_secret: Annotated[str, Meta(max_length=1_000)] | UnsetType = UNSET


class Switch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Enables or disables a client.

    Attributes:
        revoke_tokens: revoke the tokens that were issued until now.
    """

    revoke_tokens: bool = False


class NewSecretView(msgspec.Struct, frozen=True, kw_only=True):
    """A new secret; ``value`` cannot be read again, and is absent if it was imported."""

    id: str
    expires_at: datetime | None
    value: str | UnsetType = UNSET


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """The members that the answer to a registration has beside those of the item.

    Attributes:
        secret: the first secret; null if there is none.
        unowned_scopes: its scopes without a resource server; requests for them are refused.
        secret_hint: how to add a secret; in the answer to a repeated request alone.
    """

    secret: NewSecretView | None = None
    unowned_scopes: tuple[str, ...] = ()
    secret_hint: str | UnsetType = UNSET


def list_clients(call: Call) -> Reply:
    """Answer a page of clients, by id unless another order is asked for."""
    query: ClientQuery = call.query
    scope, server = query.scope, query.resource_server
    owned = () if server is None else list_scopes(call.services, resource_server_id=server)
    filters = ClientFilters(
        text=query.q,
        organisation=query.organisation,
        authentication_method=query.authentication_method,
        scope=None if scope is None else get_scope(call.services, scope).name,
        one_of_scopes=None if server is None else tuple(each.name for each in owned),
        state=query.state,
        unused_since=query.unused_since,
        secret_ends_before=query.secret_ends_before,
        text_in_scopes=reach_of(call.services) is None,
    )
    # A page by id begins after an id alone, as those of earlier releases.
    is_by_id = query.sort == "id" and not query.descending
    found = sort_clients(
        call.services,
        filters,
        ClientOrder(query.sort, query.descending),
        after=_place(call.after()),
        limit=query.most + 1,
        most={False: 0, True: COUNTED, "exact": None}[query.total],
    )
    clients = [shown(call, each) for each in found.clients]
    page = call.page(clients, lambda each: each.id if is_by_id else found.places[each.id])
    if found.total is not None:
        page.body["total"], page.body["total_is_exact"] = found.total
    return page


def _place(after: Any) -> Place | None:  # noqa: ANN401 - of JSON
    """Return the place in a cursor, or none.

    Raises:
        Problem: ``invalid-cursor``: an earlier release made it.
    """
    if isinstance(after, int):
        raise Problem("invalid-cursor", "An earlier release made it: begin with the first page.")
    if isinstance(after, str):
        return Place(None, after)
    return None if after is None else Place(*after)


def load_client(call: Call) -> ClientView:
    """Return the client of the path; in a change, locked."""
    lock_client(call)
    return shown(call, get_client(call.services, call.parameters["client_id"]))


def show_client(call: Call) -> Reply:
    """Answer a client."""
    return Reply(load_client(call))


def register_client(call: Call) -> Reply:
    """Register a client, with its first secret."""
    fields = call.given(without=("imported_secret",))
    organisations = call.limits.organisations or ()
    if len(organisations) == 1:
        fields.setdefault("organisation", *organisations)
    done = create_client(
        call.services, actor=call.caller.actor, imported_secret=imported_secret(call), **fields
    )
    require_no_more_of_client(call.caller, done.client)
    members: dict[str, Any] = {
        "secret": shown_once(call, done.secret),
        "unowned_scopes": done.unowned_scopes,
    }
    client = done.client
    return Reply(client, members, subject=client.id, location=quote(client.id, safe=""))


def repeat_registration(call: Call, client_id: str) -> Reply:
    """Answer the client that an earlier request with the same key registered."""
    return repeated(shown(call, get_client(call.services, client_id)), "clients")


def repeated(party: ClientView | ResourceServerView, collection: str) -> Reply:
    """Return the reply to a repeated registration, whose secret is not shown again."""
    location = quote(party.id, safe="")
    hint = f"POST /admin/v1/{collection}/{location}/secrets adds a secret."
    return Reply(party, {"secret": None, "secret_hint": hint}, location=location)


def change_client(call: Call) -> Reply:
    """Change the fields of a client."""
    changed = update_client(
        call.services, call.parameters["client_id"], actor=call.caller.actor, **call.given()
    )
    require_no_more_of_client(call.caller, changed.client)
    return Reply(changed.client, {"unowned_scopes": changed.unowned_scopes})


def enable_client(call: Call) -> Reply:
    """Enable a client."""
    return _switch(call, enabled=True)


def disable_client(call: Call) -> Reply:
    """Disable a client: it gets no tokens, and its tokens are inactive."""
    return _switch(call, enabled=False)


def remove_client(call: Call) -> Reply:
    """Delete a client with its secrets, and revoke its tokens."""
    delete_client(
        call.services, call.parameters["client_id"], kind="client", actor=call.caller.actor
    )
    return Reply(None)


def lock_client(call: Call) -> None:
    """Lock the row of the path in a change, so that it stays as it was checked.

    Raises:
        MorePowerError: it has an administrative scope that the caller does not have.
        OutsideLimitsError: it does not lie within the limits of the caller alone.
    """
    if call.session is None:
        return
    key = call.parameters["client_id"]
    row = call.session.get(Client, key, with_for_update=True, populate_existing=True)
    if row is not None:
        require_own_row(call, row)
        require_no_more_of_client(call.caller, row)


def require_own_row(call: Call, row: Client) -> None:
    """Refuse a client of which the caller sees a part alone, or a resource server of others.

    Raises:
        OutsideLimitsError: it is one.
    """
    reach = reach_of(call.services)
    if reach is not None and not reach.owns_row(row):
        raise OutsideLimitsError(f"The {row.kind.replace('_', ' ')} {row.id!r}")


def shown(call: Call, client: ClientView) -> ClientView:
    """Return a client as the caller sees it."""
    reach = reach_of(call.services)
    return client if reach is None else reach.shown(client)


def imported_secret(call: Call) -> bytes | None:
    """Return the secret in the body to store."""
    given = call.body.imported_secret
    return None if given is UNSET else given.encode()


def shown_once(call: Call, secret: NewSecret | None) -> NewSecretView | None:
    """Return a new secret as the answer shows it; a dry run makes none."""
    if secret is None:
        return None
    value = UNSET if call.dry_run or not secret.value else secret.value
    return NewSecretView(id=secret.id, expires_at=secret.expires_at, value=value)


def switch(call: Call, kind: Kind, *, enabled: bool) -> None:
    """Enable or disable the party of the path."""
    set_enabled(
        call.services,
        call.parameters["client_id"],
        kind=kind,
        actor=call.caller.actor,
        enabled=enabled,
        revoke_tokens=call.body.revoke_tokens,
    )


def _switch(call: Call, *, enabled: bool) -> Reply:
    switch(call, "client", enabled=enabled)
    return Reply(get_client(call.services, call.parameters["client_id"]))
