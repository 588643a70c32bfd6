"""Report what clients are permitted and do not use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Select, func, literal, select, tuple_
from sqlalchemy.orm import Session

from authz_server.assembly import Services
from authz_server.clients.models import Client, ClientSecret
from authz_server.operations.client_conditions import in_state, is_active, is_unused_since
from authz_server.operations.client_search import LISTS_CLIENTS
from authz_server.operations.id_lists import is_in_range, is_one_of, is_sqlite
from authz_server.operations.limited_services import reach_of
from authz_server.operations.reach import Reach
from authz_server.scopes.service import find_canonical_names
from authz_server.scopes.uses import ScopeUse

_T = TypeVar("_T")
_OLD_SECRET = timedelta(days=366)
#: The smallest number of clients that are looked at together for a part of the report.
_CHUNK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedScopes:
    """A client with scopes that it does not use.

    Attributes:
        client_id: the client.
        organisation: its organisation.
        never_asked: allowed scopes that no token was issued with in the period.
        never_seen: allowed scopes that were issued, and that no resource server introspected a
            token with.
    """

    client_id: str
    organisation: str
    never_asked: tuple[str, ...]
    never_seen: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DormantClient:
    """A client that obtained no token in the period.

    Attributes:
        client_id: the client.
        organisation: its organisation.
        scopes: the number of its allowed scopes.
        last_used_at: when it last obtained a token; None: never, as far as is known.
    """

    client_id: str
    organisation: str
    scopes: int
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSecret:
    """A secret that ends soon, or does not end.

    Attributes:
        client_id: the client or resource server.
        secret_id: the secret.
        created_at: when it was made.
        expires_at: when it ends; None: it does not end.
        last_used_at: when it was last used.
    """

    client_id: str
    secret_id: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastPrivilege:
    """Permissions of clients that they do not use.

    Attributes:
        since: the beginning of the period.
        observed_since: when the use of scopes was first stored; None: it never was, or the part is
            not the first one. A scope that was used only before then counts as unused.
        unused_scopes: the clients with scopes that they do not use.
        dormant_clients: the clients that obtained no token.
        secrets_due: the secrets that end within the period of warning, or are older than a year
            and have no end.
        next: the cursor of the next part; None: there is none.
    """

    since: datetime
    observed_since: datetime | None
    unused_scopes: tuple[UnusedScopes, ...]
    dormant_clients: tuple[DormantClient, ...]
    secrets_due: tuple[DueSecret, ...]
    next: str | None = None


class ReportPlace(NamedTuple):
    """The place at which each list of a part of the report ends.

    Attributes:
        unused: the id of the last client with unused scopes; None: the list has ended.
        dormant: that of the last dormant client, likewise.
        due: when the last secret ends, in ISO 8601, or empty if it does not end; when it was made;
            and its id. Without them: no secret was listed yet; None: the list has ended.
    """

    unused: str | None = ""
    dormant: str | None = ""
    due: Sequence[str] | None = ()


_BEGINNING = ReportPlace()


def report_least_privilege(services: Services, *, days: int = 90) -> LeastPrivilege:
    """Return what clients were permitted and did not use.

    A limited caller gets this of the scopes that it sees, and the secrets that it may change.

    Args:
        services: the parts of the server.
        days: the length of the period until now.
    """
    return report_part(services, days=days)[0]


def report_part(
    services: Services, *, days: int, after: ReportPlace = _BEGINNING, limit: int | None = None
) -> tuple[LeastPrivilege, ReportPlace | None]:
    """Return a part of :func:`report_least_privilege`, and where the next part begins.

    Args:
        services: the parts of the server.
        days: the length of the period until now.
        after: the place after which the part begins.
        limit: the largest number of entries in each list; None: all.

    Returns:
        the part, and the place at which it ends; None: it is the last one.
    """
    now = services.clock()
    since = now - timedelta(days=days)
    warning = now + timedelta(days=services.settings.clients.secret_warning_days)
    with services.database.reading() as session:
        report = _Report(session, since, reach_of(services), None if limit is None else limit + 1)
        unused, last_unused = _cut(report.find_unused(after.unused), limit)
        dormant, last_dormant = _cut(
            report.find_dormant(after.dormant, services.corrected_clock()), limit
        )
        due, last_due = _cut(report.find_due(after.due, now, warning), limit)
        observed = report.find_beginning() if after == _BEGINNING else None
    end = ReportPlace(
        None if last_unused is None else last_unused.client_id,
        None if last_dormant is None else last_dormant.client_id,
        None if last_due is None else _due_place(last_due),
    )
    found = LeastPrivilege(
        since=since,
        observed_since=observed,
        unused_scopes=unused,
        dormant_clients=dormant,
        secrets_due=due,
    )
    return found, None if not any(end) else end


def _cut(found: Sequence[_T], limit: int | None) -> tuple[tuple[_T, ...], _T | None]:
    """Return the entries of a part, and the last of them if there are more."""
    shown = tuple(found[:limit])
    return shown, shown[-1] if len(found) > len(shown) else None


def _due_place(due: DueSecret) -> Sequence[str]:
    ends = "" if due.expires_at is None else due.expires_at.isoformat()
    return (ends, due.created_at.isoformat(), due.secret_id)


class _Report:
    """Finds the entries of the report.

    Args:
        session: for reading.
        since: the beginning of the period.
        reach: what is within the limits of the caller; None: it has none.
        most: the largest number of entries of a list; None: all.
    """

    def __init__(
        self, session: Session, since: datetime, reach: Reach | None, most: int | None
    ) -> None:
        self._session = session
        self._since = since
        self._reach = reach
        self._most = most

    def find_beginning(self) -> datetime | None:
        """Return when the use of scopes was first stored."""
        first = select(ScopeUse.first_at).order_by(ScopeUse.first_at).limit(1)
        return self._session.scalar(first)

    def find_unused(self, after: str | None) -> Sequence[UnusedScopes]:
        """Return the clients with scopes that they do not use, by id."""
        found: list[UnusedScopes] = []
        number = None if self._most is None else max(self._most, _CHUNK)
        while after is not None:
            columns = (Client.id, Client.organisation, Client.allowed_scopes)
            rows = self._session.execute(self._clients(after, *columns).limit(number)).all()
            found += self._describe_unused(rows)
            is_last = number is None or len(rows) < number
            after = None if is_last or len(found) >= (self._most or 0) else rows[-1].id
        return found[: self._most]

    def find_dormant(self, after: str | None, now: datetime) -> Sequence[DormantClient]:
        """Return the clients that obtained no token, by id.

        Columns alone: the rows of 100,000 clients take seconds.
        """
        if after is None:
            return ()
        reach = self._reach
        if reach is not None and reach.limits.resource_servers is None:
            reach = None  # It sees the whole of each client.
        further = (Client.allowed_resource_servers, Client.properties) if reach is not None else ()
        columns = (Client.id, Client.organisation, Client.allowed_scopes, *further)
        is_dormant = (*is_unused_since(self._since), in_state("enabled", now))
        query = self._clients(after, *columns).where(*is_dormant).limit(self._most)
        rows = self._session.execute(query).all()
        used = self._find_last_uses(None if self._most is None else [row.id for row in rows])
        found = []
        for each in rows:
            scopes, last_used_at = each.allowed_scopes, used.get(each.id)
            if reach is not None and not reach.owns_client(each):
                scopes, last_used_at = [name for name in scopes if name in reach.seen_scopes], None
            found.append(
                DormantClient(
                    client_id=each.id,
                    organisation=each.organisation,
                    scopes=len(scopes),
                    last_used_at=last_used_at,
                )
            )
        return found

    def find_due(
        self, after: Sequence[str] | None, now: datetime, warning: datetime
    ) -> Sequence[DueSecret]:
        """Return the secrets that end soon, the first one first, and then the old ones."""
        if after is None:
            return ()
        ends, created = ClientSecret.expires_at.expression, ClientSecret.created_at.expression
        names = ("client_id", "id", "created_at", "expires_at", "last_used_at")
        query = select(*(getattr(ClientSecret, name) for name in names)).where(is_active(now))
        soon = query.where(ends > now, ends <= warning)
        old = query.where(ends.is_(None), created < now - _OLD_SECRET)
        rows: list[Any] = []
        times = [datetime.fromisoformat(each) for each in after[:2] if each]
        if not after or after[0]:
            part = _behind(soon, (ends, created), times, after[2:])
            rows += self._session.execute(part.limit(self._most))
            times = []
        if self._most is None or len(rows) < self._most:
            part = _behind(old, (created,), times, after[2:] if times else ())
            rest = None if self._most is None else self._most - len(rows)
            rows += self._session.execute(part.limit(rest))
        return [
            DueSecret(
                client_id=client_id,
                secret_id=secret_id,
                created_at=created_at,
                expires_at=expires_at,
                last_used_at=last_used_at,
            )
            for client_id, secret_id, created_at, expires_at, last_used_at in rows
        ]

    def _clients(self, after: str, *columns: Any) -> Select[Any]:  # noqa: ANN401 - of the table
        """Return the query of the clients from before the period, by id, after one of them."""
        is_seen = is_in_range(self._session, Client.id, in_order=True)
        query = select(*columns).where(Client.kind == "client", Client.created_at < self._since)
        query = query.where(Client.id > after) if after else query
        listed = query.where(is_seen).order_by(Client.id)
        return listed.execution_options(**{LISTS_CLIENTS: True})

    def _of_clients(self, query: Any, client_id: Any, ids: Sequence[str] | None) -> Any:  # noqa: ANN401 - rows
        """Return the rows of a query for clients that the caller sees; None: for all of these."""
        if ids is None:
            return self._session.execute(query)
        is_one = is_one_of(client_id, ids, is_sqlite=is_sqlite(self._session))
        listed = query.where(is_one).execution_options(**{LISTS_CLIENTS: True})
        return self._session.execute(listed)

    def _describe_unused(self, rows: Sequence[Any]) -> Iterable[UnusedScopes]:
        ids = None if self._most is None else [row.id for row in rows]
        used: dict[str, dict[str, set[str]]] = {}
        query = select(ScopeUse.client_id, ScopeUse.kind, ScopeUse.scope)
        query = query.where(ScopeUse.last_at >= self._since)
        uses = self._of_clients(query, ScopeUse.client_id, ids).all()
        # Tokens may have other spellings.
        names = find_canonical_names(self._session, {scope for _, _, scope in uses})
        for client_id, kind, scope in uses:
            used.setdefault(client_id, {}).setdefault(kind, set()).add(names.get(scope, scope))
        for client_id, organisation, scopes in rows:
            allowed = [
                each for each in scopes if self._reach is None or each in self._reach.seen_scopes
            ]
            kinds = used.get(client_id, {})
            asked, seen = kinds.get("asked", set()), kinds.get("seen", set())
            never_asked = _without(allowed, asked)
            never_seen = _without([each for each in allowed if each in asked], seen)
            if never_asked or never_seen:
                yield UnusedScopes(
                    client_id=client_id,
                    organisation=organisation,
                    never_asked=never_asked,
                    never_seen=never_seen,
                )

    def _find_last_uses(self, ids: Sequence[str] | None) -> dict[str, datetime]:
        """Return when each client that was used was last seen to obtain a token."""
        of_secret = select(ClientSecret.client_id, func.max(ClientSecret.last_used_at))
        of_token = select(ScopeUse.client_id, func.max(ScopeUse.last_at)).where(
            ScopeUse.kind == "asked"
        )
        found: dict[str, datetime] = {}
        for query, client_id in (
            (of_secret, ClientSecret.client_id),
            (of_token, ScopeUse.client_id),
        ):
            listed = query.group_by(client_id).execution_options(**{LISTS_CLIENTS: True})
            for each, at in self._of_clients(listed, client_id, ids):
                if at is not None:
                    found[each] = max(at, found.get(each, at))
        return found


def _behind(
    query: Select[Any],
    columns: Sequence[ColumnElement[Any]],
    times: Sequence[datetime],
    secret_id: Sequence[str],
) -> Select[Any]:
    """Return a query of secrets in the order of some times and their ids, behind a place."""
    ordered = (*columns, ClientSecret.id.expression)
    query = query.order_by(*ordered)
    if not times:
        return query
    values = [
        literal(value, column.type)
        for value, column in zip((*times, *secret_id), ordered, strict=True)
    ]
    # SQLite begins in an index at an expression of its own, and not at one of a tuple.
    return query.where(ordered[0] >= values[0], tuple_(*ordered) > tuple_(*values))


def _without(allowed: Iterable[str], used: set[str]) -> tuple[str, ...]:
    return tuple(each for each in allowed if each not in used)
