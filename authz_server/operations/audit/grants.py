"""Reconstruct which clients could obtain a scope at a time in the past, from stored changes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.audit.sink import AuditRecord
from authz_server.clients.models import Client
from authz_server.scopes.models import Scope
from authz_server.tokens.models import Programme, Stop

_BEGINNINGS = frozenset({"client.created", "client.registered"})
_CHANGES = _BEGINNINGS | {
    "client.updated",
    "client.registration_updated",
    "client.enabled",
    "client.disabled",
    "client.deleted",
}
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
        could: the clients that could obtain one of the scopes, by id.
        unknown: the clients whose state is not known, since records were purged.
    """

    could: tuple[Grant, ...]
    unknown: tuple[str, ...]


def find_grants(session: Session, scopes: Iterable[str], at: datetime) -> Grants:
    """Return the clients that could obtain one of the scopes at a time.

    A client could if it was registered, enabled, within its dates, and neither it nor the scope
    was stopped. The present state is taken back by the changes since then.

    Args:
        session: for reading.
        scopes: canonical names.
        at: the time.
    """
    later = _records(session, AuditRecord.at > at)
    earlier: dict[str, list[AuditRecord]] = {}
    ids = sorted(later)
    for start in range(0, len(ids), _CHUNK):
        chunk = AuditRecord.subject.in_(ids[start : start + _CHUNK])
        earlier.update(_records(session, AuditRecord.at <= at, chunk))
    stopped_scopes, stopped_clients = _find_stopped(session, at)
    wanted = set(scopes) - stopped_scopes
    clients = {
        client.id: client
        for client in session.scalars(select(Client).where(Client.kind == "client"))
    }
    could, unknown = [], []
    for client_id in sorted(clients.keys() | later.keys()):
        state = _State(clients.get(client_id), later.get(client_id, ()), earlier.get(client_id, ()))
        if client_id in stopped_clients or not state.existed(at):
            continue
        allowed = state.scopes()
        if allowed is None:
            unknown.append(client_id)
        elif held := sorted(wanted.intersection(allowed)):
            could.append((client_id, tuple(held)))
    origins = _find_origins(session, [client_id for client_id, _ in could], at)
    return Grants(
        could=tuple(
            Grant(
                client_id=client_id,
                name=clients[client_id].name if client_id in clients else "",
                organisation=clients[client_id].organisation if client_id in clients else "",
                scopes=held,
                granted_at=origin.at if (origin := origins.get(client_id)) else None,
                granted_by=origin.actor if origin else "",
            )
            for client_id, held in could
        ),
        unknown=tuple(unknown),
    )


class _State:
    """The state of one client at the time.

    Args:
        client: its present row; None: it was deleted.
        later: its changes since then, the oldest first.
        earlier: its changes until then, the oldest first.
    """

    def __init__(
        self, client: Client | None, later: Sequence[AuditRecord], earlier: Sequence[AuditRecord]
    ) -> None:
        self._client = client
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

    def scopes(self) -> Sequence[str] | None:
        """Return the allowed scopes; None: they are not known."""
        if self._client is not None and all(scopes_in(each) is None for each in self._later):
            return self._client.allowed_scopes
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


def scopes_in(record: AuditRecord) -> list[str] | None:
    """Return the allowed scopes that a change of a client set; None: it set none."""
    detail: Mapping[str, Any] = record.detail
    found = detail.get("allowed_scopes", detail.get("scopes"))
    return list(found) if isinstance(found, list) else None


def _records(session: Session, *conditions: Any) -> dict[str, list[AuditRecord]]:  # noqa: ANN401 - expressions
    found: dict[str, list[AuditRecord]] = {}
    query = select(AuditRecord).where(AuditRecord.action.in_(_CHANGES), *conditions)
    for record in session.scalars(query.order_by(AuditRecord.at, AuditRecord.id)):
        found.setdefault(record.subject, []).append(record)
    return found


def _find_origins(
    session: Session, client_ids: Sequence[str], at: datetime
) -> dict[str, AuditRecord]:
    """Return the latest record of each client that set its scopes."""
    found: dict[str, AuditRecord] = {}
    for start in range(0, len(client_ids), _CHUNK):
        chunk = AuditRecord.subject.in_(client_ids[start : start + _CHUNK])
        for client_id, records in _records(session, AuditRecord.at <= at, chunk).items():
            for record in records:
                if scopes_in(record) is not None:
                    found[client_id] = record
    return found


def _find_stopped(session: Session, at: datetime) -> tuple[set[str], set[str]]:
    """Return the scopes and the clients that were stopped at the time."""
    stopped = {
        f"{stop.kind}:{stop.subject}"
        for stop in session.scalars(select(Stop).where(Stop.created_at <= at))
    }
    since: set[str] = set()
    query = select(AuditRecord).where(
        AuditRecord.action.in_(("stop.set", "stop.lifted")), AuditRecord.at > at
    )
    for record in session.scalars(query.order_by(AuditRecord.at, AuditRecord.id)):
        if record.subject not in since and record.action == "stop.lifted":
            stopped.add(record.subject)
        since.add(record.subject)
    scopes: set[str] = set()
    clients: set[str] = set()
    for kind, _, name in (each.partition(":") for each in stopped):
        if kind == "scope":
            scopes.add(name)
        elif kind == "client":
            clients.add(name)
        elif kind == "resource-server":
            owned = select(Scope.name).where(Scope.resource_server_id == name)
            scopes.update(session.scalars(owned))
        elif (programme := session.get(Programme, name)) is not None:
            scopes.update(programme.scopes)
            clients.update(programme.clients)
    return scopes, clients
