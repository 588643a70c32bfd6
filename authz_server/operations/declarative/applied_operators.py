"""The operators of declarative files: add, change and remove them."""

import unicodedata
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from authz_server.assembly import Services
from authz_server.database.operators import Operator, OperatorRole
from authz_server.errors import InvalidChangeError
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.document import (
    Declaration,
    DeclaredOperator,
    DeclaredRole,
)
from authz_server.operations.declarative.plan import Act, FieldChange, PlannedChange, compare
from authz_server.operations.operator_roles import SECURITY_OFFICER, AssignedRole
from authz_server.operations.operators import (
    create_operator,
    delete_operator,
    find_operator,
    set_operator_enabled,
    update_operator,
)


class OperatorStep:
    """Brings the operators up to date, by the rules of the single acts.

    The last enabled security officer stays, and operators neither change nor remove themselves.

    Args:
        services: the parts of the server, joined to the transaction.
        session: the transaction.
        application: what is applied.
    """

    def __init__(self, services: Services, session: Session, application: Application) -> None:
        self._services = services
        self._session = session
        self._application = application
        self._actor = application.actor
        self._declared = _by_stored_name(application.declaration)

    def bring_up_to_date(self) -> list[PlannedChange]:
        """Add operators, and change their roles and states; return the changes.

        Raises:
            InvalidChangeError: a value breaks a rule, or a name occurs twice.
            OwnOperatorError: the acting operator's roles would change, or she would be disabled.
            ConflictError: the last enabled security officer would be lost.
        """
        if not self._declared:
            return []
        stored = _read_rows(self._session)
        changes = []
        # A new security officer comes before the last one loses the role.
        for name, (written, entry) in sorted(self._declared.items(), key=_loses_nothing):
            with self._application.declaration.at("operators", written):
                row = stored.get(name)
                change = self._add(name, entry) if row is None else self._change(row, entry)
            if change is not None:
                changes.append(change)
        return sorted(changes, key=lambda change: change.id)

    def _add(self, name: str, entry: DeclaredOperator) -> PlannedChange:
        self._application.require_roles(each.role for each in _assigned(entry))
        create_operator(self._services, actor=self._actor, name=name, roles=_assigned(entry))
        fields = compare({}, {"roles": _declared_roles(entry)} if entry.roles else {})
        if entry.enabled is False:
            fields += self._switch(name, enabled=False)
        return self._planned("add", name, fields)

    def _change(self, row: Operator, entry: DeclaredOperator) -> PlannedChange | None:
        fields = compare({"roles": stored_roles(row.roles)}, {"roles": _declared_roles(entry)})
        name, was_enabled = row.name, row.enabled
        if fields:
            self._application.require_roles(each.role for each in _assigned(entry))
            update_operator(
                self._services,
                row.id,
                actor=self._actor,
                roles=_assigned(entry),
                acting_operator=self._application.acting_operator,
            )
        if entry.enabled is not None and entry.enabled != was_enabled:
            fields += self._switch(row.id, enabled=entry.enabled)
        return self._planned("change", name, fields) if fields else None

    def _switch(self, operator: str, *, enabled: bool) -> tuple[FieldChange, ...]:
        if enabled:
            held = find_operator(self._session, operator).roles
            self._application.require_roles(each.role for each in held)
        set_operator_enabled(
            self._services,
            operator,
            actor=self._actor,
            enabled=enabled,
            acting_operator=self._application.acting_operator,
        )
        return (FieldChange(path="enabled", before=not enabled, after=enabled),)

    def _planned(self, act: Act, name: str, fields: tuple[FieldChange, ...] = ()) -> PlannedChange:
        self._application.concerned.add_whole_server()
        return PlannedChange(act=act, noun="operator", id=name, fields=fields)

    def remove_others(self) -> list[PlannedChange]:
        """Delete the operators that the files do not have; return the changes.

        Raises:
            OwnOperatorError: the acting operator is one of them.
            ConflictError: the last enabled security officer is one of them.
        """
        if "operators" not in self._application.declaration.sections:
            return []
        rows = _read_rows(self._session)
        others = [row for name, row in rows.items() if name not in self._declared]
        changes = []
        for row in others:
            with self._application.declaration.at("operators", row.name):
                name = row.name
                delete_operator(
                    self._services,
                    row.id,
                    actor=self._actor,
                    acting_operator=self._application.acting_operator,
                )
            changes.append(self._planned("remove", name))
        return changes


def _by_stored_name(declaration: Declaration) -> dict[str, tuple[str, DeclaredOperator]]:
    """Return the name in the file and the entry of each operator, by the name as it is stored.

    Raises:
        InvalidChangeError: two entries have the same one.
    """
    found: dict[str, tuple[str, DeclaredOperator]] = {}
    for name, entry in declaration.operators.items():
        stored = unicodedata.normalize("NFC", name)
        if stored in found:
            with declaration.at("operators", name):
                raise InvalidChangeError("the name occurs twice, in two forms of Unicode")
        found[stored] = name, entry
    return found


def read_operators(session: Session) -> dict[str, dict[str, Any]]:
    """Return the declared fields of the stored operators, by name."""
    return {
        name: {
            **({} if row.enabled else {"enabled": False}),
            **({"roles": roles} if (roles := stored_roles(row.roles)) else {}),
        }
        for name, row in _read_rows(session).items()
    }


def stored_roles(roles: Iterable[OperatorRole]) -> list[Any]:
    """Return stored roles as a file has them, by name."""
    return _plain(
        DeclaredRole(
            role=each.role,
            resource_servers=tuple(each.resource_servers),
            organisations=tuple(each.organisations),
        )
        for each in roles
    )


def _read_rows(session: Session) -> dict[str, Operator]:
    query = select(Operator).options(selectinload(Operator.roles)).order_by(Operator.name)
    return {row.name: row for row in session.scalars(query)}


def _loses_nothing(item: tuple[str, tuple[str, DeclaredOperator]]) -> tuple[bool, str]:
    """Return the place of an operator: those who are enabled with roles come first."""
    name, (_, entry) = item
    has_officer = SECURITY_OFFICER in {each.role for each in _assigned(entry)}
    return entry.enabled is False or not has_officer, name


def _assigned(entry: DeclaredOperator) -> tuple[AssignedRole, ...]:
    declared = (DeclaredRole(role=each) if isinstance(each, str) else each for each in entry.roles)
    return tuple(
        AssignedRole(
            role=each.role,
            resource_servers=each.resource_servers,
            organisations=each.organisations,
        )
        for each in declared
    )


def _declared_roles(entry: DeclaredOperator) -> list[Any]:
    return _plain(
        DeclaredRole(role=each) if isinstance(each, str) else each for each in entry.roles
    )


def _plain(roles: Iterable[DeclaredRole]) -> list[Any]:
    """Return roles as a file has them: one without limits by its name alone."""
    found = []
    for each in sorted(roles, key=lambda role: role.role):
        limits = {
            name: sorted(set(values))
            for name in ("resource_servers", "organisations")
            if (values := getattr(each, name))
        }
        found.append({"role": each.role, **limits} if limits else each.role)
    return found
