"""In-memory scope catalogue for token requests."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.database.change_feed import ChangeSet
from authz_server.scopes.models import Scope, ScopeAlias


@dataclass(frozen=True, slots=True)
class ScopeEntry:
    """A scope by its canonical name, with its owner, lifetime cap and risk."""

    name: str
    resource_server_id: str | None
    lifetime_cap_seconds: int | None
    risk: str = "write"


class ScopeCatalogue:
    """Finds scopes by any of their spellings, without a database query."""

    def __init__(self) -> None:
        self._by_spelling: dict[str, ScopeEntry] = {}
        self._entries: tuple[ScopeEntry, ...] = ()

    def find(self, spelling: str) -> ScopeEntry | None:
        """Return the scope that ``spelling`` names exactly (canonical or alias), or None."""
        return self._by_spelling.get(spelling)

    def entries(self) -> tuple[ScopeEntry, ...]:
        """Return all scopes, by name."""
        return self._entries

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the canonical names of scopes, without unknown ones, each once.

        A trailing ``/*`` stands for all scopes below.
        """
        found: dict[str, None] = {}
        for name in names:
            if name.endswith("/*"):
                below = (each.name for each in self._entries if each.name.startswith(name[:-1]))
                found |= dict.fromkeys(below)
            elif (entry := self._by_spelling.get(name)) is not None:
                found[entry.name] = None
        return tuple(found)

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Reload the catalogue if it changed.

        Deleting a resource server removes the owner of its scopes, so a change of a client also
        reloads it.
        """
        if not (changes.everything or {"scope", "client"} & changes.subjects.keys()):
            return
        rows = session.execute(
            select(
                Scope.name, Scope.resource_server_id, Scope.lifetime_cap_seconds, Scope.risk
            ).order_by(Scope.name)
        ).all()
        entries = {row.name: ScopeEntry(*row) for row in rows}
        spellings = dict(entries)
        for alias, name in session.execute(select(ScopeAlias.alias, ScopeAlias.scope_name)):
            if name in entries:
                spellings[alias] = entries[name]
        self._entries = tuple(entries.values())
        self._by_spelling = spellings
