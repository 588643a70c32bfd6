"""Changes to the scope catalogue, each with its audit record.

The alias table holds every spelling, including each canonical name. Its primary key prevents one
spelling from meaning two scopes, even under concurrent changes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from authz_server.audit.records import store_audit_record
from authz_server.database.change_feed import record_change
from authz_server.errors import ConflictError, InvalidChangeError, NotFoundError
from authz_server.scopes.collaborators import StopCheck, TokenRevoker
from authz_server.scopes.definition import ScopeDefinition
from authz_server.scopes.fields import FIELD_RULES, require_cap, require_description, require_risk
from authz_server.scopes.models import Scope, ScopeAlias
from authz_server.scopes.names import require_scope_name
from authz_server.scopes.shipped import bring_up_to_date, new_scope

_SPELLINGS_IN_ONE_QUERY = 500


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The names of the scopes that an import added, updated and left unchanged."""

    added: tuple[str, ...]
    updated: tuple[str, ...]
    unchanged: tuple[str, ...]


def find_canonical_names(
    session: Session, spellings: Iterable[str], *, held: bool = False
) -> Mapping[str, str]:
    """Return the canonical name of each known spelling; ``held``: deletions wait for the commit."""
    asked = list(dict.fromkeys(spellings))
    found: dict[str, str] = {}
    for start in range(0, len(asked), _SPELLINGS_IN_ONE_QUERY):
        part = asked[start : start + _SPELLINGS_IN_ONE_QUERY]
        query = select(ScopeAlias.alias, ScopeAlias.scope_name).where(ScopeAlias.alias.in_(part))
        if held:
            query = query.join(Scope).order_by(Scope.name)
            query = query.with_for_update(read=True, key_share=True, of=Scope)
        found.update((row.alias, row.scope_name) for row in session.execute(query))
    return found


def spellings_of(scope: Scope) -> list[str]:
    """Return the aliases of a scope, without its canonical name."""
    return [alias.alias for alias in scope.aliases if alias.alias != scope.name]


class ScopeService:
    """Creates and changes scopes in the caller's session, without committing.

    Args:
        clock: returns the present time, timezone-aware.
        is_resource_server: returns whether an id belongs to a resource server.
        is_admin_api: returns whether an id belongs to the admin API.
        require_no_stop: refuses a change of what is stopped.
        revoker: returns the revoker of tokens; called when tokens are to be revoked.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        is_resource_server: Callable[[Session, str], bool],
        is_admin_api: Callable[[Session, str], bool],
        require_no_stop: StopCheck,
        revoker: Callable[[], TokenRevoker],
    ) -> None:
        self._clock = clock
        self._is_resource_server = is_resource_server
        self._is_admin_api = is_admin_api
        self._require_no_stop = require_no_stop
        self._find_revoker = revoker

    def get_scope(self, session: Session, spelling: str) -> Scope:
        """Return the scope with this canonical name or alias.

        Raises:
            NotFoundError: there is no such scope.
        """
        name = find_canonical_names(session, [spelling]).get(spelling)
        scope = None if name is None else session.get(Scope, name)
        if scope is None:
            raise NotFoundError(
                f"There is no scope {spelling!r}. `authz-server scope list` shows the catalogue."
            )
        return scope

    def list_scopes(
        self,
        session: Session,
        *,
        resource_server_id: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Sequence[Scope]:
        """Return the catalogue by name, or the part that one resource server owns.

        Args:
            session: a database session.
            resource_server_id: the owner; None: any.
            after: the name after which the list begins; None: at its beginning.
            limit: the largest number of scopes; None: all.
        """
        query = select(Scope).options(selectinload(Scope.aliases)).order_by(Scope.name)
        query = query.limit(limit)
        if after is not None:
            query = query.where(Scope.name > after)
        if resource_server_id is not None:
            query = query.where(Scope.resource_server_id == resource_server_id)
        return session.scalars(query).all()

    def expand(self, session: Session, names: Iterable[str]) -> list[str]:
        """Return scope names, with each trailing ``/*`` replaced by the existing scopes below it.

        Raises:
            NotFoundError: the catalogue has no scope below it.
        """
        expanded: list[str] = []
        for name in names:
            if not name.endswith("/*"):
                expanded.append(name)
                continue
            below = [
                scope.name
                for scope in self.list_scopes(session)
                if scope.name.startswith(name[:-1])
            ]
            if not below:
                raise NotFoundError(
                    f"The catalogue has no scope under {name!r}. "
                    "`authz-server scope import g2p-connect` brings those of G2P Connect."
                )
            expanded.extend(below)
        return list(dict.fromkeys(expanded))

    def add_scope(  # noqa: PLR0913 - the fields themselves, by name
        self,
        session: Session,
        *,
        actor: str,
        name: str,
        description: str = "",
        resource_server_id: str | None = None,
        risk: str = "write",
        lifetime_cap_seconds: int | None = None,
        aliases: Iterable[str] = (),
        callback_partner: str | None = None,
    ) -> Scope:
        """Add a scope; ``risk`` is ``read``, ``write`` or ``money``.

        Raises:
            InvalidChangeError: a value breaks a rule.
            ConflictError: a spelling is taken.
        """
        require_risk(risk)
        require_description(description)
        require_cap(lifetime_cap_seconds)
        self._require_resource_server(session, resource_server_id)
        spellings = _spellings(name, aliases)
        _require_free(session, spellings)
        if callback_partner is not None:
            _require_partner(session, callback_partner)
        scope = Scope(
            name=name,
            description=description,
            resource_server_id=resource_server_id,
            risk=risk,
            lifetime_cap_seconds=lifetime_cap_seconds,
            callback_partner=callback_partner,
            aliases=[ScopeAlias(alias=spelling) for spelling in spellings],
        )
        session.add(scope)
        facts = {"risk": risk, "resource_server_id": resource_server_id}
        self._finish(session, [name], actor, "scope.added", **facts)
        self._end_late_tokens(session, spellings, actor)
        return scope

    def update_scope(self, session: Session, name: str, *, actor: str, **changes: object) -> Scope:
        """Change the named fields of a scope; ``aliases`` replaces all.

        Tokens that carry a removed alias are revoked, also if it becomes a spelling again later.

        Args:
            session: the transaction.
            name: its canonical name.
            actor: the actor for the audit record.
            changes: as the fields of :meth:`add_scope`, without the name and the owner.

        Raises:
            NotFoundError: there is no such scope.
            InvalidChangeError: a value breaks a rule.
            ConflictError: a spelling is taken, or is removed from a scope that is stopped.
        """
        scope = self.lock_scope(session, name)
        for field, value in changes.items():
            if field not in FIELD_RULES:
                raise InvalidChangeError(f"{field}: there is no such field to change")
            FIELD_RULES[field](value)
            if field == "aliases":
                self._replace_aliases(session, scope, value, actor)
            else:
                setattr(scope, field, value)
        if scope.callback_partner is not None:
            _require_partner(session, scope.callback_partner)
        self._finish(session, [scope.name], actor, "scope.updated", **changes)
        return scope

    def lock_scope(self, session: Session, name: str) -> Scope:
        """Return a scope, locked until the commit: no other change adds a spelling to it.

        Raises:
            NotFoundError: there is no such scope.
            ConflictError: it was deleted at the same time.
        """
        scope = self.get_scope(session, name)
        # On PostgreSQL the foreign key of a new spelling waits for the lock.
        if session.get(Scope, scope.name, with_for_update=True, populate_existing=True) is None:
            raise ConflictError(f"The scope {name!r} was deleted at the same time.")
        session.expire(scope, ["aliases"])
        return scope

    def _replace_aliases(self, session: Session, scope: Scope, aliases: Any, actor: str) -> None:  # noqa: ANN401 - checked
        spellings = _spellings(scope.name, aliases)
        _require_free(session, spellings, owner=scope.name)
        kept = {alias.alias: alias for alias in scope.aliases}
        if removed := sorted(kept.keys() - set(spellings)):
            # Another scope could take the spelling, and with it the issued tokens.
            owner = scope.resource_server_id
            self._require_no_stop(session, scope=scope.name, resource_server_id=owner)
            self._find_revoker().cut_off_scopes(
                session, removed, actor=actor, reason="the alias was removed", scope=scope.name
            )
        self._end_late_tokens(session, [each for each in spellings if each not in kept], actor)
        scope.aliases = [kept.get(each) or ScopeAlias(alias=each) for each in spellings]

    def delete_scope(self, session: Session, name: str, *, actor: str) -> None:
        """Delete a scope with its spellings.

        Its tokens are revoked, also if one of its spellings is that of a scope again later.

        Args:
            session: the transaction.
            name: its canonical name.
            actor: the actor for the audit record.

        Raises:
            NotFoundError: there is no such scope.
            ConflictError: it is stopped.
        """
        scope = self.lock_scope(session, name)
        owner = scope.resource_server_id
        # A scope of the same name or spelling could be added for another resource server.
        self._require_no_stop(session, scope=scope.name, resource_server_id=owner)
        self._find_revoker().cut_off_scopes(
            session,
            [scope.name, *spellings_of(scope)],
            actor=actor,
            reason="the scope was deleted",
            scope=scope.name,
        )
        session.delete(scope)
        self._finish(session, [scope.name], actor, "scope.deleted", resource_server_id=owner)

    def assign(
        self,
        session: Session,
        names: Iterable[str],
        resource_server_id: str | None,
        *,
        actor: str,
        take_over: bool = True,
    ) -> tuple[str, ...]:
        """Assign scopes to a resource server, or to none; return the canonical names that changed.

        Args:
            session: the transaction.
            names: scopes in any spelling; a trailing ``/*`` stands for all scopes below.
            resource_server_id: the new owner; None removes the owner.
            actor: the actor for the audit record.
            take_over: whether a scope may be taken from another owner.

        Raises:
            NotFoundError: there is no such scope.
            InvalidChangeError: there is no such resource server.
            ConflictError: a scope belongs to the admin API or to a stopped resource server, or
                has another owner and ``take_over`` is not set.
        """
        scopes = [self.get_scope(session, name) for name in self.expand(session, names)]
        for scope in scopes:
            owner = scope.resource_server_id
            if owner is None or owner == resource_server_id:
                continue
            # Without its scopes the admin API has no permissions left to check.
            if self._is_admin_api(session, owner):
                raise ConflictError(
                    f"The scope {scope.name} belongs to the admin API, which keeps its scopes."
                )
            if not take_over:
                raise ConflictError(
                    f"The scope {scope.name} belongs to {owner}: "
                    "use --take-over to take it away from there."
                )
            # Its issued tokens would be active again.
            self._require_no_stop(session, resource_server_id=owner)
        self._require_resource_server(session, resource_server_id)
        changed = []
        for scope in scopes:
            if scope.resource_server_id != resource_server_id:
                scope.resource_server_id = resource_server_id
                changed.append(scope.name)
        self._finish(
            session, changed, actor, "scope.assigned", resource_server_id=resource_server_id
        )
        return tuple(changed)

    def _end_late_tokens(self, session: Session, spellings: Collection[str], actor: str) -> None:
        """Revoke tokens that a process issued before it had read that a spelling was removed."""
        revoker = self._find_revoker()
        ended = revoker.find_cut_off_scopes(session, spellings)
        revoker.cut_off_scopes(session, ended, actor=actor, reason="the spelling is used again")

    def import_catalogue(
        self, session: Session, catalogue: Iterable[ScopeDefinition], *, actor: str
    ) -> ImportResult:
        """Add the scopes of ``catalogue`` and update those that exist.

        The owner, the lifetime cap and further aliases of an existing scope are kept.

        Raises:
            ConflictError: a spelling already means another scope.
        """
        existing = {scope.name: scope for scope in self.list_scopes(session)}
        added, updated, unchanged = [], [], []
        new: list[str] = []
        for definition in catalogue:
            spellings = _spellings(definition.name, definition.aliases)
            _require_free(session, spellings, owner=definition.name)
            scope = existing.get(definition.name)
            known = {alias.alias for alias in scope.aliases} if scope is not None else ()
            new.extend(spelling for spelling in spellings if spelling not in known)
            if scope is None:
                session.add(new_scope(definition, spellings))
                added.append(definition.name)
            elif bring_up_to_date(scope, definition, spellings):
                updated.append(definition.name)
            else:
                unchanged.append(definition.name)
        self._finish(session, added, actor, "scope.added", imported=True)
        self._finish(session, updated, actor, "scope.updated", imported=True)
        self._end_late_tokens(session, new, actor)
        return ImportResult(tuple(added), tuple(updated), tuple(unchanged))

    def _require_resource_server(self, session: Session, resource_server_id: str | None) -> None:
        if resource_server_id is None or self._is_resource_server(session, resource_server_id):
            return
        raise InvalidChangeError(
            f"resource_server: there is no resource server {resource_server_id!r}; "
            "`authz-server resource-server list` shows them"
        )

    def _finish(
        self, session: Session, names: Sequence[str], actor: str, action: str, **detail: object
    ) -> None:
        for name in names:
            store_audit_record(
                session, at=self._clock(), actor=actor, action=action, subject=name, **detail
            )
        try:
            session.flush()
        except IntegrityError as error:
            raise ConflictError("A spelling of the scope was taken at the same time.") from error
        for name in names:
            record_change(session, "scope", name)


def _spellings(name: str, aliases: Iterable[str]) -> list[str]:
    return [require_scope_name(spelling) for spelling in dict.fromkeys([name, *aliases])]


def _require_free(session: Session, spellings: Sequence[str], owner: str | None = None) -> None:
    """Refuse spellings that already mean a scope other than ``owner``."""
    for spelling, holder in find_canonical_names(session, spellings).items():
        if holder != owner:
            raise ConflictError(f"The spelling {spelling!r} already means the scope {holder!r}.")


def _require_partner(session: Session, spelling: str) -> None:
    if not find_canonical_names(session, [spelling]):
        raise InvalidChangeError(f"callback_partner: there is no scope {spelling!r}")
