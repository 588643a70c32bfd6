"""Scopes: list, show, add, change, delete, import and assign them."""

from dataclasses import replace
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType

from authz_server.admin.calls import Call, Reply
from authz_server.admin.pages import PageQuery
from authz_server.admin.resources.clients import Names
from authz_server.errors import InvalidChangeError
from authz_server.operations.limited_services import reach_of
from authz_server.operations.scope_changes import delete_scope, update_scope
from authz_server.operations.scopes import (
    ScopeView,
    add_scope,
    assign_scopes,
    get_scope,
    import_g2p_connect,
    list_scopes,
    page_scopes,
)
from authz_server.scopes.definition import Risk
from authz_server.scopes.models import Scope

_MAXIMUM_SECONDS = 2**31 - 1


class ScopeQuery(PageQuery, frozen=True, kw_only=True):
    """The parameters of the list of scopes.

    Attributes:
        q: a part of the name, an alias or the description; the case of letters does not count.
        resource_server: the id of the resource server that owns them.
        risk: their risk.
    """

    q: Annotated[str, Meta(max_length=200)] = ""
    resource_server: str | None = None
    risk: Risk | None = None


class NewScope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scope to add.

    Attributes:
        name: its canonical name.
        description: what it permits.
        resource_server: the id of the resource server that owns it; null: it has no owner.
        risk: the harm that its misuse can do.
        lifetime_cap_seconds: the longest lifetime of a token with it; null: no limit.
        aliases: its other spellings.
        callback_partner: the scope of the operation that answers this one.
    """

    name: Annotated[str, Meta(min_length=1)]
    description: str = ""
    resource_server: str | None = None
    risk: Risk = "write"
    lifetime_cap_seconds: Annotated[int, Meta(ge=1, le=_MAXIMUM_SECONDS)] | None = None
    aliases: Names = ()
    callback_partner: str | None = None


class ScopeChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The members of a scope to change.

    Attributes:
        description: what it permits.
        risk: the harm that its misuse can do.
        lifetime_cap_seconds: the longest lifetime of a token with it; null: no limit.
        aliases: its other spellings, which replace the present ones; tokens with one that is gone
            are revoked.
        callback_partner: the scope of the operation that answers this one; null: none.
    """

    description: str | UnsetType = UNSET
    risk: Risk | UnsetType = UNSET
    lifetime_cap_seconds: Annotated[int, Meta(ge=1, le=_MAXIMUM_SECONDS)] | UnsetType | None = UNSET
    aliases: Names | UnsetType = UNSET
    callback_partner: str | UnsetType | None = UNSET


class Owner(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The owner of a scope.

    Attributes:
        resource_server: the id of the resource server that is to own it; null: none.
        take_over: take it away from its present owner.
    """

    resource_server: str | None
    take_over: bool = False


class Assignment(Owner, frozen=True, kw_only=True):
    """The owner of several scopes.

    Attributes:
        scopes: the scopes, in any spelling; a trailing ``/*`` stands for all scopes below.
    """

    scopes: Names


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """The scopes whose owner changed, by canonical name."""

    resource_server: str | None
    changed: tuple[str, ...]


class CatalogueName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shipped catalogue of scopes."""

    catalogue: Literal["g2p-connect"]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """The names of the scopes that an import added, updated and left unchanged."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]


def list_all(call: Call) -> Reply:
    """Answer a page of scopes, by name."""
    query: ScopeQuery = call.query
    text, server = query.q.casefold(), query.resource_server
    if not text and query.risk is None:
        page = page_scopes(
            call.services, resource_server_id=server, after=call.after(), limit=query.most + 1
        )
        return call.page([_shown(call, each) for each in page], lambda scope: scope.name)
    found = [
        _shown(call, each)
        for each in list_scopes(call.services, resource_server_id=server)
        if text in "\n".join((each.name, each.description, *each.aliases)).casefold()
        and query.risk in {None, each.risk}
    ]
    return call.page(found, lambda scope: scope.name, whole=True)


def load(call: Call) -> ScopeView:
    """Return the scope of the path; in a change, locked."""
    found = get_scope(call.services, call.parameters["scope"])
    if call.session is None:
        return _shown(call, found)
    call.session.get(Scope, found.name, with_for_update=True, populate_existing=True)
    return get_scope(call.services, found.name)


def show(call: Call) -> Reply:
    """Answer a scope."""
    return Reply(load(call))


def add(call: Call) -> Reply:
    """Add a scope."""
    body: NewScope = call.body
    fields = call.given(without=("resource_server",))
    added = add_scope(
        call.services,
        actor=call.caller.actor,
        resource_server_id=body.resource_server,
        **fields,
    )
    return Reply(added, subject=added.name, location=quote(added.name, safe=""))


def repeat(call: Call, name: str) -> Reply:
    """Answer the scope that an earlier request with the same key added."""
    return Reply(_shown(call, get_scope(call.services, name)), location=quote(name, safe=""))


def change(call: Call) -> Reply:
    """Change the facts of a scope; its owner is changed by an assignment."""
    spelling, changes = call.parameters["scope"], call.given()
    changed = update_scope(call.services, spelling, actor=call.caller.actor, **changes)
    if spelling not in {changed.name, *changed.aliases}:
        raise InvalidChangeError(
            f"aliases: the request names the scope by the one that it removes: use {changed.name}"
        )
    return Reply(changed)


def remove(call: Call) -> Reply:
    """Delete a scope, whose tokens end; one that a client may ask for is kept."""
    delete_scope(call.services, call.parameters["scope"], actor=call.caller.actor)
    return Reply(None)


def assign(call: Call) -> Reply:
    """Give a scope to a resource server, or to none."""
    body: Owner = call.body
    name = call.parameters["scope"]
    _assign(call, (name,), body)
    return Reply(get_scope(call.services, name))


def assign_several(call: Call) -> Reply:
    """Give several scopes to a resource server, or to none."""
    body: Assignment = call.body
    changed = _assign(call, body.scopes, body)
    diff = {"resource_server": dict.fromkeys(changed, body.resource_server)}
    done = Assigned(resource_server=body.resource_server, changed=changed)
    return Reply(done, diff=diff)


def import_catalogue(call: Call) -> Reply:
    """Import a shipped catalogue of scopes."""
    result = import_g2p_connect(call.services, actor=call.caller.actor)
    done = Imported(added=result.added, updated=result.updated, unchanged=result.unchanged)
    return Reply(done, diff={"added": result.added, "updated": result.updated})


def _shown(call: Call, scope: ScopeView) -> ScopeView:
    """Return a scope as the caller sees it: its clients may have scopes of others."""
    reach = reach_of(call.services)
    if reach is None or scope.resource_server in {None, *reach.seen_servers}:
        return scope
    return replace(scope, resource_server=None)


def _assign(call: Call, names: tuple[str, ...], body: Owner) -> tuple[str, ...]:
    return assign_scopes(
        call.services,
        names,
        body.resource_server,
        actor=call.caller.actor,
        take_over=body.take_over or body.resource_server is None,
    )
