"""Import, add, list, show and assign scopes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import difference, record_diff, record_difference
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.scope_acts import find_held_scopes, find_scope_acts
from authz_server.operations.views import revision_of
from authz_server.scopes.models import Scope
from authz_server.scopes.service import ImportResult, spellings_of

#: The name of an import among the approved acts.
IMPORT = "import_g2p_connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeView:
    """A scope as operators see it.

    Attributes:
        name: its canonical name.
        resource_server: the id of the resource server that owns it; None: it has no owner.
        risk: ``read``, ``write`` or ``money``.
        lifetime_cap_seconds: the longest lifetime of a token with it; None: no limit.
        aliases: its other spellings.
        callback_partner: the scope of the operation that answers this one.
    """

    name: str
    description: str
    resource_server: str | None
    risk: str
    lifetime_cap_seconds: int | None
    aliases: tuple[str, ...]
    callback_partner: str | None


def import_g2p_connect(services: Services, *, actor: str) -> ImportResult:
    """Add the scopes of G2P Connect and update those that exist.

    The owners, lifetime caps and additional aliases that operators set are kept.

    Raises:
        ConflictError: another scope has one of the spellings.
        StaleChangeError: it was approved, and the catalogue was changed meanwhile.
    """
    # Only this operation needs the catalogue.
    from authz_server.scopes.g2p_connect import CATALOGUE  # noqa: PLC0415

    with services.transaction() as session:
        before = _describe_all(services, session)
        result = services.scopes.import_catalogue(session, CATALOGUE, actor=actor)
        known = {name: before[name] for name in result.updated}
        _note_import(services, session, known, actor)
        return result


def _note_import(
    services: Services, session: Session, before: Mapping[str, ScopeView], actor: str
) -> None:
    """Note what an import permits, which may need a second person.

    Args:
        services: the parts of the server.
        session: the transaction, after the import.
        before: the updated scopes before it, by name.
        actor: the recorded actor.
    """
    after = _describe_all(services, session)
    acts = {
        act: None
        for name, view in before.items()
        for act in find_scope_acts(
            name,
            msgspec.to_builtins(view),
            msgspec.to_builtins(after[name]),
            lambda: find_held_scopes(session),
        )
    }
    if acts:
        noted = NotedAct(
            acts=tuple(acts),
            actor=actor,
            operation=IMPORT,
            arguments={},
            subject="catalogue:g2p-connect",
            basis=revision_of(before),
            diff={name: difference(view, after[name]) for name, view in before.items()},
        )
        note_act(services, session, noted)


def list_scopes(
    services: Services, *, resource_server_id: str | None = None
) -> tuple[ScopeView, ...]:
    """Return the scopes by name: all, or those of one resource server."""
    with services.transaction() as session:
        scopes = services.scopes.list_scopes(session, resource_server_id=resource_server_id)
        return tuple(map(describe_scope, scopes))


def page_scopes(
    services: Services, *, resource_server_id: str | None, after: str | None, limit: int
) -> tuple[ScopeView, ...]:
    """Return a page of the scopes by name, in the order of the database.

    Args:
        services: the parts of the server.
        resource_server_id: the resource server; None: any.
        after: the name after which the page begins; None: the first page.
        limit: the largest number of scopes.
    """
    with services.database.reading() as session:
        scopes = services.scopes.list_scopes(
            session, resource_server_id=resource_server_id, after=after, limit=limit
        )
        return tuple(map(describe_scope, scopes))


def get_scope(services: Services, spelling: str) -> ScopeView:
    """Return the scope of a canonical name or alias; NotFoundError if there is none."""
    with services.transaction() as session:
        return describe_scope(services.scopes.get_scope(session, spelling))


def add_scope(
    services: Services,
    /,
    *,
    actor: str,
    **fields: Any,  # noqa: ANN401 - those of the service
) -> ScopeView:
    """Add a scope.

    Args:
        services: the parts of the server.
        actor: the recorded actor.
        fields: those of :meth:`ScopeService.add_scope`.

    Raises:
        InvalidChangeError: a value breaks a rule.
        ConflictError: a spelling is taken.
    """
    with services.transaction() as session:
        added = describe_scope(services.scopes.add_scope(session, actor=actor, **fields))
        record_difference(session, None, added)
        return added


def assign_scopes(
    services: Services,
    names: Sequence[str],
    resource_server_id: str | None,
    *,
    actor: str,
    take_over: bool,
) -> tuple[str, ...]:
    """Assign scopes to a resource server, or remove their owners.

    Args:
        services: the parts of the server.
        names: scopes in any spelling; a trailing ``/*`` stands for all scopes below.
        resource_server_id: the new owner; None: the scopes have no owner.
        actor: the recorded actor.
        take_over: allow a scope to be taken from another owner.

    Returns:
        the canonical names of the scopes whose owner changed.

    Raises:
        NotFoundError: there is no such scope.
        InvalidChangeError: there is no such resource server.
        ConflictError: a scope belongs to the admin API or to a stopped resource server, or has
            another owner and ``take_over`` is not set.
    """
    with services.transaction() as session:
        before = {
            each.name: each.resource_server_id for each in services.scopes.list_scopes(session)
        }
        assigned = services.scopes.assign(
            session, names, resource_server_id, actor=actor, take_over=take_over
        )
        record_owners(session, {name: before[name] for name in assigned}, resource_server_id)
        return assigned


def record_owners(session: Session, before: Mapping[str, str | None], owner: str | None) -> None:
    """Give the records of assigned scopes their diffs.

    Args:
        session: the transaction, after the records were added.
        before: the former owner of each assigned scope; None: it had none.
        owner: the present one.
    """
    for name, former in before.items():
        owners = {"before": former, "after": owner}
        record_diff(session, {"resource_server": owners}, subject=name)


def _describe_all(services: Services, session: Session) -> dict[str, ScopeView]:
    return {each.name: describe_scope(each) for each in services.scopes.list_scopes(session)}


def describe_scope(scope: Scope) -> ScopeView:
    """Return the view of a stored scope."""
    return ScopeView(
        name=scope.name,
        description=scope.description,
        resource_server=scope.resource_server_id,
        risk=scope.risk,
        lifetime_cap_seconds=scope.lifetime_cap_seconds,
        aliases=tuple(sorted(spellings_of(scope))),
        callback_partner=scope.callback_partner,
    )
