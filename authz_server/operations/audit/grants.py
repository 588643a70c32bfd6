"""Reconstruct which clients could obtain a scope at a time in the past, from stored changes."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Result, Select, select
from sqlalchemy.orm import Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.stored_rows import UNREADABLE_FACT, load, read_records
from authz_server.clients.models import CLIENT_GRANT, Client
from authz_server.operations.audit.files import within_time
from authz_server.operations.id_lists import is_one_of, is_sqlite
from authz_server.scopes.models import Scope
from authz_server.tokens.models import Stop

_BEGINNINGS = frozenset({"client.created", "client.registered"})
_CHANGES = _BEGINNINGS | {
    "client.updated",
    "client.registration_updated",
    "client.enabled",
    "client.disabled",
    "client.deleted",
}
_SERVER_DELETED = "resource_server.deleted"
#: Changes of the resource server of a scope; that of a deleted one has no record of its own.
_OWNERS = ("scope.added", "scope.assigned", _SERVER_DELETED)
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A client that could obtain scopes at the time.

    Attributes:
        client_id: the client.
        name: its present name; empty if it was deleted since.
        organisation: its present organisation.
        scopes: the scopes that it could obtain.
        granted_at: the time of the record that gave it its scopes; None: it is not kept.
        granted_by: the actor of that record.
    """

    client_id: str
    name: str
    organisation: str
    scopes: tuple[str, ...]
    granted_at: datetime | None
    granted_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """The clients at the time.

    Attributes:
        could: the scopes that each client could obtain, by its id and in the order of the ids.
        unknown: the clients whose state is not known, since records were purged or altered.
    """

    could: Mapping[str, tuple[str, ...]]
    unknown: tuple[str, ...]


class _Change(NamedTuple):
    """A stored change of a client."""

    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


class _Client(NamedTuple):
    """The present row of a client."""

    id: str
    enabled: bool
    created_at: datetime
    starts_at: datetime | None
    expires_at: datetime | None


def find_grants(session: Session, scopes: Iterable[str], at: datetime) -> Grants:
    """Return the clients that could obtain one of the scopes at a time.

    A client could if it was registered, enabled, within its dates, and neither it nor the scope
    was stopped. The present state is taken back by the changes since then.

    Args:
        session: for reading.
        scopes: canonical names.
        at: the time.

    Raises:
        ReadingTooLongError: the time limit has passed.
    """
    later = _changes(session, AuditRecord.at > at, AuditRecord.action.in_(_CHANGES))
    earlier = _changes_of(session, sorted(later), at)
    stopped_scopes, stopped_clients = _find_stopped(session, at)
    wanted = set(scopes) - stopped_scopes
    held = _load_held(session, wanted)
    clients = _load_clients(session, sorted(held.keys() | later.keys()))
    could, unknown = {}, []
    for client_id in sorted(clients.keys() | later.keys()):
        present = held.get(client_id, ())
        client = clients.get(client_id)
        state = _State(client, present, later.get(client_id, ()), earlier.get(client_id, ()))
        existed = load(partial(state.existed, at))
        if client_id in stopped_clients or existed is False:
            continue
        allowed = state.scopes()
        if allowed is None or existed is None:
            unknown.append(client_id)
        elif found := sorted(wanted.intersection(allowed)):
            could[client_id] = tuple(found)
    return Grants(could=could, unknown=tuple(unknown))


def describe_grants(
    session: Session, could: Mapping[str, tuple[str, ...]], at: datetime
) -> tuple[Grant, ...]:
    """Return clients that could obtain scopes at a time, with what gave them these.

    Args:
        session: for reading.
        could: the scopes of each, by its id.
        at: the time.
    """
    origins = {
        client_id: [each for each in changes if scopes_in(each) is not None]
        for client_id, changes in _changes_of(session, [*could], at).items()
    }
    names = select(Client.id, Client.name, Client.organisation)
    present = {row.id: row for row in _read_of(session, names, [*could])}
    return tuple(
        Grant(
            client_id=client_id,
            name=present[client_id].name if client_id in present else "",
            organisation=present[client_id].organisation if client_id in present else "",
            scopes=scopes,
            granted_at=origin[-1].at if (origin := origins.get(client_id)) else None,
            granted_by=origin[-1].actor if origin else "",
        )
        for client_id, scopes in could.items()
    )


class _State:
    """The state of one client at the time.

    Args:
        client: its present row; None: it was deleted.
        present: the scopes in question that it has now.
        later: its changes since then, the oldest first.
        earlier: its changes until then, the oldest first.
    """

    def __init__(
        self,
        client: _Client | None,
        present: Iterable[str],
        later: Sequence[_Change],
        earlier: Sequence[_Change],
    ) -> None:
        self._client = client
        self._present = present
        self._later = later
        self._earlier = earlier

    def existed(self, at: datetime) -> bool:
        """Return whether it was registered, enabled and within its dates."""
        for record in self._later:
            if record.action in _BEGINNINGS:
                return False
            if record.action == "client.deleted":
                break
        else:
            if self._client is None or (not self._later and self._client.created_at > at):
                return False
        starts_at, expires_at = self._time("starts_at"), self._time("expires_at")
        return (
            self._was_enabled()
            and (starts_at is None or starts_at <= at)
            and (expires_at is None or expires_at > at)
        )

    def scopes(self) -> Iterable[str] | None:
        """Return the allowed scopes, or those in question; None: they are not known."""
        if any(UNREADABLE_FACT in each.detail for each in (*self._earlier, *self._later)):
            return None
        if self._client is not None and all(scopes_in(each) is None for each in self._later):
            return self._present
        for record in reversed(self._earlier):
            if (found := scopes_in(record)) is not None:
                return found
        return None

    def _was_enabled(self) -> bool:
        switches = {"client.enabled": False, "client.disabled": True}
        for record in self._later:
            if record.action in switches:
                return switches[record.action]
            if record.action == "client.deleted":
                break
        else:
            if self._client is not None:
                return self._client.enabled
        kept = [each.action for each in self._earlier if each.action in switches]
        return not kept or kept[-1] == "client.enabled"

    def _time(self, field: str) -> datetime | None:
        if self._client is not None and not any(field in each.detail for each in self._later):
            found: datetime | None = getattr(self._client, field)
            return found
        for record in reversed(self._earlier):
            if field in record.detail:
                text = record.detail[field]
                return datetime.fromisoformat(text) if text else None
        return None


def scopes_in(record: _Change) -> list[str] | None:
    """Return the allowed scopes that a change of a client set; None: it set none."""
    detail: Mapping[str, Any] = record.detail
    found = detail.get("allowed_scopes", detail.get("scopes"))
    return list(found) if isinstance(found, list) else None


def _changes(session: Session, *conditions: ColumnElement[bool]) -> dict[str, list[_Change]]:
    """Return changes by client, the oldest first."""
    found: dict[str, list[_Change]] = {}
    for change in _read(session, *conditions):
        if change.action in _CHANGES:
            found.setdefault(change.subject, []).append(change)
    return found


def _read(session: Session, *conditions: ColumnElement[bool]) -> list[_Change]:
    """Return changes, the oldest first; an altered one with what can be read of it.

    Raises:
        ReadingTooLongError: the time limit has passed.
    """
    fields = _Change._fields
    columns = (getattr(AuditRecord, name) for name in fields)
    ordered = select(AuditRecord).where(*conditions).order_by(AuditRecord.at, AuditRecord.id)
    query = ordered.with_only_columns(*columns)
    rows = load(lambda: [_Change(*row) for row in within_time(_execute(session, query))])
    if rows is not None and all(map(_is_sound, rows)):
        return rows
    records = read_records(session, ordered)
    return [_Change(*(getattr(each, name) for name in fields)) for each in records]


def _execute(session: Session, query: Select[*tuple[Any, ...]]) -> Result[*tuple[Any, ...]]:
    """Return the rows of a query, which are read in parts: the time limit may end the reading."""
    return session.execute(query).yield_per(_CHUNK)


def _is_sound(change: _Change) -> bool:
    return (
        type(change.detail) is dict
        and type(change.actor) is type(change.action) is type(change.subject) is str
    )


def _changes_of(
    session: Session, client_ids: Sequence[str], at: datetime
) -> dict[str, list[_Change]]:
    """Return the changes of clients until a time."""
    found: dict[str, list[_Change]] = {}
    for start in range(0, len(client_ids), _CHUNK):
        chunk = AuditRecord.subject.in_(client_ids[start : start + _CHUNK])
        # Without the action, so that the index of the subjects is read.
        found |= _changes(session, AuditRecord.at <= at, chunk)
    return found


def _load_held(session: Session, scopes: Iterable[str]) -> dict[str, list[str]]:
    """Return which of the scopes each client has now that has one."""
    grant = CLIENT_GRANT.c
    query = select(grant.client_id, grant.name)
    found: dict[str, list[str]] = {}
    for client_id, name in session.execute(
        query.where(grant.kind == "scope", grant.name.in_(sorted(scopes)))
    ):
        found.setdefault(client_id, []).append(name)
    return found


def _load_clients(session: Session, ids: Sequence[str]) -> dict[str, _Client]:
    columns = [getattr(Client, name) for name in _Client._fields]
    query = select(*columns).where(Client.kind == "client")
    return {row[0]: _Client(*row) for row in within_time(_read_of(session, query, ids))}


def _read_of(
    session: Session, query: Select[*tuple[Any, ...]], ids: Sequence[str]
) -> Iterable[Any]:
    """Yield the rows of clients with these ids."""
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        yield from session.execute(
            query.where(is_one_of(Client.id, chunk, is_sqlite=is_sqlite(session)))
        )


def _find_stopped(session: Session, at: datetime) -> tuple[set[str], set[str]]:
    """Return the scopes and the clients that were stopped at the time."""
    scopes: set[str] = set()
    clients: set[str] = set()
    servers: set[str] = set()
    for subject, members in _find_stops(session, at).items():
        kind, _, name = subject.partition(":")
        if kind == "resource-server":
            servers.add(name)
        scopes.update(members["scopes"])
        clients.update(members["clients"])
    if servers:
        scopes |= _find_owned(session, servers, at)
    return scopes, clients


def _find_stops(session: Session, at: datetime) -> dict[str, Mapping[str, Sequence[str]]]:
    """Return the scopes and clients of each stop at the time, as the stop itself had them.

    A programme may have others since then, or be deleted.
    """
    stops: dict[str, Mapping[str, Sequence[str]]] = {
        f"{stop.kind}:{stop.subject}": {"scopes": stop.scopes, "clients": stop.clients}
        for stop in session.scalars(select(Stop).where(Stop.created_at <= at))
    }
    since: set[str] = set()
    acts = AuditRecord.action.in_(("stop.set", "stop.lifted"))
    for record in _read(session, acts, AuditRecord.at > at):
        if record.subject not in since and record.action == "stop.lifted":
            stops[record.subject] = _members_of(record)
        since.add(record.subject)
    return stops


def _members_of(lifted: _Change) -> Mapping[str, Sequence[str]]:
    """Return the scopes and clients of a lifted stop; of an altered record its subject."""
    try:
        diff = lifted.detail["diff"]
        return {name: list(diff[name]["before"]) for name in ("scopes", "clients")}
    except (KeyError, TypeError):
        kind, _, name = lifted.subject.partition(":")
        return {each: [name] if kind == each[:-1] else [] for each in ("scopes", "clients")}


def _find_owned(session: Session, servers: AbstractSet[str], at: datetime) -> set[str]:
    """Return the scopes that resource servers owned at the time.

    A scope without a record until then has its present owner: its records were purged.
    """
    query = select(Scope.name, Scope.resource_server_id)
    owners: dict[str, str | None] = {name: owner for name, owner in session.execute(query)}  # noqa: C416 - typed rows
    # By their ids: for the order of their times, SQLite would read all records.
    record = AuditRecord.__table__.c
    moves = AuditRecord.id.in_(select(record.id).where(record.action.in_(_OWNERS)))
    for change in _read(session, moves, AuditRecord.at <= at):
        if change.action == _SERVER_DELETED:
            owners |= {name: None for name, owner in owners.items() if owner == change.subject}
        elif UNREADABLE_FACT not in change.detail:
            owners[change.subject] = change.detail.get("resource_server_id")
    return {name for name, owner in owners.items() if owner in servers}
