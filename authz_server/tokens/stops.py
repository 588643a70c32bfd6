"""Stops: the clients, scopes and resource servers for which no token is issued or active.

An operator sets and lifts a stop. Every process reads the stops through the change feed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from authz_server.clients.models import Client
from authz_server.database.change_feed import ChangeSet
from authz_server.errors import ConflictError, OAuthError
from authz_server.scopes.catalogue import ScopeEntry
from authz_server.tokens.models import Stop

StopKind = Literal["scope", "client", "resource-server", "programme"]


@dataclass(frozen=True, slots=True)
class _Stopped:
    """The stop of each subject, as ``kind name``, for the audit record."""

    clients: Mapping[str, str] = field(default_factory=dict)
    scopes: Mapping[str, str] = field(default_factory=dict)
    resource_servers: Mapping[str, str] = field(default_factory=dict)


class StopState:
    """The stops in force, in memory.

    Attributes:
        any: True if there is a stop; if False, the other methods need not be called.
    """

    def __init__(self) -> None:
        self.any = False
        self._stopped = _Stopped()

    def apply(self, session: Session, changes: ChangeSet) -> None:
        """Reload the stops if they changed."""
        if not (changes.everything or "stop" in changes.subjects):
            return
        clients: dict[str, str] = {}
        scopes: dict[str, str] = {}
        servers: dict[str, str] = {}
        for stop in session.scalars(select(Stop).order_by(Stop.kind, Stop.subject)):
            name = f"{stop.kind} {stop.subject}"
            if stop.kind == "resource-server":
                servers[stop.subject] = name
            for client_id in stop.clients:
                clients.setdefault(client_id, name)
            for scope in stop.scopes:
                scopes.setdefault(scope, name)
        self._stopped = _Stopped(clients, scopes, servers)
        self.any = bool(clients or scopes or servers)

    def find_of_client(self, client_id: str) -> str:
        """Return the stop of a client, such as ``programme cash``; empty if there is none."""
        return self._stopped.clients.get(client_id, "")

    def find_of_scope(self, scope: ScopeEntry) -> str:
        """Return the stop of a scope or of its resource server; empty if there is none."""
        stopped = self._stopped
        found = stopped.scopes.get(scope.name, "")
        if not found and scope.resource_server_id is not None:
            found = stopped.resource_servers.get(scope.resource_server_id, "")
        return found

    def require_none(self, client_id: str, scopes: Iterable[ScopeEntry]) -> None:
        """Refuse a token for a stopped client or scope.

        Args:
            client_id: the client that the token is for.
            scopes: the scopes of the token.

        Raises:
            OAuthError: ``client_stopped`` or ``scope_stopped``; the cause names the kind of stop.
        """
        stop = self.find_of_client(client_id)
        if stop:
            raise _refusal("client_stopped", stop, stop, client_id)
        for scope in scopes:
            stop = self.find_of_scope(scope)
            if stop:
                raise _refusal("scope_stopped", stop, f"{stop}: {scope.name}", client_id)


def find_stopped_clients(session: Session) -> Mapping[str, str]:
    """Return the stops of clients, such as ``programme cash``, by the ids of the clients.

    Args:
        session: a database session; one that is narrowed sees the stops of its caller alone.
    """
    found: dict[str, str] = {}
    for stop in session.scalars(select(Stop).order_by(Stop.kind, Stop.subject)):
        for client_id in stop.clients:
            found.setdefault(client_id, f"{stop.kind} {stop.subject}")
    return found


def require_no_stop(
    session: Session, *, scope: str | None = None, resource_server_id: str | None = None
) -> None:
    """Refuse a change of a scope or a resource server that would end a stop without lifting it.

    The resource server is not stopped until the transaction ends.

    Args:
        session: the transaction of the change, which has locked the scope.
        scope: the canonical name of a scope that is to be deleted or loses a spelling.
        resource_server_id: the resource server that is to be deleted or to lose a scope.

    Raises:
        ConflictError: a stop of it, or of a programme with it, is in force.
    """
    # Of the tables themselves: the limits of an administrator do not narrow the stops.
    client = Client.__table__.c
    if resource_server_id is not None:
        found = select(client.id).where(client.id == resource_server_id)
        session.execute(found.with_for_update(read=True))
    stop = Stop.__table__.c
    for kind, subject, scopes in session.execute(select(stop.kind, stop.subject, stop.scopes)):
        if scope is not None and scope in scopes:
            raise ConflictError(f"The scope {scope} is stopped: lift the stop first.")
        if kind == "resource-server" and subject == resource_server_id:
            raise ConflictError(f"The resource server {subject!r} is stopped: lift the stop first.")


def lock_resource_server(session: Session, resource_server_id: str) -> None:
    """Wait for the changes that :func:`require_no_stop` admitted, before a stop is set."""
    client = Client.__table__.c
    found = select(client.id).where(client.id == resource_server_id)
    session.execute(found.with_for_update(key_share=True))


def _refusal(reason: str, stop: str, detail: str, client_id: str) -> OAuthError:
    kind = stop.partition(" ")[0]
    cause = f"{kind.replace('-', '_')}_stopped"
    return OAuthError(reason, detail, cause=cause, client_id=client_id)
