"""Change and delete single scopes."""

from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference, record_diff
from authz_server.clients.models import Client, ResourceServer
from authz_server.clients.registrations import ADMIN_IDENTIFIER
from authz_server.errors import ConflictError
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.client_acts import find_organisation
from authz_server.operations.limited_services import OutsideLimitsError, reach_of
from authz_server.operations.scope_acts import find_held_scopes, find_scope_acts
from authz_server.operations.scope_holders import find_holder, name_holder
from authz_server.operations.scopes import ScopeView, describe_scope
from authz_server.operations.views import revision_of
from authz_server.settings.approvals import Act
from authz_server.tokens.programmes import leave_programmes


def update_scope(
    services: Services,
    /,
    name: str,
    *,
    actor: str,
    **changes: Any,  # noqa: ANN401 - those of the service
) -> ScopeView:
    """Change the named fields of a scope; ``aliases`` replaces all.

    Args:
        services: the parts of the server.
        name: the scope, in any spelling.
        actor: the recorded actor.
        changes: those of :meth:`ScopeService.update_scope`.

    Raises:
        NotFoundError: there is no such scope.
        OutsideLimitsError: it does not lie within the limits of the caller.
        InvalidChangeError: a value breaks a rule.
        ConflictError: a spelling is taken, or is removed from a scope that is stopped.
        StaleChangeError: it was approved, and the scope was changed meanwhile.
    """
    with services.transaction() as session:
        before = describe_scope(services.scopes.lock_scope(session, name))
        _require_own(services, before)
        concerned = _find_concerned(session, before)
        changed = services.scopes.update_scope(session, before.name, actor=actor, **changes)
        after = describe_scope(changed)
        act = NotedAct(
            acts=_find_acts(session, before, after),
            actor=actor,
            operation="update_scope",
            arguments={"name": before.name, **changes},
            subject=f"scope:{before.name}",
            basis=revision_of(before),
            diff=difference(before, after),
            **concerned,
        )
        record_diff(session, act.diff, subject=before.name)
        note_act(services, session, act)
        return after


def delete_scope(services: Services, name: str, *, actor: str) -> None:
    """Delete a scope, whose tokens end; it leaves the programmes that have it.

    Args:
        services: the parts of the server.
        name: the scope, in any spelling.
        actor: the recorded actor.

    Raises:
        NotFoundError: there is no such scope.
        OutsideLimitsError: it does not lie within the limits of the caller.
        ConflictError: a client may ask for it, it is the callback of another scope, it belongs to
            the admin API, or it or a programme with it is stopped.
        StaleChangeError: it was approved, and the scope was changed meanwhile.
    """
    with services.transaction() as session:
        before = describe_scope(services.scopes.lock_scope(session, name))
        # Before what names it: others use the scopes of others.
        _require_own(services, before)
        concerned = _find_concerned(session, before)
        _require_deletable(session, before, is_limited=reach_of(services) is not None)
        services.scopes.delete_scope(session, before.name, actor=actor)
        at = services.corrected_clock()
        leave_programmes(session, "scopes", before.name, actor=actor, at=at)
        act = NotedAct(
            acts=_find_acts(session, before, None),
            actor=actor,
            operation="delete_scope",
            arguments={"name": before.name},
            subject=f"scope:{before.name}",
            basis=revision_of(before),
            diff=difference(before, None),
            **concerned,
        )
        record_diff(session, act.diff, subject=before.name)
        note_act(services, session, act)


def _find_acts(session: Session, before: ScopeView, after: ScopeView | None) -> tuple[Act, ...]:
    return find_scope_acts(
        before.name,
        msgspec.to_builtins(before),
        None if after is None else msgspec.to_builtins(after),
        lambda: find_held_scopes(session),
    )


def _find_concerned(session: Session, scope: ScopeView) -> dict[str, Any]:
    """Return whom an act on a scope concerns: those who decide on its resource server."""
    owner = None if scope.resource_server is None else session.get(Client, scope.resource_server)
    if owner is None:
        # It lies within no limits.
        return {"organisation": None, "resource_servers": ("",)}
    organisation = find_organisation(owner.organisation, [scope.name])
    return {"organisation": organisation, "resource_servers": (owner.id,)}


def _require_own(services: Services, scope: ScopeView) -> None:
    reach = reach_of(services)
    if reach is not None and scope.name not in reach.own_scopes:
        raise OutsideLimitsError(f"The scope {scope.name!r}")


def _require_deletable(session: Session, scope: ScopeView, *, is_limited: bool) -> None:
    server_id = scope.resource_server
    server = None if server_id is None else session.get(ResourceServer, server_id)
    if server is not None and server.identifier == ADMIN_IDENTIFIER:
        raise ConflictError(f"The scope {scope.name} belongs to the admin API, which keeps it.")
    holder = find_holder(session, {scope.name})
    if holder is None:
        return
    named = name_holder(session, holder, is_limited=is_limited)
    use = "may ask for it" if holder.noun == "client" else "names it as its callback partner"
    raise ConflictError(f"The scope {scope.name} is in use: {named} {use}.")
