"""Rows of the scopes that a shipped catalogue defines."""

from collections.abc import Sequence

from authz_server.scopes.definition import ScopeDefinition
from authz_server.scopes.models import Scope, ScopeAlias


def new_scope(definition: ScopeDefinition, spellings: Sequence[str]) -> Scope:
    """Return a scope of a catalogue, which no resource server owns yet."""
    return Scope(
        name=definition.name,
        description=definition.description,
        resource_server_id=None,
        risk=definition.risk,
        lifetime_cap_seconds=definition.lifetime_cap_seconds,
        callback_partner=definition.callback_partner,
        aliases=[ScopeAlias(alias=spelling) for spelling in spellings],
    )


def bring_up_to_date(scope: Scope, definition: ScopeDefinition, spellings: Sequence[str]) -> bool:
    """Copy description, risk, partner and missing spellings; return whether any changed."""
    known = {alias.alias for alias in scope.aliases}
    missing = [spelling for spelling in spellings if spelling not in known]
    scope.aliases.extend(ScopeAlias(alias=spelling) for spelling in missing)
    changed = bool(missing)
    for field in ("description", "risk", "callback_partner"):
        if getattr(scope, field) != getattr(definition, field):
            setattr(scope, field, getattr(definition, field))
            changed = True
    return changed
