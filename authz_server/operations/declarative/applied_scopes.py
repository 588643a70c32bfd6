"""The scopes of declarative files: add, change and remove them."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.operations.approvals import NotedAct, note_act
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.document import DeclaredScope
from authz_server.operations.declarative.plan import PlannedChange, compare, plain_diff, values_of
from authz_server.operations.declarative.stored import (
    SCOPE_FIELDS,
    catalogue_values,
    normal,
    read_scopes,
    scope_values,
    without_defaults,
)
from authz_server.operations.reach import Reach
from authz_server.operations.scope_acts import find_held_scopes, find_scope_acts
from authz_server.operations.scope_holders import find_holder, name_holder
from authz_server.scopes.models import Scope
from authz_server.tokens.models import Programme
from authz_server.tokens.programmes import leave_programmes


@dataclass(frozen=True, slots=True)
class ScopeNames:
    """The catalogue in one transaction.

    Args:
        canonical: the canonical name of each spelling.
        risks: the risk of each scope, by canonical name.
        owners: the id of its resource server, likewise.
    """

    canonical: Mapping[str, str]
    risks: Mapping[str, str]
    owners: Mapping[str, str | None]

    def resolve(self, field: str, spellings: Iterable[str]) -> list[str]:
        """Return canonical names, sorted; a trailing ``/*`` stands for all scopes below.

        Raises:
            InvalidChangeError: the catalogue has no such scope.
            NotFoundError: it has none below a ``/*``.
        """
        found: set[str] = set()
        for spelling in spellings:
            if spelling.endswith("/*"):
                below = {name for name in self.risks if name.startswith(spelling[:-1])}
                if not below:
                    raise NotFoundError(f"{field}: the catalogue has no scope under {spelling!r}")
                found |= below
            elif (name := self.canonical.get(spelling)) is not None:
                found.add(name)
            else:
                raise InvalidChangeError(f"{field}: the catalogue has no scope {spelling!r}")
        return sorted(found)

    def by_owner(self) -> dict[str | None, list[str]]:
        """Return the scopes of each resource server, sorted."""
        owned: dict[str | None, list[str]] = {}
        for name, owner in sorted(self.owners.items()):
            owned.setdefault(owner, []).append(name)
        return owned

    def money(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those of risk ``money``, sorted."""
        return tuple(sorted(name for name in names if self.risks.get(name) == "money"))


class ScopeStep:
    """Brings the scopes up to date.

    Args:
        services: the parts of the server, joined to the transaction.
        session: the transaction.
        application: what is applied.
    """

    def __init__(self, services: Services, session: Session, application: Application) -> None:
        self._services = services
        self._session = session
        self._application = application
        self._declaration = declaration = application.declaration
        self._actor = application.actor
        self._reach: Reach | None = None
        self._held: frozenset[str] | None = None
        self._wanted = catalogue_values(declaration.catalogues) | {
            name: {field: normal(getattr(entry, field)) for field in SCOPE_FIELDS}
            for name, entry in declaration.scopes.items()
        }

    def bring_up_to_date(self) -> list[PlannedChange]:
        """Add and change scopes; return the changes."""
        with self._within_limits():
            return self._bring_all()

    @contextmanager
    def _within_limits(self) -> Iterator[None]:
        with self._application.narrowed(self._session, "scopes") as self._reach:
            yield

    def _bring_all(self) -> list[PlannedChange]:
        stored = read_scopes(self._services, self._session)
        changes: list[PlannedChange] = []
        later: dict[str, str] = {}
        for name, values in sorted(self._wanted.items()):
            with self._declaration.at("scopes", name):
                if name not in stored:
                    changes.append(self._add(name, values, later))
                elif (change := self._change(stored[name], values, later)) is not None:
                    changes.append(change)
        for name, partner in later.items():
            with self._declaration.at("scopes", name):
                self._update(name, callback_partner=partner)
        return changes

    def _add(self, name: str, values: Mapping[str, Any], later: dict[str, str]) -> PlannedChange:
        partner = values["callback_partner"]
        if partner in self._wanted:
            # Partners name each other: both have to be there.
            later[name] = partner
            values = {**values, "callback_partner": None}
        owner = self._find_owner(name)
        self._services.scopes.add_scope(
            self._session, actor=self._actor, name=name, resource_server_id=owner, **values
        )
        self._application.concerned.add_scope(owner)
        self._application.forget_reaches()
        if name not in self._declaration.scopes:
            return PlannedChange(act="add", noun="scope", id=name)
        shown = without_defaults(DeclaredScope, {**values, "callback_partner": partner})
        fields = compare({}, shown | ({} if owner is None else {"resource_server": owner}))
        record_diff(self._session, plain_diff(fields), subject=name)
        return PlannedChange(act="add", noun="scope", id=name, fields=fields)

    def _find_owner(self, name: str) -> str | None:
        """Return the declared owner of a new scope of a caller with limits, who adds no other.

        That of another caller is assigned with its resource server, which may be new too.
        """
        if self._reach is None:
            return None
        for server_id, entry in self._declaration.resource_servers.items():
            patterns = (each[:-1] for each in entry.scopes if each.endswith("/*"))
            if server_id in self._reach.own_servers and (
                name in entry.scopes or name.startswith(tuple(patterns))
            ):
                return server_id
        return None

    def _change(
        self, row: Scope, values: Mapping[str, Any], later: dict[str, str]
    ) -> PlannedChange | None:
        fields = compare(scope_values(row), values)
        if not fields:
            return None
        new = values_of(fields)
        if new.get("callback_partner") in self._wanted:
            later[row.name] = new.pop("callback_partner")
        acts = self._find_acts(row, values)
        self._application.concerned.add_scope(row.resource_server_id)
        if new:
            self._update(row.name, **new)
            record_diff(self._session, plain_diff(fields), subject=row.name)
        self._note(row.name, acts, plain_diff(fields))
        return PlannedChange(act="change", noun="scope", id=row.name, fields=fields)

    def _update(self, name: str, **changes: Any) -> None:  # noqa: ANN401 - the service's
        self._services.scopes.update_scope(self._session, name, actor=self._actor, **changes)

    def _find_acts(self, row: Scope, after: Mapping[str, Any] | None) -> tuple[str, ...]:
        return find_scope_acts(row.name, scope_values(row), after, self._find_held)

    def _find_held(self) -> frozenset[str]:
        # Read once, before the clients of the files are changed.
        if self._held is None:
            self._held = find_held_scopes(self._session)
        return self._held

    def _note(self, name: str, acts: tuple[str, ...], diff: Mapping[str, Any]) -> None:
        """Note what a change of a scope permits, which may need a second person."""
        if not acts:
            return
        act = NotedAct(
            acts=acts,
            actor=self._actor,
            operation="apply",
            arguments={"scope": name},
            subject=f"scope:{name}",
            diff=diff,
        )
        note_act(self._services, self._session, act)

    def remove_others(self) -> list[PlannedChange]:
        """Delete the scopes of one's own that the files do not have; return the changes.

        Raises:
            ConflictError: a client may ask for one of them, or another scope or a programme
                of the files names it.
        """
        if "scopes" not in self._declaration.sections:
            return []
        with self._within_limits():
            return self._remove_all()

    def _remove_all(self) -> list[PlannedChange]:
        kept = self._wanted.keys() | catalogue_values(["g2p-connect"]).keys()
        rows = read_scopes(self._services, self._session)
        own = rows.keys() if self._reach is None else self._reach.own_scopes
        others = [name for name in rows if name not in kept and name in own]
        if others:
            self._require_unused(others)
        for name in others:
            # Before it is deleted, as its owner is not known afterwards.
            self._application.concerned.add_scope(rows[name].resource_server_id)
            acts = self._find_acts(rows[name], None)
            self._services.scopes.delete_scope(self._session, name, actor=self._actor)
            at = self._services.corrected_clock()
            leave_programmes(self._session, "scopes", name, actor=self._actor, at=at)
            gone = {"name": {"before": name, "after": None}}
            record_diff(self._session, gone, subject=name)
            self._note(name, acts, gone)
        return [PlannedChange(act="remove", noun="scope", id=name) for name in others]

    def _require_unused(self, others: list[str]) -> None:
        unused = set(others)
        if (holder := find_holder(self._session, unused)) is not None:
            named = name_holder(self._session, holder, is_limited=self._reach is not None)
            use = (
                f"{named} may ask for it: change the client first."
                if holder.noun == "client"
                else f"{named} names it as its callback partner."
            )
            raise ConflictError(f"The scope {holder.scope} is not in the files, and {use}")
        programmes = select(Programme.name, Programme.scopes).order_by(Programme.name)
        for name, members in self._session.execute(programmes):
            # Others lose the scope.
            if name in self._declaration.programmes and (used := unused.intersection(members)):
                with self._declaration.at("programmes", name):
                    raise ConflictError(f"the scope {min(used)} is not in the files")


def read_names(services: Services, session: Session) -> ScopeNames:
    """Return the catalogue as it is now, as far as the session sees it."""
    rows = services.scopes.list_scopes(session)
    return ScopeNames(
        canonical={alias.alias: row.name for row in rows for alias in row.aliases},
        risks={row.name: row.risk for row in rows},
        owners={row.name: row.resource_server_id for row in rows},
    )
