"""The clients and resource servers of declarative files: add, change and remove them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.audit.records import record_diff, record_difference
from authz_server.clients.models import Client, Kind
from authz_server.clients.properties import check_properties, merge_properties
from authz_server.errors import ConflictError, InvalidChangeError
from authz_server.operations.client_views import ClientView, describe_client
from authz_server.operations.clients import note_client
from authz_server.operations.declarative.application import Application
from authz_server.operations.declarative.applied_scopes import ScopeNames, read_names
from authz_server.operations.declarative.applied_streams import bring_stream, read_streams
from authz_server.operations.declarative.document import (
    DeclaredClient,
    DeclaredResourceServer,
    Section,
)
from authz_server.operations.declarative.limits import WholeServerError
from authz_server.operations.declarative.plan import (
    FieldChange,
    PlannedChange,
    compare,
    plain_diff,
    values_of,
)
from authz_server.operations.declarative.stored import (
    CLIENT_FIELDS,
    SERVER_FIELDS,
    client_values,
    normal,
    read_rows,
    server_values,
    without_defaults,
)
from authz_server.operations.limited_services import OutsideLimitsError
from authz_server.operations.reach import Reach
from authz_server.operations.scopes import record_owners


class _Step:
    """Brings the registrations of one kind up to date, within the limits of their section.

    Args:
        services: the parts of the server, joined to the transaction.
        session: the transaction.
        application: what is applied.
    """

    kind: Kind
    section: Section

    def __init__(self, services: Services, session: Session, application: Application) -> None:
        self._services = services
        self._session = session
        self._application = application
        self._declaration = application.declaration
        self._actor = application.actor
        self._secrets = application.secrets
        self._rows: dict[str, Client] = {}
        self._reach: Reach | None = None

    @contextmanager
    def _within_limits(self) -> Iterator[None]:
        """Read the stored registrations that the caller sees; change those of the caller alone."""
        with self._application.narrowed(self._session, self.section) as self._reach:
            # Within the limits of another section, each row would be read by a query of its own.
            if self._application.is_limited or not self._rows:
                self._rows = read_rows(self._services, self._session, self.kind)
            yield

    def _require(self, row: Client) -> None:
        """Refuse a registration that the caller may not change."""
        self._require_own(row)
        self._application.require(row)
        self._application.concerned.add_client(row)

    def _require_own(self, row: Client) -> None:
        if not self._is_own(row):
            raise OutsideLimitsError(f"The {self.kind.replace('_', ' ')} {row.id!r}")

    def _is_own(self, row: Client) -> bool:
        return self._reach is None or self._reach.owns_row(row)

    def _locked(self, client_id: str) -> Client:
        """Return the row as it is now, locked until the transaction ends."""
        row = self._session.get(Client, client_id, with_for_update=True, populate_existing=True)
        if row is None or row.kind != self.kind:
            raise ConflictError(f"{client_id!r} was deleted at the same time: apply again.")
        self._require(row)
        return row

    def _switch(self, row: Client, enabled: bool | None) -> tuple[FieldChange, ...]:  # noqa: FBT001 - the field
        """Enable or disable the registration, if the file has a state."""
        if enabled is None or row.enabled == enabled:
            return ()
        before = row.enabled
        self._services.clients.set_enabled(
            self._session, row.id, actor=self._actor, enabled=enabled
        )
        return (FieldChange(path="enabled", before=before, after=enabled),)

    def _others(self, declared: Mapping[str, object]) -> list[str]:
        """Return the ids of the registrations of the caller that the files do not have."""
        return [
            each for each, row in self._rows.items() if each not in declared and self._is_own(row)
        ]

    def _remove(self, client_id: str) -> None:
        self._require(self._rows[client_id])
        before = describe_client(self._rows[client_id], self._services.corrected_clock())
        self._services.clients.delete_client(self._session, client_id, actor=self._actor)
        record_difference(self._session, before, None, subject=client_id)


class ResourceServerStep(_Step):
    """Brings the resource servers and the owners of scopes up to date."""

    kind: Kind = "resource_server"
    section: Section = "resource_servers"
    _streams: Mapping[str, dict[str, Any]] = MappingProxyType({})

    def bring_up_to_date(self) -> list[PlannedChange]:
        """Add and change resource servers, and assign their scopes; return the changes."""
        with self._within_limits():
            return self._bring_all(read_names(self._services, self._session))

    def _bring_all(self, names: ScopeNames) -> list[PlannedChange]:
        wanted = self._wanted_scopes(names)
        owned = names.by_owner()
        self._streams = read_streams(self._session)
        changes = []
        for server_id, entry in sorted(self._declaration.resource_servers.items()):
            with self._declaration.at("resource_servers", server_id):
                change = self._bring(server_id, entry, owned.get(server_id, []), wanted[server_id])
            if change is not None:
                changes.append(change)
        for server_id, scopes in wanted.items():
            with self._declaration.at("resource_servers", server_id):
                self._assign(server_id, scopes, names)
        claimed = {scope for scopes in wanted.values() for scope in scopes}
        freed = [name for each in wanted for name in owned.get(each, []) if name not in claimed]
        if freed:
            self._concern_scopes(freed, names, None)
            self._services.scopes.assign(self._session, freed, None, actor=self._actor)
            record_owners(self._session, {name: names.owners[name] for name in freed}, None)
        return changes

    def _wanted_scopes(self, names: ScopeNames) -> dict[str, list[str]]:
        taken: dict[str, str] = {}
        wanted = {}
        for server_id, entry in sorted(self._declaration.resource_servers.items()):
            with self._declaration.at("resource_servers", server_id):
                wanted[server_id] = names.resolve("scopes", entry.scopes)
                for scope in wanted[server_id]:
                    if other := taken.get(scope):
                        raise InvalidChangeError(f"scopes: {scope} stands at {other!r} too")
                    taken[scope] = server_id
        return wanted

    def _bring(
        self, server_id: str, entry: DeclaredResourceServer, owned: list[str], wanted: list[str]
    ) -> PlannedChange | None:
        values = {name: normal(getattr(entry, name)) for name in SERVER_FIELDS}
        values["properties"] = _properties(entry.properties)
        owners = compare({"scopes": owned}, {"scopes": wanted})
        if server_id not in self._rows:
            row = self._services.clients.create_resource_server(
                self._session, actor=self._actor, id=server_id, **values
            )
            further = self._switch(row, entry.enabled) + self._bring_stream(server_id, entry)
            secret = self._secrets.add(self._services, self._session, row, actor=self._actor)
            self._application.concerned.add_whole_server()
            self._application.forget_reaches()
            fields = _new_fields(DeclaredResourceServer, values, {"scopes": wanted}, further)
            record_diff(self._session, plain_diff(fields), subject=server_id)
            return PlannedChange(
                act="add", noun="resource server", id=server_id, fields=fields, secret=secret
            )
        row = self._rows[server_id]
        # Before its fields are compared: they would show what the caller does not see.
        self._require_own(row)
        fields = compare(server_values(row), values)
        if fields:
            fields = compare(server_values(self._locked(server_id)), values)
            self._services.clients.update_resource_server(
                self._session, server_id, actor=self._actor, **values_of(fields)
            )
        fields += owners + self._switch(row, entry.enabled) + self._bring_stream(server_id, entry)
        if not fields:
            return None
        self._application.concerned.add_client(row)
        # It may have another organisation.
        self._application.forget_reaches()
        record_diff(self._session, plain_diff(fields), subject=server_id)
        return PlannedChange(act="change", noun="resource server", id=server_id, fields=fields)

    def _bring_stream(
        self, server_id: str, entry: DeclaredResourceServer
    ) -> tuple[FieldChange, ...]:
        stored = self._streams.get(server_id)
        return bring_stream(self._services, server_id, entry.event_stream, stored, self._actor)

    def _assign(self, server_id: str, wanted: list[str], names: ScopeNames) -> None:
        for scope in wanted:
            owner = names.owners[scope]
            if owner not in {None, server_id} and owner not in self._declaration.resource_servers:
                raise ConflictError(
                    f"scopes: {scope} belongs to {owner!r}, which is in none of the files"
                )
        given = [name for name in wanted if names.owners[name] != server_id]
        if given:
            self._concern_scopes(given, names, server_id)
            self._services.scopes.assign(self._session, given, server_id, actor=self._actor)
            record_owners(self._session, {name: names.owners[name] for name in given}, server_id)

    def _concern_scopes(self, moved: list[str], names: ScopeNames, owner: str | None) -> None:
        for each in (owner, *(names.owners[name] for name in moved)):
            self._application.concerned.add_scope(each)
        self._application.forget_reaches()

    def remove_others(self) -> list[PlannedChange]:
        """Delete the resource servers that the files do not have; return the changes.

        Raises:
            ConflictError: clients are limited to one of them.
            WholeServerError: the caller has limits.
        """
        if "resource_servers" not in self._declaration.sections:
            return []
        with self._within_limits():
            others = self._others(self._declaration.resource_servers)
            for server_id in others:
                with self._declaration.at("resource_servers", server_id):
                    if self._reach is not None:
                        raise WholeServerError
                    self._remove(server_id)
                    self._application.concerned.add_whole_server()
                    self._application.forget_reaches()
        return [PlannedChange(act="remove", noun="resource server", id=each) for each in others]


class ClientStep(_Step):
    """Brings the clients up to date."""

    kind: Kind = "client"
    section: Section = "clients"
    _touched: frozenset[str] = frozenset()
    _names: ScopeNames | None = None

    def bring_up_to_date(self) -> list[PlannedChange]:
        """Add and change clients; return the changes."""
        with self._within_limits():
            return self._bring_all(read_names(self._services, self._session))

    def _bring_all(self, names: ScopeNames) -> list[PlannedChange]:
        self._names = names
        changes = []
        for client_id, entry in sorted(self._declaration.clients.items()):
            with self._declaration.at("clients", client_id):
                values = _client_fields(entry, names)
                change = self._bring(client_id, entry, values, names)
            if change is not None:
                changes.append(change)
                self._touched |= set(values["allowed_scopes"])
        return changes

    def _bring(
        self, client_id: str, entry: DeclaredClient, values: Mapping[str, Any], names: ScopeNames
    ) -> PlannedChange | None:
        if client_id not in self._rows:
            return self._add(client_id, entry, values, names)
        row = self._rows[client_id]
        # Before its fields are compared: they would show what the caller does not see.
        self._require_own(row)
        before = client_values(row)
        fields = compare(before, values)
        if fields or entry.enabled not in {None, row.enabled}:
            row = self._locked(client_id)
            before, seen = (
                client_values(row),
                describe_client(row, self._services.corrected_clock()),
            )
            fields = compare(before, values)
            if fields:
                self._services.clients.update_client(
                    self._session, client_id, actor=self._actor, **values_of(fields)
                )
            fields += self._switch(row, entry.enabled)
            self._require(row)
            self._note(seen, row)
        if not fields:
            return None
        granted = set(values["allowed_scopes"]) - set(before["allowed_scopes"])
        return PlannedChange(
            act="change",
            noun="client",
            id=client_id,
            fields=fields,
            money_scopes=names.money(granted),
        )

    def _add(
        self, client_id: str, entry: DeclaredClient, values: Mapping[str, Any], names: ScopeNames
    ) -> PlannedChange:
        row = self._services.clients.create_client(
            self._session, actor=self._actor, id=client_id, **values
        )
        state = self._switch(row, entry.enabled)
        secret = self._secrets.add(self._services, self._session, row, actor=self._actor)
        self._require(row)
        self._note(None, row)
        return PlannedChange(
            act="add",
            noun="client",
            id=client_id,
            fields=_new_fields(DeclaredClient, values, {}, state),
            money_scopes=names.money(values["allowed_scopes"]),
            secret=secret,
        )

    def _note(self, before: ClientView | None, row: Client) -> None:
        """Record the diff of what a file does to a client, which may need a confirmation."""
        note_client(
            self._services,
            self._session,
            before,
            describe_client(row, self._services.corrected_clock()),
            actor=self._actor,
            operation="apply",
            arguments={"client_id": row.id},
        )

    def remove_others(self) -> list[PlannedChange]:
        """Delete the clients that the files do not have; return the changes."""
        if "clients" not in self._declaration.sections:
            return []
        with self._within_limits():
            others = self._others(self._declaration.clients)
            for client_id in others:
                self._remove(client_id)
        return [PlannedChange(act="remove", noun="client", id=each) for each in others]

    def unowned_scopes(self) -> tuple[str, ...]:
        """Return the scopes without a resource server of the clients that changed, sorted."""
        if self._names is None or not self._touched:
            return ()
        # The resource servers of the files have their scopes already.
        rows = self._services.scopes.list_scopes(self._session)
        owned = {row.name for row in rows if row.resource_server_id is not None}
        return tuple(sorted(self._touched - owned))


def _client_fields(entry: DeclaredClient, names: ScopeNames) -> dict[str, Any]:
    values = {name: normal(getattr(entry, name)) for name in CLIENT_FIELDS}
    for name in ("allowed_scopes", "default_scopes"):
        values[name] = names.resolve(name, values[name])
    values["properties"] = _properties(entry.properties)
    return values


def _properties(declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return properties in the form in which they are stored."""
    merged = merge_properties({}, check_properties(declared))
    # Lists instead of tuples, as the database returns them.
    stored: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(merged))
    return stored


def _new_fields(
    struct: type[msgspec.Struct],
    values: Mapping[str, Any],
    further: Mapping[str, Any],
    state: tuple[FieldChange, ...],
) -> tuple[FieldChange, ...]:
    shown = without_defaults(struct, {**values, **further})
    return compare({}, shown) + tuple(
        FieldChange(path=each.path, before=None, after=each.after) for each in state
    )
