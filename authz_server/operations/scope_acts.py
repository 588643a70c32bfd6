"""The acts on scopes that may need a second person.

A client, a registration and an initial access token hold canonical names. A spelling that moves to
a scope that they hold is granted without a change of theirs.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import Client
from authz_server.clients.registration.models import InitialAccessToken, Registration
from authz_server.settings.approvals import GRANT, GRANT_MONEY, WIDEN_LIMITS, Act

_HOLDERS = (
    (Client, "allowed_scopes"),
    (Registration, "permitted_scopes"),
    (InitialAccessToken, "scopes"),
)


def find_scope_acts(
    name: str,
    before: Mapping[str, Any],
    after: Mapping[str, Any] | None,
    find_held: Callable[[], AbstractSet[str]],
) -> tuple[Act, ...]:
    """Return the acts that the change or the removal of a scope is.

    A spelling that leaves a scope may mean another one later, which has another risk, no lifetime
    cap, or holders of its own.

    Args:
        name: the canonical name.
        before: ``risk``, ``lifetime_cap_seconds`` and ``aliases`` before.
        after: the same after; None: the scope is removed.
        find_held: returns the canonical names of the granted scopes.
    """
    acts: list[Act] = []
    spellings = {*before["aliases"]}
    # With the scope its own name leaves.
    leaves = after is None or not spellings <= {*after["aliases"]}
    if leaves or (after and not {*after["aliases"]} <= spellings and name in find_held()):
        acts.append(GRANT)
    if before["risk"] == "money" and (leaves or (after and after["risk"] != "money")):
        acts.append(GRANT_MONEY)
    cap = before["lifetime_cap_seconds"]
    if cap is not None and (leaves or (after and _is_wider(cap, after["lifetime_cap_seconds"]))):
        acts.append(WIDEN_LIMITS)
    return tuple(acts)


def find_held_scopes(session: Session) -> frozenset[str]:
    """Return the canonical names of the scopes that are granted to anything, used or not."""
    # Of the tables themselves: what lies outside the limits of a caller counts too.
    held: set[str] = set()
    for model, field in _HOLDERS:
        for names in session.scalars(select(model.__table__.c[field])):
            held.update(names)
    return frozenset(held)


def _is_wider(cap: int, later: int | None) -> bool:
    return later is None or later > cap
