"""The rows that a limited administrator sees, and those that it may change.

The conditions narrow every query: rows of others are as if they did not exist, in lists, counts,
filters and messages.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, String, and_, cast, false, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from authz_server.audit.models import AuditRecord
from authz_server.audit.pending_changes import PendingChange
from authz_server.clients.models import CLIENT_GRANT, Client, ClientSecret, ResourceServer
from authz_server.clients.properties import read_properties
from authz_server.clients.registration.models import InitialAccessToken, Registration
from authz_server.database.change_feed import Change, Revision
from authz_server.database.idempotency import IdempotentCreation
from authz_server.operations.admin_api import ADMIN_SCOPES
from authz_server.operations.client_search import FEW, FoundClient
from authz_server.operations.client_views import ClientView
from authz_server.operations.criteria import options_of
from authz_server.operations.id_lists import (
    find_few,
    has_others,
    is_found,
    is_one_of,
    is_small_part,
)
from authz_server.operations.permissions import Limits, limits_of
from authz_server.operations.resource_servers import ResourceServerView
from authz_server.operations.seen_records import seen_records
from authz_server.scopes.models import Scope, ScopeAlias
from authz_server.scopes.uses import ScopeUse
from authz_server.tokens.event_streams.models import EventStream, UndeliveredEvent
from authz_server.tokens.models import RevocationCutOff, RevokedToken, Stop

# Columns of the table itself, in subqueries: the rules do not apply within the rules.
_CLIENT = Client.__table__.alias("limiting_client").c
_TOKEN = InitialAccessToken.__table__.alias("limiting_token").c
_GRANT = CLIENT_GRANT.alias("limiting_grant").c
_ROW = CLIENT_GRANT.alias("granted").c
_ALIAS = ScopeAlias.__table__.alias("limiting_alias").c
_View = TypeVar("_View", bound=ClientView)
#: The largest number of clients that are found first; more of them fill a page soon.
_FEW_CLIENTS = 3_000
_ADMINISTRATIVE = frozenset(name for name, _, _ in ADMIN_SCOPES)
#: Tables without a fact that administrators see.
_NEUTRAL = (Change, IdempotentCreation, Revision, RevocationCutOff, RevokedToken)


@dataclass(frozen=True, kw_only=True)
class Reach:
    """The resource servers and scopes within limits, as the database has them.

    A resource server without an organisation serves every organisation: a caller that is limited
    to organisations sees it, and does not change it. Such a caller also sees the scopes that
    clients of its organisations have.

    Attributes:
        limits: the limits.
        seen_servers: the ids of the resource servers that the caller sees.
        own_servers: those that it may change.
        seen_scopes: the canonical names of the scopes that the caller sees.
        own_scopes: those that it may change.
        is_sqlite: whether the database is SQLite.
        requester: the key of the caller, who also sees the changes that it requested; empty: the
            changes within the limits alone.
        seen_clients: the ids of the clients that the caller sees; None: they were not read, or are
            many. Queries find these rows first.
        own_clients: those that it may change, likewise; and ``own_tokens``, its initial tokens.
        client_range: the first and the last id of the clients that the caller sees, if they are
            many; None: it was not read.
        is_sparse: whether these are many, and yet a small part of all, which lists find first.
        foreign_until: the last records of own scopes and resource servers from when these belonged
            to others, as :func:`.seen_records.find_foreign_until` returns them.
    """

    limits: Limits
    seen_servers: frozenset[str]
    own_servers: frozenset[str]
    seen_scopes: frozenset[str]
    own_scopes: frozenset[str]
    is_sqlite: bool
    requester: str = ""
    seen_clients: tuple[str, ...] | None = None
    own_clients: tuple[str, ...] | None = None
    own_tokens: tuple[str, ...] | None = None
    client_range: tuple[str, str] | None = None
    is_sparse: bool = False
    foreign_until: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def conditions(self) -> Mapping[type[Any], ColumnElement[bool]]:
        """For each table, the condition of the rows that the caller sees; of another one, none."""
        seen, few = self._seen_client(_CLIENT), self.own_clients
        return {
            **dict.fromkeys(_NEUTRAL, true()),
            Client: or_(
                and_(Client.kind == "resource_server", Client.id.in_(self.seen_servers)),
                self._seen_client(Client),
            ),
            ClientSecret: or_(
                ClientSecret.client_id.in_(self.own_servers),
                and_(
                    # An index has these.
                    self.is_among(ClientSecret.client_id, few),
                    _is_client(ClientSecret.client_id, self._own_client()),
                ),
            ),
            ResourceServer: ResourceServer.client_id.in_(self.seen_servers),
            Scope: Scope.name.in_(self.seen_scopes),
            ScopeAlias: ScopeAlias.scope_name.in_(self.seen_scopes),
            Stop: or_(
                and_(Stop.kind == "scope", Stop.subject.in_(self.seen_scopes)),
                and_(Stop.kind == "resource-server", Stop.subject.in_(self.seen_servers)),
                and_(Stop.kind == "client", _is_client(Stop.subject, seen)),
            ),
            AuditRecord: seen_records(self),
            PendingChange: self._seen_change(),
            EventStream: EventStream.resource_server_id.in_(self.own_servers),
            UndeliveredEvent: UndeliveredEvent.resource_server_id.in_(self.own_servers),
            InitialAccessToken: self._own_token(InitialAccessToken.__table__.c),
            Registration: _is_client(Registration.client_id, seen),
            ScopeUse: and_(self._seen_use(), _is_client(ScopeUse.client_id, seen)),
        }

    @cached_property
    def options(self) -> tuple[Any, ...]:
        """The options of a query that apply the conditions."""
        return options_of(self.conditions)

    @cached_property
    def options_of_lists(self) -> tuple[Any, ...]:
        """The options of a query of clients that reads no rows of other clients.

        Without resource servers among its rows, PostgreSQL joins the grants of the clients, and
        does not read them once for each client.
        """
        of_listed = {
            Client: self._listed_client(),
            # Those of few ids are not sought here: PostgreSQL would seek all ids for each client.
            ClientSecret: false()
            if self.own_clients is not None and not self.own_clients
            else self._has_no_others(ClientSecret.client_id),
            ScopeUse: self._seen_use(),
        }
        return options_of({**self.conditions, **of_listed})

    def owns_client(self, client: Any) -> bool:  # noqa: ANN401 - a row or its view
        """Return whether nothing of a client belongs to others, so that the caller may change it.

        Args:
            client: a stored client, its view, or an earlier state of it, with the same fields.
        """
        limits = self.limits
        if limits.organisations is not None and client.organisation not in limits.organisations:
            return False
        if limits.resource_servers is not None:
            scopes, servers = set(client.allowed_scopes), set(client.allowed_resource_servers)
            if not (scopes or servers):
                return False
            if not (scopes <= self.seen_scopes and servers <= self.seen_servers):
                return False
        if _ADMINISTRATIVE.isdisjoint(client.allowed_scopes):
            return True
        return limits_of(read_properties(client.properties)).is_within(limits)

    def owns(self, kind: str, subject: str, session: Session) -> bool:
        """Return whether the caller may change what a stop or a revocation names.

        Args:
            kind: ``scope``, ``client``, ``resource-server`` or another.
            subject: its canonical name or id.
            session: a database session.
        """
        match kind:
            case "scope":
                return subject in self.own_scopes
            case "resource-server":
                return subject in self.own_servers
            case "client":
                client = session.get(Client, subject)
                return client is not None and self.owns_row(client)
        return False

    def owns_row(self, row: Client) -> bool:
        """Return whether the caller may change a client or a resource server."""
        if row.kind == "resource_server":
            return row.id in self.own_servers
        return self.owns_client(row)

    def owns_token(self, row: InitialAccessToken) -> bool:
        """Return whether clients that register with a token lie within the limits."""
        limits = self.limits
        if limits.organisations is not None and row.organisation not in limits.organisations:
            return False
        if limits.resource_servers is None:
            return True
        return bool(row.scopes) and self.seen_scopes.issuperset(row.scopes)

    def shown(self, client: _View) -> _View:
        """Return a client as the caller sees it: without what belongs to others.

        Args:
            client: a client that the caller sees.
        """
        if self.limits.resource_servers is None or self.owns_client(client):
            return client
        seen = replace(
            client,
            allowed_scopes=_only(client.allowed_scopes, self.seen_scopes),
            default_scopes=_only(client.default_scopes, self.seen_scopes),
            allowed_resource_servers=_only(client.allowed_resource_servers, self.seen_servers),
            permissions=(),
            properties={},
            secrets=(),
        )
        if isinstance(seen, FoundClient):
            return replace(seen, last_used_at=None, secret_ends_at=None)
        return seen

    def shown_server(self, server: ResourceServerView) -> ResourceServerView:
        """Return a resource server as the caller sees it: if it is not its own, in part.

        Args:
            server: a resource server that the caller sees.
        """
        if server.id in self.own_servers:
            return server
        return replace(server, permissions=(), properties={}, secrets=())

    def shown_servers(self, server_ids: Iterable[str]) -> tuple[str, ...]:
        """Return those of the resource servers that the caller sees."""
        return _only(server_ids, self.seen_servers)

    def _seen_client(
        self,
        row: Any,  # noqa: ANN401 - both have the columns
        *,
        with_organisation: bool = True,
    ) -> ColumnElement[bool]:
        """Return the condition of clients that the caller sees.

        Args:
            row: the mapped class, or the columns of the table in a subquery.
            with_organisation: whether the organisation is part of it.
        """
        conditions: list[ColumnElement[bool]] = [row.kind == "client"]
        if self.seen_clients is not None:
            conditions.append(self.is_among(row.id, self.seen_clients))
        if self.limits.organisations is not None and with_organisation:
            conditions.append(row.organisation.in_(self.limits.organisations))
        if self.limits.resource_servers is not None:
            of_client = select(_GRANT.client_id).where(_GRANT.client_id == row.id)
            conditions.append(of_client.where(self._is_seen_grant()).exists())
        return and_(*conditions)

    def _listed_client(self) -> ColumnElement[bool]:
        """Return the condition of clients that the caller sees, in a list of clients alone."""
        seen, limits = self._seen_client(Client), self.limits
        if self.is_sparse and limits.resource_servers is not None:
            granted = select(_ROW.client_id).where(self._is_seen_grant(_ROW))
            return and_(seen, is_found(Client.id, granted, is_sqlite=self.is_sqlite))
        if self.is_sparse or limits.organisations is None or not self.is_sqlite:
            return seen
        # Cast: those of the order are checked until the page is full, and not all of a large one.
        of_order = cast(Client.organisation, String).in_(limits.organisations)
        return and_(self._seen_client(Client, with_organisation=False), of_order)

    def _is_seen_grant(self, row: Any = _GRANT) -> ColumnElement[bool]:  # noqa: ANN401 - an alias
        """Return the condition of the grants of which the caller sees the name."""
        # Of one client, SQLite would seek each name, and not read the few rows.
        kind = cast(row.kind, String) if row is _GRANT and self.is_sqlite else row.kind
        return or_(
            and_(kind == "scope", row.name.in_(sorted(self.seen_scopes))),
            and_(kind == "resource_server", row.name.in_(sorted(self.seen_servers))),
        )

    def with_ids(self, session: Session) -> "Reach":
        """Return what is within the limits, with the ids of clients and tokens if they are few.

        One that is added later is not among them.

        Args:
            session: a session that is not narrowed.
        """
        if self.limits.resource_servers is None:
            seen = own = select(_CLIENT.id).where(self._own_client())
            grants = 1
        else:
            seen = select(_ROW.client_id).where(self._is_seen_grant(_ROW))
            own = seen.where(_CLIENT.id == _ROW.client_id, self._own_client())
            grants = len(self.seen_scopes) + len(self.seen_servers)
        few = find_few(session, seen, _FEW_CLIENTS, grants)
        if few is not None:
            # Fewer yet, if others have a part of each: their records are not read.
            own = select(_CLIENT.id).where(self.is_among(_CLIENT.id, few), self._own_client())
            grants = 1
        return replace(
            self,
            seen_clients=few,
            own_clients=find_few(session, own, _FEW_CLIENTS, grants),
            own_tokens=find_few(session, self._own_tokens(), FEW),
            is_sparse=few is None and is_small_part(session, seen, select(func.count(_CLIENT.id))),
        )

    def is_own_client(
        self,
        client_id: ColumnElement[Any] | InstrumentedAttribute[str],
        at: Any,  # noqa: ANN401
    ) -> ColumnElement[bool]:
        """Return whether an id is that of a client, from before a time, of no others."""
        return _is_client(client_id, and_(self._own_client(), _CLIENT.created_at <= at))

    def is_own_token(self, token_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """Return whether an id is that of an initial access token within the limits."""
        if self.own_tokens is None:
            return token_id.in_(self._own_tokens())
        return self.is_among(token_id, self.own_tokens)

    def _own_tokens(self) -> Select[Any]:
        return select(_TOKEN.id).where(self._own_token(_TOKEN))

    def _own_client(self) -> ColumnElement[bool]:
        """Return the condition of clients of :data:`_CLIENT` of which nothing belongs to others."""
        seen = self._seen_client(_CLIENT)
        return and_(seen, self._has_no_others(_CLIENT.id))

    def _has_no_others(
        self, client_id: ColumnElement[Any] | InstrumentedAttribute[str]
    ) -> ColumnElement[bool]:
        """Return the condition that a client is granted nothing of others."""
        if self.limits.resource_servers is None:
            return true()
        of_client = select(_GRANT.client_id).where(_GRANT.client_id == client_id)
        return ~of_client.where(~self._is_seen_grant()).exists()

    def is_among(
        self,
        column: ColumnElement[Any] | InstrumentedAttribute[str],
        few: tuple[str, ...] | None,
        before: str = "",
    ) -> ColumnElement[bool]:
        """Return the condition that a column is one of few ids, with a text before; None: true."""
        if few is None:
            return true()
        return is_one_of(column, [f"{before}{each}" for each in few], is_sqlite=self.is_sqlite)

    def _own_token(self, row: Any) -> ColumnElement[bool]:  # noqa: ANN401 - columns of a table
        """Return the condition of the initial access tokens within the limits."""
        conditions: list[ColumnElement[bool]] = [true()]
        if self.limits.organisations is not None:
            conditions.append(row.organisation.in_(self.limits.organisations))
        if self.limits.resource_servers is not None:
            conditions.append(cast(row.scopes, String) != "[]")
            conditions.append(~has_others(row.scopes, self.seen_scopes, of_sqlite=self.is_sqlite))
        return and_(*conditions)

    @cached_property
    def spellings(self) -> Select[Any]:
        """The query of the spellings of the scopes that the caller sees."""
        return select(_ALIAS.alias).where(_ALIAS.scope_name.in_(self.seen_scopes))

    def _seen_use(self) -> ColumnElement[bool]:
        """Return the condition of the uses of scopes that the caller sees, by any client."""
        # Of one client, SQLite would seek each spelling, and not read the few rows.
        scope = cast(ScopeUse.scope, String) if self.is_sqlite else ScopeUse.scope.expression
        return scope.in_(self.spellings)

    def _seen_change(self) -> ColumnElement[bool]:
        """Return the condition of the changes that concern nothing of others, or are one's own."""
        conditions: list[ColumnElement[bool]] = [PendingChange.organisation.is_not(None)]
        if self.limits.organisations is not None:
            conditions.append(PendingChange.organisation.in_(self.limits.organisations))
        if self.limits.resource_servers is not None:
            concerned = PendingChange.__table__.c.resource_servers
            conditions.append(cast(PendingChange.resource_servers, String) != "[]")
            conditions.append(~has_others(concerned, self.own_servers, of_sqlite=self.is_sqlite))
        if not self.requester:
            return and_(*conditions)
        return or_(PendingChange.requester == self.requester, and_(*conditions))


def _only(names: Iterable[str], seen: AbstractSet[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name in seen)


def _is_client(
    client_id: ColumnElement[Any] | InstrumentedAttribute[str], condition: ColumnElement[bool]
) -> ColumnElement[bool]:
    """Return whether an id is that of a client with a condition of :data:`_CLIENT`.

    It is judged for each row, so that a page does not read every client.
    """
    return select(_CLIENT.id).where(_CLIENT.id == client_id, condition).exists()
